//! Signatures: who must have signed an image, each link from the key to the bytes, and that they go along.

use crate::support;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oci_delta_fetch::digest::digest_of;
use serde_json::{Value, json};
use support::cli::{Ended, ended};
use support::images::{CONFIG, KEY, MANIFEST, TAR_DIFF, descriptor, noise, patch, tar};
use support::registry::skopeo;
use support::{Delta, Image, Layer, OciDir, Registry, Sandbox};

const REMOTE: [&str; 2] = ["--tls-verify=false", "--insecure-policy"];
const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const COSIGN: &str = "cosign container image signature";

/// The kinds of keys that are taken, as openssl makes them.
const KINDS: [(&str, &[&str]); 4] = [
    ("p256", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]),
    ("p384", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"]),
    ("rsa", &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]),
    ("ed25519", &["-algorithm", "ED25519"]),
];

/// An old and a new image, and keys.
struct Case {
    sandbox: Sandbox,
    source: OciDir,
    old: Image,
    new: Image,
}

impl Case {
    /// The old image is in the repository.
    fn new() -> Self {
        let image = |n: u8| {
            let layer = |path: &str, byte| Layer::gzip(tar(&[(path, &noise(byte, 4000))]));
            Image::new(vec![layer("usr/lib/stays", 1), layer("usr/lib/changes", u64::from(n))])
        };
        let (sandbox, old, new) = (Sandbox::new(), image(2), image(3));
        let mut source = OciDir::create(&sandbox.path("source"));
        source.image("old", &old).image("new", &new);
        sandbox.ok(&[&source.reference("old"), "--tag", "os:1"]);
        Case { sandbox, source, old, new }
    }

    fn path(&self, name: &str) -> String {
        self.sandbox.path(name).display().to_string()
    }

    /// Makes a key of our own; gives the file of its public half.
    fn key(&self, name: &str, options: &[&str]) -> String {
        let (private, public) = (self.path(&format!("{name}.key")), self.path(&format!("{name}.pub")));
        openssl(&[&["genpkey", "-out", &private], options].concat());
        openssl(&["pkey", "-in", &private, "-pubout", "-out", &public]);
        public
    }

    fn p256(&self, name: &str) -> String {
        self.key(name, KINDS[0].1)
    }

    /// A signature by the key of this name over a payload, in base64.
    fn sign(&self, key: &str, payload: &[u8]) -> String {
        let [message, out, private] =
            [self.path("message"), self.path("signature"), self.path(&format!("{key}.key"))];
        fs::write(&message, payload).unwrap();
        match key {
            "ed25519" => {
                openssl(&["pkeyutl", "-sign", "-rawin", "-inkey", &private, "-in", &message, "-out", &out]);
            }
            _ => openssl(&["dgst", "-sha256", "-sign", &private, "-out", &out, &message]),
        }
        STANDARD.encode(fs::read(&out).unwrap())
    }

    /// An artifact with a signature for the new image.
    fn signed_by(&self, key: &str, reference: &str) -> Signature {
        let payload = payload(self.new.manifest_digest().as_ref(), reference, COSIGN);
        Signature::new(&[(payload.clone(), self.sign(key, &payload))], None)
    }

    /// A delta of the two images that embeds these signatures.
    fn delta(&self, signatures: &[&Signature]) -> Delta {
        let mut delta = Delta::new(&self.old, &self.new);
        for signature in signatures {
            embed(&mut delta, signature);
        }
        delta
    }

    /// Offers a delta to somebody who trusts the key, and demands: exit code 4, this text, nothing changed.
    fn refuses(&mut self, delta: &Delta, key: &str, text: &str) {
        self.source.delta("attack", delta);
        let before = self.sandbox.snapshot();
        let ended =
            self.sandbox.run(&[&self.source.reference("attack"), "--verify-key", key, "--tag", "os:2"]);
        assert_eq!(ended.code, 4, "{text}: {ended:#?}");
        assert!(ended.stderr.contains(text), "no {text:?} in {ended:#?}");
        assert_eq!(self.sandbox.snapshot(), before, "the repository changed");
    }
}

fn openssl(args: &[&str]) {
    let output = Command::new("openssl").args(args).output().expect("these tests need openssl");
    assert!(output.status.success(), "openssl {args:?}: {output:?}");
}

fn payload(digest: &str, reference: &str, kind: &str) -> Vec<u8> {
    let critical = json!({"identity": {"docker-reference": reference}, "image": {"docker-manifest-digest": digest},
        "type": kind});
    json!({"critical": critical, "optional": null}).to_string().into_bytes()
}

/// A signature artifact as cosign has it.
struct Signature {
    manifest: Vec<u8>,
    /// Config and payloads.
    blobs: Vec<Vec<u8>>,
}

impl Signature {
    fn new(signed: &[(Vec<u8>, String)], subject: Option<&[u8]>) -> Self {
        let diff_ids: Vec<String> =
            signed.iter().map(|(payload, _)| digest_of(payload).to_string()).collect();
        let config = json!({"architecture": "", "os": "", "config": {}, "created": "0001-01-01T00:00:00Z",
            "rootfs": {"type": "layers", "diff_ids": diff_ids}});
        let config = config.to_string().into_bytes();
        let layer = |(payload, signature): &(Vec<u8>, String)| {
            let mut layer = descriptor(SIMPLE_SIGNING, payload);
            layer["annotations"] = json!({"dev.cosignproject.cosign/signature": signature});
            layer
        };
        let mut manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST,
            "config": descriptor(CONFIG, &config), "layers": signed.iter().map(layer).collect::<Vec<_>>()});
        if let Some(subject) = subject {
            manifest["artifactType"] = "application/vnd.dev.cosign.artifact.sig.v1+json".into();
            manifest["subject"] = descriptor(MANIFEST, subject);
        }
        let mut blobs = vec![config];
        blobs.extend(signed.iter().map(|(payload, _)| payload.clone()));
        Signature { manifest: manifest.to_string().into_bytes(), blobs }
    }

    /// Puts it into a layout under a name.
    fn put(&self, dir: &mut OciDir, name: &str) {
        self.blobs.iter().for_each(|blob| dir.blob(blob));
        dir.manifest(name, &self.manifest);
    }
}

/// As the reference tool embeds one.
fn embed(delta: &mut Delta, signature: &Signature) {
    let manifest: Value = serde_json::from_slice(&signature.manifest).unwrap();
    let mut parts = vec![(descriptor(MANIFEST, &signature.manifest), "cosign-signature")];
    let layers = manifest["layers"].as_array().unwrap();
    parts.extend([&manifest["config"]].into_iter().chain(layers).map(|part| {
        (
            json!({"mediaType": part["mediaType"], "digest": part["digest"], "size": part["size"]}),
            "cosign-signature-content",
        )
    }));
    for (mut part, content) in parts {
        part["annotations"] = json!({format!("{KEY}.content"): content});
        delta.manifest["layers"].as_array_mut().unwrap().push(part);
    }
    delta.blobs.push(signature.manifest.clone());
    delta.blobs.extend(signature.blobs.iter().cloned());
}

#[test]
fn every_kind_of_key_verifies_what_create_embeds() {
    let mut case = Case::new();
    let mut args =
        vec!["create".to_owned(), "os:1".into(), case.source.reference("new"), case.path("delta.oci")];
    for (kind, options) in KINDS {
        case.key(kind, options);
        case.signed_by(kind, &format!("r.example/{kind}")).put(&mut case.source, kind);
        args.extend(["--signature".to_owned(), case.source.reference(kind)]);
    }
    case.sandbox.ok(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let delta = format!("oci-archive:{}", case.path("delta.oci"));
    for (kind, _) in KINDS {
        let key = case.path(&format!("{kind}.pub"));
        let report = case.sandbox.json(&[&delta, "--dry-run", "--verify-key", &key]);
        assert_eq!(report["signatures"], json!([{"key": key, "reference": format!("r.example/{kind}")}]));
    }
    // One of several keys is enough; the text names it. What was verified stays beside the image.
    let (other, rsa) = (case.p256("other"), case.path("rsa.pub"));
    let told = case.sandbox.ok(&[&delta, "--verify-key", &other, "--verify-key", &rsa, "--tag", "os:2"]);
    assert!(told.stdout.contains(&format!("signed by {rsa} as r.example/rsa")), "{told:#?}");
    let list = case.sandbox.json(&["list"]);
    let kinds: Vec<&Value> = list.as_array().unwrap().iter().map(|row| &row["kind"]).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == "artifact").count(), 4, "{list:#}");
    case.sandbox.ok(&["verify"]);
    case.sandbox.ok(&["gc", "--untagged"]);
    let again = case.sandbox.json(&[&delta, "--verify-key", &rsa, "--tag", "os:2"]);
    assert_eq!(again["status"], "already-present");
}

/// An image that is here already is checked as any other; a key that did not sign it ends the run.
#[test]
fn what_nobody_signed_is_refused_wherever_it_is() {
    let mut case = Case::new();
    let key = case.p256("k");
    case.p256("other");
    let refused = "has no signature, and one by";
    case.refuses(&case.delta(&[]), &key, refused);
    let before = case.sandbox.snapshot();
    for reference in [case.source.reference("old"), case.source.reference("new")] {
        for more in [&[][..], &["--dry-run"], &["--delta-policy", "never"]] {
            let ended = case.sandbox.run(&[&[&*reference, "--verify-key", &key][..], more].concat());
            assert_eq!((ended.code, ended.stderr.contains(refused)), (4, true), "{ended:#?}");
        }
    }
    assert_eq!(case.sandbox.snapshot(), before);
    let by_other = case.signed_by("other", "r.example/os");
    case.refuses(&case.delta(&[&by_other]), &key, "it is by another key, or damaged");
    // Beside the image in a layout it is found as well.
    let good = case.signed_by("k", "r.example/os");
    good.put(&mut case.source, &format!("sha256-{}.sig", case.new.manifest_digest().digest()));
    let report = case.sandbox.json(&[&case.source.reference("new"), "--verify-key", &key]);
    assert_eq!(report["signatures"][0]["reference"], "r.example/os");
}

/// key → signature → payload → manifest → config → diff_ids → bytes: each link, broken alone, ends it.
#[test]
fn each_link_of_the_chain_holds() {
    let mut case = Case::new();
    let key = case.p256("k");
    let digest = case.new.manifest_digest().to_string();
    let good = payload(&digest, "r.example/os", COSIGN);
    let signature = case.sign("k", &good);
    let with = |case: &Case, payload: &[u8], signature: &str| {
        case.delta(&[&Signature::new(&[(payload.to_vec(), signature.to_owned())], None)])
    };

    // The key did not make this signature of this payload.
    let mut flipped = STANDARD.decode(&signature).unwrap();
    *flipped.last_mut().unwrap() ^= 1;
    let text = "it is by another key, or damaged";
    case.refuses(&with(&case, &good, &STANDARD.encode(&flipped)), &key, text);
    case.refuses(&with(&case, &payload(&digest, "r.example/ox", COSIGN), &signature), &key, text);
    case.refuses(&with(&case, &good, "no base64!"), &key, "it is not base64");
    case.refuses(&with(&case, &good, ""), &key, text);

    // The payload is signed, and about something else.
    for (payload, text) in [
        (payload(case.old.manifest_digest().as_ref(), "r.example/os", COSIGN), "it is for manifest"),
        (payload(&digest, "r.example/os", "atomic container signature"), "is of type"),
        (b"{}".to_vec(), "none of cosign's"),
        (b"\xff\xfe".to_vec(), "none of cosign's"),
    ] {
        let signature = case.sign("k", &payload);
        case.refuses(&with(&case, &payload, &signature), &key, text);
    }

    // The manifest that is embedded is another than the one that is signed, under whatever digest.
    let good = Signature::new(&[(good, signature)], None);
    let mut manifest: Value = serde_json::from_slice(&case.new.manifest).unwrap();
    manifest["annotations"] = json!({"note": "changed"});
    let changed = Image { manifest: manifest.to_string().into_bytes(), ..case.new.clone() };
    let mut delta = Delta::new(&case.old, &changed);
    embed(&mut delta, &good);
    case.refuses(&delta, &key, "it is for manifest");
    let mut delta = case.delta(&[&good]);
    let blob = delta.blobs.iter_mut().find(|blob| **blob == case.new.manifest).unwrap();
    let at = blob.len() - 20;
    blob[at] = b' ';
    let spoilt = blob.clone();
    case.source.delta("attack", &delta);
    fs::write(case.source.blob_path(&digest), &spoilt).unwrap();
    let ended = case.sandbox.run(&[&case.source.reference("attack"), "--verify-key", &key]);
    assert_eq!((ended.code, ended.stderr.contains("digest mismatch")), (4, true), "{ended:#?}");
    fs::write(case.source.blob_path(&digest), &case.new.manifest).unwrap();

    // Another config than the manifest names.
    let mut delta = case.delta(&[&good]);
    let config = Image::new(case.old.layers.clone()).config;
    let entry = delta.manifest["layers"].as_array_mut().unwrap();
    let entry =
        entry.iter_mut().find(|e| e["annotations"][format!("{KEY}.content")] == "image-config").unwrap();
    entry["digest"] = digest_of(&config).to_string().into();
    entry["size"] = config.len().into();
    delta.blobs.push(config);
    case.refuses(&delta, &key, "digest mismatch");

    // Another layer than the config names.
    let other = tar(&[("usr/lib/changes", b"not what was signed")]);
    let mut delta = Delta::with(&case.old, &case.new, |_| (TAR_DIFF.into(), patch(&case.old, &other)));
    embed(&mut delta, &good);
    case.source.delta("attack", &delta);
    let before = case.sandbox.snapshot();
    let attack = case.source.reference("attack");
    let ended = case.sandbox.run(&[&attack, "--verify-key", &key, "--delta-policy", "only"]);
    assert_eq!((ended.code, ended.stderr.contains("diff_id mismatch")), (4, true), "{ended:#?}");
    let names = |files: &[(PathBuf, u64)]| files.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>();
    assert_eq!(names(&case.sandbox.snapshot()), names(&before), "the repository changed");

    // And the whole of it is good.
    case.source.delta("good", &case.delta(&[&good]));
    case.sandbox.ok(&[&case.source.reference("good"), "--verify-key", &key, "--tag", "os:2"]);
}

#[test]
fn signatures_have_their_bounds() {
    let mut case = Case::new();
    let key = case.p256("k");
    let good = payload(case.new.manifest_digest().as_ref(), "r.example/os", COSIGN);
    let signature = case.sign("k", &good);
    let one = |payload: &[u8], signature: &str| (payload.to_vec(), signature.to_owned());
    let many = Signature::new(&vec![one(&good, &signature); 51], None);
    case.refuses(&case.delta(&[&many]), &key, "at most 50");
    let single = Signature::new(&[one(&good, &signature)], None);
    case.refuses(&case.delta(&vec![&single; 51]), &key, "at most 50");
    let large = [&good[..], &vec![b' '; 64 << 10]].concat();
    let large = Signature::new(&[one(&large, &case.sign("k", &large))], None);
    case.refuses(&case.delta(&[&large]), &key, "at most 65536");
    let long = Signature::new(&[one(&good, &"A".repeat(5000))], None);
    case.refuses(&case.delta(&[&long]), &key, "more than 4096 characters");
    // A bad one beside it does not spoil a good one.
    case.source.delta("good", &case.delta(&[&large, &long, &single]));
    case.sandbox.ok(&[&case.source.reference("good"), "--verify-key", &key, "--dry-run"]);
}

#[test]
fn keys_of_other_kinds_are_refused_by_what_they_are() {
    let case = Case::new();
    let delta = case.source.reference("new");
    let write = |name: &str, content: &[u8]| {
        fs::write(case.sandbox.path(name), content).unwrap();
        case.path(name)
    };
    case.p256("k");
    let public = fs::read(case.sandbox.path("k.pub")).unwrap();
    let curve = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"];
    let small = ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"];
    let certificate = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (file, text) in [
        (case.key("p521", &curve), "this kind of key is not taken"),
        (case.key("x25519", &["-algorithm", "X25519"]), "this kind of key is not taken"),
        (case.key("small", &small), "at least 2048 bits"),
        (case.path("k.key"), "this is a private key"),
        (write("cert", certificate), "no public key, but CERTIFICATE"),
        (write("two", &[&public[..], &public].concat()), "more than one key"),
        (write("empty", b""), "no key in PEM"),
        (write("noise", &noise(1, 2000)), "no key in PEM"),
        (write("broken", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"), "no public key"),
        (write("large", &[&public[..], &[b'\n'; 64 << 10]].concat()), "more than 65536 bytes"),
        (case.path(""), "not a file"),
    ] {
        let ended = case.sandbox.run(&[&delta, "--verify-key", &file]);
        assert_eq!(ended.code, 2, "{file}: {ended:#?}");
        assert!(ended.stderr.contains(text) && ended.stderr.contains(&file), "{text}: {ended:#?}");
    }
    assert_eq!(case.sandbox.run(&[&delta, "--verify-key", "/absent"]).code, 1);
}

/// What a policy says, to an image in a layout that is called `r.example/os:2`.
#[test]
fn a_policy_decides_by_place_key_and_name() {
    let mut case = Case::new();
    let key = case.p256("k");
    let data = STANDARD.encode(fs::read(&key).unwrap());
    case.p256("other");
    let signed = case.signed_by("k", "r.example/os");
    case.source.delta("delta", &case.delta(&[&signed]));
    let reference = case.source.reference("delta");
    let policy = |value: &Value| {
        fs::write(case.sandbox.path("policy.json"), value.to_string()).unwrap();
        let policy = case.path("policy.json");
        case.sandbox.run(&[&reference, "--policy", &policy, "--dry-run", "--tag", "r.example/os:2"])
    };
    let by = |identity: Value| json!({"type": "sigstoreSigned", "keyPath": key, "signedIdentity": identity});
    let repository = || by(json!({"type": "matchRepository"}));
    let anything = json!({"type": "insecureAcceptAnything"});
    let reject = json!({"type": "reject"});
    let dir = case.source.root.display().to_string();
    let parent = case.sandbox.dir.path().display().to_string();
    let default = |rule: &Value| json!({"default": [rule]});
    let at = |scope: &str, rule: &Value| json!({"default": [reject], "transports": {"oci": {scope: [rule]}}});
    let other = json!({"type": "sigstoreSigned", "keyPath": case.path("other.pub"),
        "signedIdentity": {"type": "matchRepository"}});
    for (value, code, text) in [
        (default(&repository()), 0, ""),
        (
            default(
                &json!({"type": "sigstoreSigned", "keyData": data, "signedIdentity": {"type": "matchRepository"}}),
            ),
            0,
            "",
        ),
        (default(&by(json!({"type": "exactRepository", "dockerRepository": "r.example/os"}))), 0, ""),
        (
            default(&by(json!({"type": "exactRepository", "dockerRepository": "r.example/ox"}))),
            4,
            "not for r.example/ox",
        ),
        // cosign signs no tag.
        (default(&json!({"type": "sigstoreSigned", "keyPath": key})), 4, "not for r.example/os:2"),
        (default(&by(json!({"type": "matchRepoDigestOrExact"}))), 4, "not for r.example/os:2"),
        (
            default(&by(
                json!({"type": "remapIdentity", "prefix": "r.example/os:2", "signedPrefix": "r.example/ox:2"}),
            )),
            4,
            "not for",
        ),
        (default(&other), 4, "it is by another key"),
        (default(&reject), 4, "rejects images from oci:"),
        (default(&anything), 0, ""),
        (json!({"default": [anything, repository(), other]}), 4, "it is by another key"),
        (at(&dir, &repository()), 0, ""),
        (at(&format!("{dir}:delta"), &repository()), 0, ""),
        (at(&parent, &repository()), 0, ""),
        (at("", &repository()), 0, ""),
        (at("/elsewhere", &repository()), 4, "rejects"),
        (json!({"default": [reject], "transports": {"docker": {"": [anything]}}}), 4, "rejects"),
        // Whatever is not understood is an error that names it, wherever it stands.
        (default(&json!({"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k"})), 2, "signedBy"),
        (
            default(&json!({"type": "sigstoreSigned", "keyPath": key, "rekorPublicKeyPath": "/r"})),
            2,
            "rekorPublicKeyPath",
        ),
        (default(&json!({"type": "sigstoreSigned", "keyPaths": [key]})), 2, "keyPaths"),
        (default(&json!({"type": "sigstoreSigned"})), 2, "keyPath or keyData"),
        (
            default(&json!({"type": "sigstoreSigned", "keyPath": key, "keyData": data})),
            2,
            "keyPath or keyData",
        ),
        (default(&by(json!({"type": "matchExact"}))), 2, "matchExact"),
        (default(&json!({"type": "reject", "because": 1})), 2, "because"),
        (json!({"default": []}), 2, "is empty"),
        (json!({"transports": {}}), 2, "default"),
        (json!({"default": [anything], "more": 1}), 2, "more"),
        (
            json!({"default": [anything], "transports": {"docker": {"h": [{"type": "signedBy"}]}}}),
            2,
            "signedBy",
        ),
        (json!([]), 2, "policy.json"),
    ] {
        let ended = policy(&value);
        assert_eq!(ended.code, code, "{value}: {ended:#?}");
        assert!(ended.stderr.contains(text), "{value}: no {text:?} in {ended:#?}");
    }
    let twice =
        format!(r#"{{"default":[{reject}],"transports":{{"oci":{{"":[{anything}],"":[{reject}]}}}}}}"#);
    fs::write(case.sandbox.path("policy.json"), twice).unwrap();
    let ended = case.sandbox.run(&[&reference, "--policy", &case.path("policy.json")]);
    assert_eq!((ended.code, ended.stderr.contains("twice")), (2, true), "{ended:#?}");
    let both = case.sandbox.run(&[&reference, "--policy", &case.path("policy.json"), "--verify-key", &key]);
    assert_eq!(both.code, 2);
}

/// A registry, with the new image as `os:2`.
struct Published {
    case: Case,
    registry: Registry,
    signatures: OciDir,
}

impl Published {
    fn new(registry: Registry) -> Self {
        let case = Case::new();
        registry.push(&case.source.reference("new"), "os:2");
        let signatures = OciDir::create(&case.sandbox.path("signatures"));
        Published { case, registry, signatures }
    }

    /// Puts a signature by the key into the registry: under the tag, or as a referrer.
    fn sign(&mut self, key: &str, how: How) {
        let digest = self.case.new.manifest_digest();
        let payload = payload(digest.as_ref(), "r.example/os", COSIGN);
        let signed = [(payload.clone(), self.case.sign(key, &payload))];
        let (subject, name) = match how {
            How::Tag => (None, tag_of(&self.case.new)),
            How::Referrer => (Some(&*self.case.new.manifest), format!("by-{key}")),
        };
        Signature::new(&signed, subject).put(&mut self.signatures, &name);
        self.registry.push(&self.signatures.reference(&name), &format!("os:{name}"));
    }

    fn run(&self, args: &[&str]) -> Ended {
        self.case.sandbox.run(&[args, &REMOTE].concat())
    }

    fn json(&self, args: &[&str]) -> Value {
        self.case.sandbox.json(&[args, &REMOTE].concat())
    }

    fn raw(&self, reference: &str) -> Value {
        let raw =
            skopeo(&["inspect", "--raw", "--tls-verify=false", reference], self.case.sandbox.dir.path());
        serde_json::from_str(&raw).unwrap()
    }
}

enum How {
    Tag,
    Referrer,
}

fn tag_of(image: &Image) -> String {
    format!("sha256-{}.sig", image.manifest_digest().digest())
}

#[test]
fn signatures_under_the_tag_verify_before_a_layer_is_read_and_go_along() {
    let mut published = Published::new(Registry::start());
    let key = published.case.p256("k");
    let second = published.case.p256("second");
    let os = published.registry.reference("os:2");
    // Not even a damaged layer is looked at.
    let layer = published.registry.blob_file(digest_of(&published.case.new.layers[1].blob).as_ref());
    let whole = fs::read(&layer).unwrap();
    fs::write(&layer, b"damaged").unwrap();
    let before = published.case.sandbox.snapshot();
    let unsigned = published.run(&[&os, "--verify-key", &key]);
    assert_eq!(unsigned.code, 4, "{unsigned:#?}");
    assert!(unsigned.stderr.contains("has no signature"), "{unsigned:#?}");
    assert_eq!(published.case.sandbox.snapshot(), before);
    fs::write(&layer, whole).unwrap();
    published.sign("k", How::Tag);
    let target = published.registry.reference("copy/os:2");
    let report = published.json(&[&os, "--verify-key", &key, "--to", &target]);
    assert_eq!(report["signatures"], json!([{"key": key, "reference": "r.example/os"}]));
    assert_eq!(report["carried_signatures"], 1);
    let copied = published.registry.reference(&format!("copy/os:{}", tag_of(&published.case.new)));
    let original = published.registry.reference(&format!("os:{}", tag_of(&published.case.new)));
    assert_eq!(published.raw(&copied), published.raw(&original));
    published.json(&[&published.registry.reference("copy/os:2"), "--verify-key", &key, "--dry-run"]);

    // Another one that is there stays; none is there twice.
    published.sign("second", How::Tag);
    let name = published.json(&[&os, "--verify-key", &second])["image"]["name"].as_str().unwrap().to_owned();
    let image = published.case.new.manifest_digest().to_string();
    for _ in 0..2 {
        let report = published.json(&["export", &image, "--to", &target]);
        assert_eq!(report["signatures"], 2, "{name}: {report:#}");
        assert_eq!(published.raw(&copied)["layers"].as_array().unwrap().len(), 2);
    }
    for key in [&key, &second] {
        published.json(&[&target, "--verify-key", key, "--dry-run"]);
    }
    // Without a key none is looked for, but for a copy.
    let plain = published.json(&[&os]);
    assert_eq!((&plain["signatures"], &plain["carried_signatures"]), (&json!([]), &Value::Null));
}

#[test]
fn signatures_among_the_referrers_verify_and_go_along_as_such() {
    let mut published = Published::new(Registry::with_referrers());
    let key = published.case.p256("k");
    published.sign("k", How::Referrer);
    let os = published.registry.reference("os:2");
    let target = published.registry.reference("copy:2");
    let report = published.json(&[&os, "--verify-key", &key, "--to", &target]);
    assert_eq!(report["carried_signatures"], 1, "{report:#}");
    published.json(&[&target, "--verify-key", &key, "--dry-run"]);
    let tag = published.registry.reference(&format!("copy:{}", tag_of(&published.case.new)));
    assert_eq!(published.run(&[&tag, "--dry-run"]).code, 3, "no tag where the registry lists referrers");

    // Where it does not, they are found under the tag.
    let plain = Registry::start();
    let image = published.case.new.manifest_digest().to_string();
    let report = published.json(&["export", &image, "--to", &plain.reference("os:2")]);
    assert_eq!(report["signatures"], 1);
    published.json(&[&plain.reference("os:2"), "--verify-key", &key, "--dry-run"]);
}

/// A pushed delta takes along what it embeds; whoever finds it by the image verifies by that.
#[test]
fn a_delta_that_is_found_verifies_the_image() {
    let published = Published::new(Registry::start());
    let case = &published.case;
    let key = case.p256("k");
    let signed = case.signed_by("k", "r.example/os");
    let mut dir = OciDir::create(&case.sandbox.path("deltas"));
    dir.delta("d", &case.delta(&[&signed]));
    let pushed = published.json(&["push", &dir.reference("d"), &published.registry.reference("os")]);
    assert_eq!(pushed["signatures"], 1);
    let os = published.registry.reference("os:2");
    let report = published.json(&[&os, "--verify-key", &key, "--delta-policy", "only"]);
    assert_eq!(report["deltas"].as_array().unwrap().len(), 1);
    assert_eq!(report["signatures"][0]["key"], key);
}

#[test]
fn the_reference_tools_name_verifies_as_well() {
    let mut case = Case::new();
    let (key, wrong) = (case.p256("k"), case.p256("wrong"));
    case.signed_by("k", "example.com/test:latest").put(&mut case.source, "sig");
    let (signed, unsigned, out) = (case.path("signed.oci"), case.path("unsigned.oci"), case.path("out.oci"));
    let root = case.path("root");
    for layer in &case.old.layers {
        tar::Archive::new(&layer.tar[..]).unpack(&root).unwrap();
    }
    let oci_delta = |args: &[&str]| ended(case.sandbox.oci_delta().args(args).output().unwrap());
    let (old, new) = (case.source.reference("old"), case.source.reference("new"));
    for (delta, more) in [(&signed, vec!["--signature", "SIG"]), (&unsigned, Vec::new())] {
        let sig = case.source.reference("sig");
        let more: Vec<&str> = more.iter().map(|word| if *word == "SIG" { &*sig } else { word }).collect();
        assert_eq!(oci_delta(&[&["create"][..], &more, &[&old, &new, delta]].concat()).code, 0);
    }
    for (delta, key, code) in [(&signed, &key, 0), (&signed, &wrong, 1), (&unsigned, &key, 1)] {
        let ended = oci_delta(&["apply", "--directory", &root, "--verify-key", key, delta, &out]);
        assert_eq!(ended.code, code, "{ended:#?}");
        assert_eq!(PathBuf::from(&out).exists(), code == 0, "a refused delta leaves no output");
        let _ = fs::remove_file(&out);
    }
}
