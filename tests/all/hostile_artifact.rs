//! Artifacts, layouts and surroundings that are not what they claim: one test an attack.

use crate::support;

use serde_json::{Value, json};
use support::images::{self, KEY, OciDir};
use support::{Delta, Image, Layer, Victim};

/// Spoils the delta's manifest and offers it.
fn spoilt(code: i32, text: &str, spoil: impl Fn(&mut Value)) {
    let mut victim = Victim::new();
    let mut delta = victim.delta();
    spoil(&mut delta.manifest);
    victim.refuses(&delta, code, text);
}

const EVIL: &str = "sha256:../../../../../../tmp/evil";

fn other_digest() -> String {
    format!("sha256:{}", "1".repeat(64))
}

#[test]
fn base_digest_with_slashes() {
    spoilt(4, "no digest", |m| m["annotations"][format!("{KEY}.source-config")] = EVIL.into());
}

#[test]
fn layer_digest_with_slashes() {
    spoilt(4, "", |m| m["layers"][2]["digest"] = EVIL.into());
}

#[test]
fn layer_name_with_slashes() {
    spoilt(4, "no digest", |m| m["layers"][2]["annotations"][format!("{KEY}.to")] = EVIL.into());
}

#[test]
fn embedded_manifest_digest_with_slashes() {
    spoilt(4, "", |m| m["layers"][0]["digest"] = EVIL.into());
}

#[test]
fn base_digest_of_another_algorithm() {
    let md5 = "sha512:".to_owned() + &"a".repeat(128);
    spoilt(3, "only sha256", |m| m["annotations"][format!("{KEY}.source-config")] = md5.clone().into());
}

#[test]
fn no_base_named() {
    spoilt(4, "names no base", |m| {
        m["annotations"].as_object_mut().unwrap().remove(&format!("{KEY}.source-config"));
    });
}

#[test]
fn another_base_named() {
    spoilt(3, "not in the repository", |m| {
        m["annotations"][format!("{KEY}.source-config")] = other_digest().into();
    });
}

#[test]
fn another_target_named() {
    spoilt(4, "contradicts itself", |m| m["annotations"][format!("{KEY}.target")] = other_digest().into());
}

#[test]
fn another_subject_named() {
    spoilt(4, "contradicts itself", |m| m["subject"]["digest"] = other_digest().into());
}

#[test]
fn two_embedded_manifests() {
    spoilt(4, "more than one image-manifest", |m| {
        let first = m["layers"][0].clone();
        m["layers"].as_array_mut().unwrap().push(first);
    });
}

#[test]
fn two_embedded_configs() {
    spoilt(4, "more than one image-config", |m| {
        let first = m["layers"][1].clone();
        m["layers"].as_array_mut().unwrap().push(first);
    });
}

#[test]
fn no_embedded_manifest() {
    spoilt(4, "no image-manifest", |m| drop(m["layers"].as_array_mut().unwrap().remove(0)));
}

#[test]
fn no_embedded_config() {
    spoilt(4, "no image-config", |m| drop(m["layers"].as_array_mut().unwrap().remove(1)));
}

#[test]
fn two_blobs_for_one_layer() {
    spoilt(4, "two blobs for layer", |m| {
        let mut twin = m["layers"][2].clone();
        twin["digest"] = other_digest().into();
        m["layers"].as_array_mut().unwrap().push(twin);
    });
}

#[test]
fn blob_for_a_foreign_layer() {
    spoilt(4, "not in the target image", |m| {
        m["layers"][2]["annotations"][format!("{KEY}.to")] = other_digest().into();
    });
}

#[test]
fn negative_size() {
    spoilt(4, "", |m| m["layers"][2]["size"] = json!(-1));
}

#[test]
fn enormous_embedded_manifest() {
    spoilt(4, "at most", |m| m["layers"][0]["size"] = json!(1u64 << 40));
}

#[test]
fn enormous_embedded_config() {
    spoilt(4, "at most", |m| m["layers"][1]["size"] = json!(i64::MAX));
}

#[test]
fn blob_longer_than_its_descriptor() {
    spoilt(4, "its descriptor states", |m| {
        let size = m["layers"][2]["size"].as_u64().unwrap();
        m["layers"][2]["size"] = json!(size - 1);
    });
}

#[test]
fn blob_shorter_than_its_descriptor() {
    spoilt(4, "its descriptor states", |m| {
        let size = m["layers"][2]["size"].as_u64().unwrap();
        m["layers"][2]["size"] = json!(size + 1);
    });
}

#[test]
fn missing_blob() {
    spoilt(3, "not there", |m| m["layers"][2]["digest"] = other_digest().into());
}

/// Overwrites a blob of the layout without changing its size.
fn damaged(which: impl Fn(&Delta) -> Vec<u8>) {
    let mut victim = Victim::new();
    let delta = victim.delta();
    victim.source.delta("attack", &delta);
    let mut blob = which(&delta);
    let path = victim.source.blob_path(oci_delta_fetch::digest::digest_of(&blob).as_ref());
    let middle = blob.len() / 2;
    blob[middle] ^= 1;
    std::fs::write(path, blob).unwrap();
    victim.refuses_as_it_lies(4, "digest mismatch", &[]);
}

#[test]
fn damaged_patch() {
    damaged(|d| d.blobs[2].clone());
}

#[test]
fn damaged_embedded_manifest() {
    damaged(|d| d.blobs[0].clone());
}

#[test]
fn damaged_embedded_config() {
    damaged(|d| d.blobs[1].clone());
}

#[test]
fn damaged_delta_manifest() {
    damaged(Delta::bytes);
}

/// A delta whose embedded image is spoilt.
fn spoilt_image(text: &str, spoil: impl Fn(&mut Image)) {
    let mut victim = Victim::new();
    let mut new = victim.new.clone();
    spoil(&mut new);
    let delta = Delta::new(&victim.old, &new);
    victim.refuses(&delta, 4, text);
}

#[test]
fn manifest_with_the_config_of_another_image() {
    spoilt_image("digest mismatch", |image| image.config.push(b' '));
}

#[test]
fn config_with_too_few_diff_ids() {
    spoilt_image("diff_ids", |image| {
        let mut config: Value = serde_json::from_slice(&image.config).unwrap();
        config["rootfs"]["diff_ids"] = json!([]);
        replace_config(image, &config);
    });
}

#[test]
fn config_with_a_diff_id_with_slashes() {
    spoilt_image("no digest", |image| {
        let mut config: Value = serde_json::from_slice(&image.config).unwrap();
        config["rootfs"]["diff_ids"] = json!([EVIL]);
        replace_config(image, &config);
    });
}

#[test]
fn config_that_is_garbage() {
    spoilt_image("not an image config", |image| {
        image.config = b"garbage".to_vec();
        relink_config(image);
    });
}

fn replace_config(image: &mut Image, config: &Value) {
    image.config = serde_json::to_vec(config).unwrap();
    relink_config(image);
}

fn relink_config(image: &mut Image) {
    let mut manifest: Value = serde_json::from_slice(&image.manifest).unwrap();
    manifest["config"] = images::descriptor(images::CONFIG, &image.config);
    image.manifest = serde_json::to_vec(&manifest).unwrap();
}

#[test]
fn index_that_states_an_enormous_manifest() {
    let victim = Victim::new();
    let index = json!({"schemaVersion": 2, "manifests": [
        {"mediaType": images::MANIFEST, "digest": other_digest(), "size": 5 << 20,
         "annotations": {"org.opencontainers.image.ref.name": "attack"}}]});
    std::fs::write(victim.source.root.join("index.json"), index.to_string()).unwrap();
    victim.refuses_as_it_lies(4, "at most", &[]);
}

#[test]
fn index_that_is_garbage() {
    let victim = Victim::new();
    std::fs::write(victim.source.root.join("index.json"), "[[[[").unwrap();
    victim.refuses_as_it_lies(4, "not an image index", &[]);
}

#[test]
fn index_that_is_huge() {
    let victim = Victim::new();
    std::fs::write(victim.source.root.join("index.json"), " ".repeat(17 << 20)).unwrap();
    victim.refuses_as_it_lies(4, "larger than", &[]);
}

#[test]
fn indexes_nested_too_deep() {
    let victim = Victim::new();
    let mut entry = json!({"mediaType": images::MANIFEST, "digest": other_digest(), "size": 2});
    for _ in 0..8 {
        let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry]});
        let bytes = index.to_string().into_bytes();
        victim.source.blob(&bytes);
        entry = images::descriptor("application/vnd.oci.image.index.v1+json", &bytes);
    }
    entry["annotations"] = json!({"org.opencontainers.image.ref.name": "attack"});
    let index = json!({"schemaVersion": 2, "manifests": [entry]});
    std::fs::write(victim.source.root.join("index.json"), index.to_string()).unwrap();
    victim.refuses_as_it_lies(4, "nested too deep", &[]);
}

#[test]
fn names_with_terminal_escapes_are_not_printed_raw() {
    let mut victim = Victim::new();
    let delta = victim.delta();
    victim.source.delta("\u{1b}]0;pwned\u{7}", &delta);
    let ended = victim.sandbox.run(&[&victim.source.reference("absent")]);
    assert_eq!(ended.code, 3);
    assert!(!ended.stderr.contains('\u{1b}'), "{ended:#?}");
}

#[test]
fn wrong_base_by_hand() {
    let mut victim = Victim::new();
    let other = Image::new(vec![Layer::plain(images::tar(&[("other", b"image")]))]);
    victim.source.image("other", &other);
    let delta = victim.delta();
    victim.source.delta("attack", &delta);
    let base = victim.source.reference("other");
    victim.refuses_as_it_lies(3, "has config", &["--base", &base]);
}

#[test]
fn damaged_base_layer() {
    let victim = Victim::new();
    let old = Image::new(vec![Layer::gzip(victim.old.layers[0].tar.clone())]);
    let mut victim = Victim::with(old, victim.new);
    let delta = victim.delta();
    victim.source.delta("attack", &delta);
    let blob = &victim.old.layers[0].blob;
    let path =
        victim.sandbox.repo().join("blobs/sha256").join(oci_delta_fetch::digest::digest_of(blob).digest());
    let mut spoilt = blob.clone();
    let middle = spoilt.len() / 2;
    spoilt[middle] ^= 1;
    std::fs::write(path, spoilt).unwrap();
    victim.refuses_as_it_lies(4, "base layer", &[]);
    assert_eq!(victim.sandbox.run(&["verify"]).code, 4);
}

#[test]
fn archive_that_is_cut_or_garbage() {
    let victim = Victim::new();
    for content in [&b"garbage"[..], &[0x1f, 0x8b, 8, 0, 1], &[0; 2000]] {
        std::fs::write(victim.sandbox.path("x.oci"), content).unwrap();
        let reference = format!("oci-archive:{}", victim.sandbox.path("x.oci").display());
        let ended = victim.sandbox.run(&[&reference]);
        assert!(matches!(ended.code, 3 | 4), "{ended:#?}");
    }
}

#[test]
fn not_a_repository() {
    let victim = Victim::new();
    std::fs::create_dir(victim.sandbox.path("home")).unwrap();
    std::fs::write(victim.sandbox.path("home/letter"), "dear").unwrap();
    let home = victim.sandbox.path("home");
    let ended = victim.sandbox.run(&[&victim.source.reference("old"), "--repo", home.to_str().unwrap()]);
    assert_eq!(ended.code, 3, "{ended:#?}");
    assert_eq!(std::fs::read_dir(home).unwrap().count(), 1, "nothing was put there");
}

#[test]
fn repository_that_cannot_be_written() {
    let victim = Victim::new();
    std::fs::write(victim.sandbox.path("file"), "").unwrap();
    let inside = victim.sandbox.path("file/repo");
    let ended = victim.sandbox.run(&[&victim.source.reference("old"), "--repo", inside.to_str().unwrap()]);
    assert_eq!(ended.code, 1, "{ended:#?}");
    let ended = victim.sandbox.run(&[&victim.source.reference("old"), "--repo", "/proc/repo"]);
    assert_eq!(ended.code, 1, "{ended:#?}");
}

#[test]
fn image_that_is_not_there() {
    let victim = Victim::new();
    for reference in
        ["oci:/nonexistent", "oci-archive:/nonexistent", "dir:/nonexistent", &victim.source.reference("x")]
    {
        let ended = victim.sandbox.run(&[reference]);
        assert!(matches!(ended.code, 1 | 3), "{reference}: {ended:#?}");
        assert!(ended.stderr.starts_with("error: "), "{ended:#?}");
    }
}

#[test]
fn artifact_of_another_sort() {
    let mut victim = Victim::new();
    let manifest = json!({
        "schemaVersion": 2, "artifactType": "application/vnd.example",
        "config": images::descriptor("application/vnd.oci.empty.v1+json", b"{}"), "layers": []});
    victim.source.manifest("attack", manifest.to_string().as_bytes());
    victim.refuses_as_it_lies(3, "neither an image nor", &[]);
}

#[test]
fn older_artifact_type_is_accepted() {
    let mut victim = Victim::new();
    let mut delta = victim.delta();
    delta.manifest["artifactType"] = "application/vnd.redhat.oci-delta.v1".into();
    victim.source.delta("old-type", &delta);
    victim.sandbox.ok(&[&victim.source.reference("old-type")]);
    let _ = OciDir::create(&victim.sandbox.path("unused"));
}
