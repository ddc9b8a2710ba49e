//! Key exchange over P-521: a server with such a key shows it only to those who know the curve (TLS 1.2),
//! and some know no other. `ring` has not got it.

use p521::elliptic_curve::Generate as _;
use p521::elliptic_curve::sec1::ToSec1Point as _;
use p521::{PublicKey, ecdh::EphemeralSecret};
use rustls::crypto::{ActiveKeyExchange, SharedSecret, SupportedKxGroup};
use rustls::{Error, NamedGroup, PeerMisbehaved};

/// secp521r1.
#[derive(Debug)]
pub(super) struct P521;

impl SupportedKxGroup for P521 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let secret = EphemeralSecret::try_generate().map_err(|_| Error::FailedToGetRandomBytes)?;
        let public = secret.public_key().to_sec1_point(false).as_bytes().to_vec();
        Ok(Box::new(Exchange { secret, public }))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::secp521r1
    }
}

struct Exchange {
    secret: EphemeralSecret,
    public: Vec<u8>,
}

impl ActiveKeyExchange for Exchange {
    fn complete(self: Box<Self>, theirs: &[u8]) -> Result<SharedSecret, Error> {
        // Only the uncompressed form is allowed (RFC 8446, 4.2.8.2); that it is on the curve is checked.
        let whole = theirs.first() == Some(&4);
        let theirs = whole.then(|| PublicKey::from_sec1_bytes(theirs).ok()).flatten();
        let theirs = theirs.ok_or(PeerMisbehaved::InvalidKeyShare)?;
        let shared = self.secret.diffie_hellman(&theirs);
        Ok(SharedSecret::from(&shared.raw_secret_bytes()[..]))
    }

    fn pub_key(&self) -> &[u8] {
        &self.public
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::secp521r1
    }
}
