//! Whose images are taken: keys or a policy, and the signatures that were found → [`Verified`]. Pure: who calls reads
//! files and registries.
//!
//! ```text
//! key → signature → payload → digest of the image's manifest: here
//! manifest → config → diff_ids → every byte: where images are parsed and layers made
//! ```
//!
//! Signatures are those of cosign: a payload that names the manifest's digest and the image's name ("simple signing"),
//! and a signature over it.

mod identity;
mod key;
mod payload;
mod policy;

use crate::digest::{Digest, digest_of};
use crate::error::{Error, Result};
use identity::Identity;
pub use key::Key;
pub use payload::signed_manifest;
pub use policy::{Policy, Scope};

/// Most signatures of an image that are looked at.
pub const MAX_SIGNATURES: usize = 50;

/// Largest payload of a signature in bytes; real ones have some 250. Also of the config beside it.
pub const MAX_PAYLOAD: u64 = 64 << 10;

/// Largest file of a key, or of a policy, in bytes; keys have less than 1 KiB.
pub const MAX_PEM: u64 = 64 << 10;

/// The media type of a payload.
pub const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

/// The annotation of a payload that holds its signature, in base64.
pub const SIGNATURE: &str = "dev.cosignproject.cosign/signature";

/// A signature as it was found; nothing of it is believed yet.
#[derive(Debug, Clone)]
pub struct Signature {
    /// What is signed.
    pub payload: Vec<u8>,
    /// The signature over it, in base64.
    pub signature: String,
}

/// Whose images are taken.
#[derive(Debug, Clone, Default)]
pub enum Trust {
    /// Anybody's.
    #[default]
    Anybody,
    /// Those that one of these keys signed, under any name.
    Keys(Vec<Key>),
    /// Those that a policy allows.
    Policy(Box<Policy>),
}

impl Trust {
    /// What is demanded of an image from `scope` that is to be called `name`.
    ///
    /// # Errors
    /// Verification when nothing from there is taken.
    pub fn demand(&self, scope: &Scope, name: Option<&str>) -> Result<Demand<'_>> {
        Ok(Demand(match self {
            Trust::Anybody => Vec::new(),
            Trust::Keys(keys) => vec![Requirement { keys, identity: &Identity::Any, name: None }],
            Trust::Policy(policy) => policy.requirements(scope, name)?,
        }))
    }
}

/// What is demanded of one image: all of these.
#[derive(Debug)]
pub struct Demand<'a>(Vec<Requirement<'a>>);

/// A signature by one of the keys, for the name that is meant.
#[derive(Debug)]
struct Requirement<'a> {
    keys: &'a [Key],
    identity: &'a Identity,
    name: Option<String>,
}

/// Who signed an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signer {
    /// The key, as it was named.
    pub key: String,
    /// The name that was signed; a claim of who signed, which a policy checks.
    pub reference: String,
}

/// A manifest that may be brought here. Only this module makes one, so nobody goes on without.
#[derive(Debug, Clone)]
pub struct Verified {
    /// `None`: nothing was demanded.
    manifest: Option<Digest>,
    signers: Vec<Signer>,
}

impl Verified {
    /// Who signed it, one for each that was demanded.
    pub fn signers(&self) -> &[Signer] {
        &self.signers
    }

    /// Refuses any other manifest.
    ///
    /// # Errors
    /// Verification.
    pub fn covers(&self, manifest: &Digest) -> Result<()> {
        match &self.manifest {
            Some(verified) if verified != manifest => Err(Error::verification(format!(
                "image {verified} is signed, and {manifest} was to be brought"
            ))),
            _ => Ok(()),
        }
    }
}

impl Demand<'_> {
    /// What comes where nothing is demanded.
    pub fn nothing(&self) -> Option<Verified> {
        self.0.is_empty().then(|| Verified { manifest: None, signers: Vec::new() })
    }

    /// Checks an image, by the bytes of its manifest.
    ///
    /// # Errors
    /// Verification when no signature does; it says why.
    pub fn verify(&self, manifest: &[u8], signatures: &[Signature]) -> Result<Verified> {
        let digest = digest_of(manifest);
        if signatures.len() > MAX_SIGNATURES {
            let found = signatures.len();
            let what =
                format!("image {digest} has {found} signatures, at most {MAX_SIGNATURES} are looked at");
            return Err(Error::verification(what));
        }
        let by_one = |requirement: &Requirement<'_>| requirement.check(&digest, signatures);
        let signers = self.0.iter().map(by_one).collect::<Result<_>>()?;
        Ok(Verified { manifest: Some(digest), signers })
    }
}

impl Requirement<'_> {
    /// The first of the signatures that does.
    fn check(&self, manifest: &Digest, signatures: &[Signature]) -> Result<Signer> {
        let mut reasons: Vec<String> = Vec::new();
        for signature in signatures {
            match self.signer(manifest, signature) {
                Ok(signer) => return Ok(signer),
                Err(reason) if reasons.contains(&reason) => {}
                Err(reason) => reasons.push(reason),
            }
        }
        let keys: Vec<&str> = self.keys.iter().map(Key::name).collect();
        let wanted = format!("one by {} is demanded", keys.join(" or "));
        Err(match reasons.len() {
            0 => Error::verification(format!("image {manifest} has no signature, and {wanted}"))
                .with_hint("have it signed (cosign sign), or take a delta that embeds its signature"),
            _ => Error::verification(format!(
                "no signature of image {manifest} is good, and {wanted}: {}",
                reasons.join("; ")
            )),
        })
    }

    fn signer(&self, manifest: &Digest, signature: &Signature) -> Result<Signer, String> {
        if signature.payload.len() as u64 > MAX_PAYLOAD {
            return Err(format!("its payload has more than {MAX_PAYLOAD} bytes"));
        }
        let bytes = payload::decode(&signature.signature)?;
        // Nothing is read of a payload that nobody signed.
        let key = self.keys.iter().find(|key| key.verifies(&signature.payload, &bytes));
        let key = key.ok_or("it is by another key, or damaged")?;
        let reference = payload::of(&signature.payload, manifest)?;
        self.identity.check(self.name.as_deref(), &reference)?;
        Ok(Signer { key: key.name().to_owned(), reference })
    }
}
