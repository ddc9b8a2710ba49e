//! The signatures that are understood: those of `ring`, and what Go knows beyond them.

use std::fmt;

use p256::ecdsa::signature::hazmat::PrehashVerifier as _;
use ring::signature::{
    RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY,
    RsaParameters, UnparsedPublicKey,
};
use rustls::SignatureScheme;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{
    AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm as Algorithm, alg_id,
};
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use webpki::ring as known;

/// Of certificates and of handshakes.
pub(super) static ALGORITHMS: WebPkiSupportedAlgorithms =
    WebPkiSupportedAlgorithms { all: ALL, mapping: MAPPING };

static ALL: &[&dyn Algorithm] = &[
    known::ECDSA_P256_SHA256,
    known::ECDSA_P256_SHA384,
    &P256_SHA512,
    known::ECDSA_P384_SHA256,
    known::ECDSA_P384_SHA384,
    &P384_SHA512,
    &P521_SHA256,
    &P521_SHA384,
    &P521_SHA512,
    known::ED25519,
    known::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    known::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    known::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
    &RSA_SHA256,
    known::RSA_PKCS1_2048_8192_SHA384,
    &RSA_SHA512,
    known::RSA_PKCS1_2048_8192_SHA256_ABSENT_PARAMS,
    known::RSA_PKCS1_2048_8192_SHA384_ABSENT_PARAMS,
    known::RSA_PKCS1_2048_8192_SHA512_ABSENT_PARAMS,
];

/// TLS 1.3 takes the first of each, TLS 1.2 the one that fits the key.
static MAPPING: &[(SignatureScheme, &[&dyn Algorithm])] = &[
    (
        SignatureScheme::ECDSA_NISTP384_SHA384,
        &[known::ECDSA_P384_SHA384, known::ECDSA_P256_SHA384, &P521_SHA384],
    ),
    (
        SignatureScheme::ECDSA_NISTP256_SHA256,
        &[known::ECDSA_P256_SHA256, known::ECDSA_P384_SHA256, &P521_SHA256],
    ),
    (SignatureScheme::ECDSA_NISTP521_SHA512, &[&P521_SHA512, &P384_SHA512, &P256_SHA512]),
    (SignatureScheme::ED25519, &[known::ED25519]),
    (SignatureScheme::RSA_PSS_SHA512, &[known::RSA_PSS_2048_8192_SHA512_LEGACY_KEY]),
    (SignatureScheme::RSA_PSS_SHA384, &[known::RSA_PSS_2048_8192_SHA384_LEGACY_KEY]),
    (SignatureScheme::RSA_PSS_SHA256, &[known::RSA_PSS_2048_8192_SHA256_LEGACY_KEY]),
    (SignatureScheme::RSA_PKCS1_SHA512, &[&RSA_SHA512]),
    (SignatureScheme::RSA_PKCS1_SHA384, &[known::RSA_PKCS1_2048_8192_SHA384]),
    (SignatureScheme::RSA_PKCS1_SHA256, &[&RSA_SHA256]),
];

static P256_SHA512: Ecdsa = Ecdsa {
    verify: |key, message, signature| {
        let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(key).ok()?;
        let signature = p256::ecdsa::Signature::from_der(signature).ok()?;
        key.verify_prehash(&Sha512::digest(message), &signature).ok()
    },
    key: alg_id::ECDSA_P256,
    signature: alg_id::ECDSA_SHA512,
};
static P384_SHA512: Ecdsa = Ecdsa {
    verify: |key, message, signature| {
        let key = p384::ecdsa::VerifyingKey::from_sec1_bytes(key).ok()?;
        let signature = p384::ecdsa::Signature::from_der(signature).ok()?;
        key.verify_prehash(&Sha512::digest(message), &signature).ok()
    },
    key: alg_id::ECDSA_P384,
    signature: alg_id::ECDSA_SHA512,
};
static P521_SHA256: Ecdsa = Ecdsa {
    verify: |key, message, signature| p521(key, &Sha256::digest(message), signature),
    key: alg_id::ECDSA_P521,
    signature: alg_id::ECDSA_SHA256,
};
static P521_SHA384: Ecdsa = Ecdsa {
    verify: |key, message, signature| p521(key, &Sha384::digest(message), signature),
    key: alg_id::ECDSA_P521,
    signature: alg_id::ECDSA_SHA384,
};
static P521_SHA512: Ecdsa = Ecdsa {
    verify: |key, message, signature| p521(key, &Sha512::digest(message), signature),
    key: alg_id::ECDSA_P521,
    signature: alg_id::ECDSA_SHA512,
};
/// From 1024 bits on, as skopeo; `webpki` begins with 2048.
static RSA_SHA256: Rsa =
    Rsa { parameters: &RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, signature: alg_id::RSA_PKCS1_SHA256 };
static RSA_SHA512: Rsa =
    Rsa { parameters: &RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY, signature: alg_id::RSA_PKCS1_SHA512 };

/// No hash is as long as a number of this curve, and the crate takes none below half of that.
fn p521(key: &[u8], hash: &[u8], signature: &[u8]) -> Option<()> {
    let key = p521::ecdsa::VerifyingKey::from_sec1_bytes(key).ok()?;
    let signature = p521::ecdsa::Signature::from_der(signature).ok()?;
    let mut number = [0; 66];
    number[66 - hash.len()..].copy_from_slice(hash);
    key.verify_prehash(&number, &signature).ok()
}

/// Takes key, message and signature; nothing if it is a wrong one.
type Check = fn(&[u8], &[u8], &[u8]) -> Option<()>;

/// An elliptic curve with a hash.
struct Ecdsa {
    verify: Check,
    key: AlgorithmIdentifier,
    signature: AlgorithmIdentifier,
}

impl fmt::Debug for Ecdsa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ecdsa").field("key", &self.key).field("signature", &self.signature).finish()
    }
}

impl Algorithm for Ecdsa {
    fn verify_signature(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        (self.verify)(key, message, signature).ok_or(InvalidSignature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.key
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.signature
    }
}

/// RSA by PKCS #1 version 1.5.
#[derive(Debug)]
struct Rsa {
    parameters: &'static RsaParameters,
    signature: AlgorithmIdentifier,
}

impl Algorithm for Rsa {
    fn verify_signature(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        UnparsedPublicKey::new(self.parameters, key).verify(message, signature).map_err(|_| InvalidSignature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::RSA_ENCRYPTION
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.signature
    }
}

/// Did the key of `of` (contents of its algorithm's SEQUENCE, and its bits) sign `message`?
pub(super) fn verifies(
    (algorithm, key): (&[u8], &[u8]),
    signed_by: &[u8],
    message: &[u8],
    signature: &[u8],
) -> bool {
    let fits = |a: &&&dyn Algorithm| {
        a.public_key_alg_id().as_ref() == algorithm && a.signature_alg_id().as_ref() == signed_by
    };
    ALL.iter().filter(fits).any(|a| a.verify_signature(key, message, signature).is_ok())
}
