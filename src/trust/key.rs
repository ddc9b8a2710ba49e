//! Public keys: which kinds are taken, and what they signed.

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{SignatureVerificationAlgorithm as Algorithm, SubjectPublicKeyInfoDer};
use webpki::ring as known;
use webpki::{Error as KeyError, RawPublicKeyEntity};

use super::MAX_PEM;
use crate::error::{Error, Result};

/// What keys sign with: cosign hashes with SHA-256, whatever the curve.
static ALGORITHMS: [&dyn Algorithm; 4] =
    [known::ECDSA_P256_SHA256, known::ECDSA_P384_SHA256, known::RSA_PKCS1_2048_8192_SHA256, known::ED25519];

/// Fewest bytes of an RSA key that is taken: its modulus has 2048 bits.
const LEAST_RSA: usize = 256;

/// A public key.
#[derive(Debug, Clone)]
pub struct Key {
    name: String,
    spki: SubjectPublicKeyInfoDer<'static>,
    algorithm: &'static dyn Algorithm,
}

impl Key {
    /// The key in a PEM file; `name` is what reports call it.
    ///
    /// # Errors
    /// Usage when there is not one, or of a kind that is not taken.
    pub fn parse(name: impl Into<String>, pem: &[u8]) -> Result<Self> {
        let name = name.into();
        let refused = |what: String| Error::usage(format!("{name}: {what}"));
        if pem.len() as u64 > MAX_PEM {
            return Err(refused(format!("a key has at most {MAX_PEM} bytes, this file more")));
        }
        let mut keys = SubjectPublicKeyInfoDer::pem_slice_iter(pem);
        let spki = match (keys.next(), keys.next()) {
            (Some(Ok(spki)), None) => spki,
            (Some(_), Some(_)) => return Err(refused("more than one key is in this file".into())),
            (Some(Err(e)), None) => return Err(refused(format!("broken PEM: {e}"))),
            (None, _) => return Err(refused(instead(pem)).with_hint(PUBLIC)),
        };
        let algorithm = algorithm(&spki).map_err(refused)?;
        Ok(Key { name, spki, algorithm })
    }

    /// What reports call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Is that its signature over the message?
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let key = RawPublicKeyEntity::try_from(&self.spki);
        key.is_ok_and(|key| key.verify_signature(self.algorithm, message, signature).is_ok())
    }
}

const PUBLIC: &str =
    "a public key begins with -----BEGIN PUBLIC KEY-----; openssl pkey -in KEY -pubout makes one";

/// What is in a file that has no public key.
fn instead(pem: &[u8]) -> String {
    let text = String::from_utf8_lossy(pem);
    let label = text.split("-----BEGIN ").nth(1).and_then(|rest| rest.split("-----").next());
    match label.filter(|label| label.len() < 40) {
        Some(label) if label.contains("PRIVATE") => {
            "this is a private key; only the public one is needed here".into()
        }
        Some(label) => format!("no public key, but {}", label.escape_default()),
        None => "no key in PEM".into(),
    }
}

/// What a key signs with. The library tells by trying.
fn algorithm(spki: &SubjectPublicKeyInfoDer<'_>) -> Result<&'static dyn Algorithm, String> {
    let key = RawPublicKeyEntity::try_from(spki).map_err(|e| format!("no public key: {e}"))?;
    let fits = |algorithm: &&&'static dyn Algorithm| {
        let tried = key.verify_signature(**algorithm, b"", b"");
        !matches!(tried, Ok(()) | Err(KeyError::UnsupportedSignatureAlgorithmForPublicKeyContext(_)))
    };
    let algorithm = ALGORITHMS
        .iter()
        .find(fits)
        .ok_or("this kind of key is not taken: it must be ECDSA on P-256 or P-384, RSA, or Ed25519")?;
    if std::ptr::eq(*algorithm, ALGORITHMS[2]) && spki.len() < LEAST_RSA {
        return Err("an RSA key must have at least 2048 bits".into());
    }
    Ok(*algorithm)
}
