//! A certificate: those of its fields that decide whether it is trusted.

use std::ops::RangeInclusive;

use x509_parser::asn1_rs::{FromDer as _, Oid, Sequence};
use x509_parser::extensions::{GeneralName, ParsedExtension as Extension};
use x509_parser::prelude::{X509Certificate, X509Version};

use super::names::{Constraints, Names};
use super::signature;

/// A parsed certificate.
#[derive(Debug)]
pub(super) struct Certificate {
    pub der: Vec<u8>,
    /// As DER.
    pub subject: Vec<u8>,
    /// As DER.
    pub issuer: Vec<u8>,
    /// Seconds since 1970.
    pub valid: RangeInclusive<i64>,
    /// It has a critical extension that nobody here knows.
    pub strange: bool,
    /// It may be shown by servers, as far as it says.
    pub for_servers: bool,
    pub names: Option<Names>,
    pub constraints: Option<Constraints>,
    /// Where it says so: is it an authority's, and over how many others?
    pub basic: Option<(bool, Option<u32>)>,
    /// The key and the names: what makes it the same as another one.
    pub key: Vec<u8>,
    version_3: bool,
    /// Its key is for signing certificates, or no use is named.
    key_may_sign: bool,
    key_algorithm: Vec<u8>,
    key_bits: Vec<u8>,
    signed: Vec<u8>,
    signature_algorithm: Vec<u8>,
    signature: Vec<u8>,
}

impl Certificate {
    /// Of DER; `None` for what is none.
    pub(super) fn parse(der: &[u8]) -> Option<Self> {
        let (rest, parsed) = X509Certificate::from_der(der).ok()?;
        if !rest.is_empty() {
            return None;
        }
        // The parser keeps algorithms in pieces; they are compared as they stand.
        let (_, outer) = Sequence::from_der(der).ok()?;
        let signed = parsed.tbs_certificate.as_ref();
        let (_, signature_algorithm) = Sequence::from_der(outer.content.get(signed.len()..)?).ok()?;
        let key = &parsed.tbs_certificate.subject_pki;
        let (_, spki) = Sequence::from_der(key.raw).ok()?;
        let (_, key_algorithm) = Sequence::from_der(&spki.content).ok()?;
        let valid = parsed.validity();
        let mut certificate = Certificate {
            der: der.to_owned(),
            subject: parsed.subject().as_raw().to_owned(),
            issuer: parsed.issuer().as_raw().to_owned(),
            valid: valid.not_before.timestamp()..=valid.not_after.timestamp(),
            strange: false,
            for_servers: true,
            names: None,
            constraints: None,
            basic: None,
            key: key.raw.to_owned(),
            version_3: parsed.version() == X509Version::V3,
            key_may_sign: true,
            key_algorithm: key_algorithm.content.to_vec(),
            key_bits: key.subject_public_key.data.to_vec(),
            signed: signed.to_owned(),
            signature_algorithm: signature_algorithm.content.to_vec(),
            signature: parsed.signature_value.data.to_vec(),
        };
        let mut seen: Vec<&Oid<'_>> = Vec::new();
        for extension in parsed.extensions() {
            if seen.contains(&&extension.oid) {
                return None;
            }
            seen.push(&extension.oid);
            let known = certificate.take(extension.parsed_extension())?;
            certificate.strange |= extension.critical && !known;
        }
        Some(certificate)
    }

    /// Takes an extension in; false for one that is not known, `None` for one that is broken.
    fn take(&mut self, extension: &Extension<'_>) -> Option<bool> {
        match extension {
            Extension::BasicConstraints(basic) => self.basic = Some((basic.ca, basic.path_len_constraint)),
            Extension::KeyUsage(usage) => self.key_may_sign = usage.flags == 0 || usage.key_cert_sign(),
            Extension::ExtendedKeyUsage(usage) => self.for_servers = usage.any || usage.server_auth,
            Extension::SubjectAlternativeName(names) => {
                let names = Names::of(&names.general_names)?;
                let known = !names.is_empty();
                self.names = Some(names);
                return Some(known);
            }
            Extension::NameConstraints(constraints) => {
                let subtrees = |trees: &Option<Vec<_>>| -> Vec<GeneralName<'_>> {
                    let trees = trees.iter().flatten();
                    trees
                        .map(|tree: &x509_parser::extensions::GeneralSubtree<'_>| tree.base.clone())
                        .collect()
                };
                let (permitted, excluded) =
                    (subtrees(&constraints.permitted_subtrees), subtrees(&constraints.excluded_subtrees));
                let constraints = Constraints::of(&permitted, &excluded)?;
                let known = constraints.understood;
                self.constraints = Some(constraints);
                return Some(known);
            }
            Extension::SubjectKeyIdentifier(_)
            | Extension::AuthorityKeyIdentifier(_)
            | Extension::CertificatePolicies(_)
            | Extension::AuthorityInfoAccess(_)
            | Extension::CRLDistributionPoints(_) => {}
            Extension::ParseError { .. } => return None,
            _ => return Some(false),
        }
        Some(true)
    }

    /// Did `self` sign `other`, and might it?
    pub(super) fn signed(&self, other: &Certificate) -> bool {
        let authority = match self.basic {
            Some((authority, _)) => authority,
            // Version 1 and 2 have no way to say.
            None => !self.version_3,
        };
        authority
            && self.key_may_sign
            && signature::verifies(
                (&self.key_algorithm, &self.key_bits),
                &other.signature_algorithm,
                &other.signed,
                &other.signature,
            )
    }
}
