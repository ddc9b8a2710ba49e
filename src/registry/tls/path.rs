//! The way from a server's certificate to one that is trusted, as Go's `Certificate.Verify` looks for it.

use std::fmt;
use std::sync::Arc;

use rustls::{CertificateError, OtherError};

use super::certificate::Certificate;
use super::names::Host;
use super::store::Store;

/// Signatures that are checked for one server: as many as Go checks.
const MAX_SIGNATURES: u32 = 100;

/// Why a certificate is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    NotYet,
    Expired,
    Strange,
    /// Some authority on the way may not speak for it.
    Constraint,
    TooLong,
    NoAuthority,
    /// The name is another.
    Name,
    Purpose,
    Unknown,
    TooMany,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::NotYet => "not valid yet",
            Refusal::Expired => "has expired",
            Refusal::Strange => "has a critical extension that is not known here",
            Refusal::Constraint => "its authority may not speak for this name",
            Refusal::TooLong => "its authority may not have authorities below it",
            Refusal::NoAuthority => "signed by one who is no authority",
            Refusal::Name => "for another name",
            Refusal::Purpose => "not for servers",
            Refusal::Unknown => "signed by an unknown authority",
            Refusal::TooMany => "too many signatures to check",
        })
    }
}

impl std::error::Error for Refusal {}

impl From<Refusal> for CertificateError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unknown => CertificateError::UnknownIssuer,
            other => CertificateError::Other(OtherError(Arc::new(other))),
        }
    }
}

/// Is `leaf` good for `host` at `now`, in seconds since 1970? `shown` came along with it.
pub(super) fn verify(
    leaf: &Certificate,
    shown: &[Certificate],
    store: &Store,
    host: &Host<'_>,
    now: i64,
) -> Result<(), CertificateError> {
    let mut search = Search { shown, store, now, signatures: 0, refusal: None };
    search.fits(leaf, &[], false)?;
    if !leaf.names.as_ref().is_some_and(|names| names.cover(host)) {
        return Err(Refusal::Name.into());
    }
    // One that is in the store itself needs nobody to sign it.
    if store.has(leaf) {
        return if leaf.for_servers { Ok(()) } else { Err(Refusal::Purpose.into()) };
    }
    match search.leads_on(&mut vec![leaf]) {
        true => Ok(()),
        false => Err(search.refusal.unwrap_or(Refusal::Unknown).into()),
    }
}

struct Search<'a> {
    shown: &'a [Certificate],
    store: &'a Store,
    now: i64,
    signatures: u32,
    /// The latest one of a way that led nowhere.
    refusal: Option<Refusal>,
}

impl<'a> Search<'a> {
    /// Is there a way from the last of `chain` into the store?
    fn leads_on(&mut self, chain: &mut Vec<&'a Certificate>) -> bool {
        let Some(child) = chain.last().copied() else { return false };
        let (store, shown) = (self.store, self.shown);
        let trusted = store.named(&child.issuer).map(|parent| (parent, true));
        let others = shown.iter().filter(|c| c.subject == child.issuer).map(|parent| (parent, false));
        for (parent, trusted) in trusted.chain(others) {
            if chain.iter().any(|c| c.subject == parent.subject && c.key == parent.key) {
                continue;
            }
            self.signatures += 1;
            if self.signatures > MAX_SIGNATURES {
                self.refusal = Some(Refusal::TooMany);
                return false;
            }
            if !parent.signed(child) {
                continue;
            }
            if let Err(refusal) = self.fits(parent, chain, !trusted) {
                self.refusal = Some(refusal);
                continue;
            }
            chain.push(parent);
            // All on the way must be for servers, the one in the store as well.
            let found = match trusted {
                true if chain.iter().all(|c| c.for_servers) => true,
                true => {
                    self.refusal = Some(Refusal::Purpose);
                    false
                }
                false => self.leads_on(chain),
            };
            chain.pop();
            if found {
                return true;
            }
        }
        false
    }

    /// What one certificate says of itself and of those below it.
    fn fits(
        &self,
        one: &Certificate,
        below: &[&Certificate],
        must_be_authority: bool,
    ) -> Result<(), Refusal> {
        if one.strange {
            return Err(Refusal::Strange);
        }
        if self.now < *one.valid.start() {
            return Err(Refusal::NotYet);
        }
        if self.now > *one.valid.end() {
            return Err(Refusal::Expired);
        }
        if let (Some(constraints), Some(leaf)) = (&one.constraints, below.first()) {
            // Nothing but names is bound, and a leaf without any is for nobody.
            if !leaf.names.as_ref().is_none_or(|names| constraints.allow(names)) {
                return Err(Refusal::Constraint);
            }
        }
        if must_be_authority && !one.basic.is_some_and(|(authority, _)| authority) {
            return Err(Refusal::NoAuthority);
        }
        let between = below.len().saturating_sub(1);
        if let Some((_, Some(most))) = one.basic
            && between as u64 > u64::from(most)
        {
            return Err(Refusal::TooLong);
        }
        Ok(())
    }
}
