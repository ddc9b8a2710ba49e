//! The certificates that are trusted: those of the system, where Go finds them, and those for one registry.

use std::collections::HashMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::certificate::Certificate;

/// Largest file of certificates, in bytes; the one with all of the Web's has a quarter of a MiB.
const MAX_FILE: u64 = 16 << 20;
/// Certificates in the store; the Web has some 150.
const MAX_CERTIFICATES: usize = 10_000;

/// The first one that is there counts (`crypto/x509/root_linux.go`).
const FILES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// All of them count.
const DIRECTORIES: &[&str] = &["/etc/ssl/certs", "/etc/pki/tls/certs"];

/// Certificates by the name of their owner.
#[derive(Debug, Default)]
pub(super) struct Store {
    by_subject: HashMap<Vec<u8>, Vec<Certificate>>,
    count: usize,
}

impl Store {
    /// Those of the system and `more` (PEM).
    pub(super) fn of_this_machine(more: &[Vec<u8>]) -> Self {
        let mut store = Store::default();
        for path in places(|name| env::var_os(name)) {
            if let Some(pem) = read(&path) {
                store.add(&pem);
            }
        }
        more.iter().for_each(|pem| store.add(pem));
        store
    }

    /// What is no certificate is passed over, as Go does: one broken one must not spoil the rest.
    fn add(&mut self, pem: &[u8]) {
        for der in CertificateDer::pem_slice_iter(pem).filter_map(Result::ok) {
            if self.count == MAX_CERTIFICATES {
                return;
            }
            let Some(certificate) = Certificate::parse(&der) else { continue };
            if !self.has(&certificate) {
                self.count += 1;
                self.by_subject.entry(certificate.subject.clone()).or_default().push(certificate);
            }
        }
    }

    /// Is exactly this one in it?
    pub(super) fn has(&self, certificate: &Certificate) -> bool {
        self.named(&certificate.subject).any(|c| c.der == certificate.der)
    }

    /// Those of one owner, named as DER.
    pub(super) fn named(&self, subject: &[u8]) -> impl Iterator<Item = &Certificate> {
        self.by_subject.get(subject).into_iter().flatten()
    }
}

/// The files to read. `SSL_CERT_FILE` stands for the first list, `SSL_CERT_DIR` for the second one.
fn places(variable: impl Fn(&str) -> Option<std::ffi::OsString>) -> Vec<PathBuf> {
    let named = |name: &str| variable(name).filter(|value| !value.is_empty());
    let files = match named("SSL_CERT_FILE") {
        Some(file) => vec![PathBuf::from(file)],
        None => FILES.iter().map(PathBuf::from).collect(),
    };
    let directories = match named("SSL_CERT_DIR") {
        Some(list) => env::split_paths(&list).collect(),
        None => DIRECTORIES.iter().map(PathBuf::from).collect::<Vec<_>>(),
    };
    let first = files.into_iter().find(|file| fs::File::open(file).is_ok());
    let entries = directories.iter().flat_map(|dir| fs::read_dir(dir).into_iter().flatten().flatten());
    first.into_iter().chain(entries.map(|entry| entry.path())).collect()
}

fn read(path: &Path) -> Option<Vec<u8>> {
    // A pipe or device would keep us waiting.
    let meta = fs::metadata(path).ok()?;
    if !meta.is_file() || meta.len() > MAX_FILE {
        return None;
    }
    fs::read(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_names_other_places() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = dir.path().join(name);
            fs::write(&path, "").unwrap();
            path
        };
        fs::create_dir_all(dir.path().join("a")).unwrap();
        let (one, other) = (file("one.pem"), file("a/other"));
        let set = |name: &str| match name {
            "SSL_CERT_FILE" => Some(one.clone().into_os_string()),
            _ => Some(env::join_paths([dir.path().join("a"), dir.path().join("none")]).unwrap()),
        };
        assert_eq!(places(set), [one.clone(), other]);
        // Empty is not set.
        assert!(places(|_| Some("".into())).iter().all(|path| path.starts_with("/etc")));
    }
}
