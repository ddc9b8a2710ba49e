//! TLS to registries as skopeo has it. A machine's certificates are made for skopeo, so ours must be
//! accepted where its are, and nowhere else; skopeo takes them by the rules of Go's `crypto/x509`.
//! Those differ from the Web's, which [`webpki`] keeps: a server may show a certificate that is an
//! authority's or in the store itself, authorities expire and are bound by all that they say,
//! version 1 is good enough for one in the store, and there are more curves. So paths are found here,
//! by parsed fields ([`x509_parser`]) and signatures of others ([`ring`], `p521`).

mod certificate;
mod exchange;
mod names;
mod path;
mod signature;
mod store;

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, SignatureScheme};

use certificate::Certificate;
use store::Store;

/// Certificates that a server may show; real ones show two to four.
const MAX_SHOWN: usize = 32;

/// A configuration of TLS that trusts the authorities of this machine and `authorities` (PEM), or,
/// if `insecure`, everybody.
pub(super) fn client_config(authorities: Vec<Vec<u8>>, insecure: bool) -> Result<ClientConfig, TlsError> {
    let mut provider = CryptoProvider {
        signature_verification_algorithms: signature::ALGORITHMS,
        ..rustls::crypto::ring::default_provider()
    };
    // Last, so that it is used only where nothing else will do.
    provider.kx_groups.push(&exchange::P521);
    let load = Box::new(move || Store::of_this_machine(&authorities)) as Box<dyn FnOnce() -> Store + Send>;
    let trusted = (!insecure).then(|| LazyLock::new(load));
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier { trusted }))
        .with_no_client_auth();
    Ok(config)
}

/// What ends a handshake, for people; [`None`] where it is another error than one of a certificate.
pub(super) fn refusal(e: &TlsError) -> Option<String> {
    let TlsError::InvalidCertificate(e) = e else { return None };
    let text = match e {
        CertificateError::Other(other) => other.to_string(),
        CertificateError::UnknownIssuer => "signed by an unknown authority".to_owned(),
        CertificateError::BadSignature => "the server has not got its key".to_owned(),
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "its kind of key is not known here".to_owned()
        }
        other => format!("{other:?}"),
    };
    Some(text)
}

/// The Go way to look at a server's certificates.
struct Verifier {
    /// Read when first needed, for plain HTTP never needs it; nothing where all is trusted.
    trusted: Option<LazyLock<Store, Box<dyn FnOnce() -> Store + Send>>>,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("insecure", &self.trusted.is_none()).finish()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let Some(store) = &self.trusted else { return Ok(ServerCertVerified::assertion()) };
        if intermediates.len() >= MAX_SHOWN {
            return Err(CertificateError::BadEncoding.into());
        }
        let parsed = |der: &CertificateDer<'_>| Certificate::parse(der).ok_or(CertificateError::BadEncoding);
        let leaf = parsed(end_entity)?;
        let shown = intermediates.iter().map(parsed).collect::<Result<Vec<_>, _>>()?;
        let host = match server_name {
            ServerName::DnsName(name) => names::Host::Name(name.as_ref()),
            ServerName::IpAddress(ip) => names::Host::Address(IpAddr::from(*ip)),
            _ => return Err(CertificateError::NotValidForName.into()),
        };
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        path::verify(&leaf, &shown, store, &host, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, cert, dss, &signature::ALGORITHMS)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, cert, dss, &signature::ALGORITHMS)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        signature::ALGORITHMS.supported_schemes()
    }
}
