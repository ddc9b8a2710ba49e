//! What deltas give of an image that somebody else pulls: exact blobs, read while they are made.

use crate::support;

use std::fs;
use std::sync::Arc;

use oci_delta_fetch::digest::{Digest, digest_of};
use oci_delta_fetch::fetch::Place;
use oci_delta_fetch::offer::{HOLD_BACK, Offer, Reading, Seen, Workshop};
use oci_delta_fetch::outcome::Reason;
use oci_delta_fetch::registry::{Blobs, Guest, Guests};
use oci_delta_fetch::store::BlobCache;
use oci_delta_fetch::{Exact, FetchRequest, ProxyOptions, Reference, Session, StoreRef};
use serde_json::Value;
use support::images::{noise, tree};
use support::registry::skopeo;
use support::{Image, Layer, OciDir, Registry, Sandbox};

const REMOTE: [&str; 2] = ["--tls-verify=false", "--insecure-policy"];

/// Version `n`: a layer that stays, and one that changes a little and is large enough to be read along.
pub fn version(n: u8) -> Image {
    let mut file = noise(7, 2_500_000);
    for at in 0..usize::from(n) {
        file[at * 1000] ^= 1 + n;
    }
    let layer = |path, data: &[u8]| Layer::plain(tree(&[(path, data)]));
    Image::new(vec![layer("usr/lib/stays", &noise(1, 100_000)), layer("usr/lib/grows", &file)])
}

/// A registry with two versions, compressed by skopeo, and the delta between them; the first one is in the repository.
pub struct Case {
    pub sandbox: Sandbox,
    pub registry: Registry,
    /// Manifest of the second.
    pub manifest: String,
    /// What `create` says of the delta.
    pub delta: Value,
}

impl Case {
    pub fn new() -> Self {
        Self::with(Registry::start(), &[])
    }

    /// `login` are the options that a registry with a password takes.
    pub fn with(registry: Registry, login: &[&str]) -> Self {
        Self::of(version, registry, login)
    }

    /// The same with these versions.
    pub fn of(version: fn(u8) -> Image, registry: Registry, login: &[&str]) -> Self {
        let sandbox = Sandbox::new();
        let mut dir = OciDir::create(&sandbox.path("source"));
        for (name, n) in [("1", 1), ("2", 2)] {
            dir.image(name, &version(n));
            let options = ["--dest-compress-format=gzip"];
            registry.push_with(&options, &dir.reference(name), &format!("os:{name}"));
        }
        let (one, two) = (registry.reference("os:1"), registry.reference("os:2"));
        let more = [&REMOTE[..], login].concat();
        let delta = sandbox.json(&[&["create", &one, &two, &registry.reference("os")], &more[..]].concat());
        sandbox.json(&[&[&*one], &more[..]].concat());
        let mut inspect = vec!["inspect", "--raw", "--tls-verify=false"];
        inspect.extend(login);
        let manifest = skopeo(&[&inspect[..], &[&two]].concat(), sandbox.dir.path());
        Case { sandbox, registry, manifest, delta }
    }

    /// Digest and size of the layer that changed.
    pub fn changed(&self) -> (Digest, u64) {
        let manifest: Value = serde_json::from_str(&self.manifest).unwrap();
        let layer = &manifest["layers"][1];
        (layer["digest"].as_str().unwrap().parse().unwrap(), layer["size"].as_u64().unwrap())
    }

    /// All but the last byte of each patch in the registry is right.
    pub fn spoil_the_ends_of_patches(&self) {
        let blobs = self.registry.dir.path().join("data/docker/registry/v2/blobs/sha256");
        let mut spoiled = 0;
        for entry in fs::read_dir(blobs).unwrap().flat_map(|dir| fs::read_dir(dir.unwrap().path()).unwrap()) {
            let file = entry.unwrap().path().join("data");
            let mut bytes = fs::read(&file).unwrap();
            if bytes.starts_with(b"tardf") {
                *bytes.last_mut().unwrap() ^= 1;
                fs::write(file, bytes).unwrap();
                spoiled += 1;
            }
        }
        assert!(spoiled > 0);
    }

    async fn offer(&self, works: &Arc<Workshop>) -> Result<Arc<Offer>, Reason> {
        let options = ProxyOptions { tls_verify: false, ..ProxyOptions::default() };
        let reference: Reference = self.registry.reference("os:2").parse().unwrap();
        let Reference::Docker { name } = &reference else { panic!() };
        let repository = Guests::new(&options).repository(name, &Guest::anonymous()).unwrap();
        let seen = Seen {
            digest: digest_of(self.manifest.as_bytes()),
            manifest: self.manifest.clone().into_bytes(),
            place: Place::Remote(Arc::new(Blobs::direct(Arc::new(repository)))),
        };
        let session = Session::new(self.sandbox.dir.path());
        let request = FetchRequest {
            exact: Exact::Require,
            ..FetchRequest::new(reference, StoreRef::Layout(self.sandbox.repo()))
        };
        works.offer(&session, &request, Some(seen)).await.unwrap()
    }

    fn workshop(&self) -> Arc<Workshop> {
        Workshop::new(Arc::new(BlobCache::open(&self.sandbox.path("cache"), 1 << 30).unwrap()))
    }
}

async fn read(mut reading: Reading) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(piece) = reading.chunk().await.unwrap() {
        bytes.extend_from_slice(&piece);
    }
    bytes
}

#[tokio::test]
async fn a_changed_layer_is_made_once_for_all_who_read_it() {
    let case = Case::new();
    let works = case.workshop();
    let offer = case.offer(&works).await.unwrap();
    let (digest, size) = case.changed();
    assert!(offer.layers().map(|(layer, is_exact)| (layer.digest(), is_exact)).eq([(&digest, true)]));
    let readings = [0; 3].map(|_| offer.read(&digest).unwrap().unwrap());
    let counts = readings.each_ref().map(|reading| reading.counts().clone());
    for reading in readings {
        let bytes = read(reading).await;
        assert_eq!((digest_of(&bytes), bytes.len() as u64), (digest.clone(), size));
    }
    let patch = case.delta["layers"][1]["bytes"].as_u64().unwrap();
    assert_eq!(counts.map(|counts| counts.bytes()), [patch, 0, 0], "the patch came once, and counts once");
    // From the cache, also for another offer.
    drop(offer);
    let again = case.offer(&works).await.unwrap().read(&digest).unwrap().unwrap();
    assert_eq!(again.counts().bytes(), 0);
    assert_eq!(digest_of(&read(again).await), digest);

    let elsewhere = Case { sandbox: Sandbox::new(), ..case };
    assert_eq!(elsewhere.offer(&works).await.unwrap_err(), Reason::NoBase);
}

#[tokio::test]
async fn of_a_layer_that_cannot_be_made_nobody_gets_the_end() {
    let case = Case::new();
    case.spoil_the_ends_of_patches();
    let works = case.workshop();
    let offer = case.offer(&works).await.unwrap();
    let (digest, size) = case.changed();
    let mut reading = offer.read(&digest).unwrap().unwrap();
    let failure = loop {
        match reading.chunk().await {
            Ok(piece) => assert!(piece.is_some(), "it does not end well"),
            Err(e) => break e,
        }
    };
    assert!(reading.prefix().bytes() <= size - HOLD_BACK, "{failure}");
    assert!(offer.read(&digest).unwrap().is_none(), "nobody tries again");
    assert!(offer.failure(&digest).is_some());
    assert_eq!(works.cache().size(&digest), None);
}
