//! Across an air gap: bundles are made on one side, and what they bring has its publisher's digest on the other.

use crate::support;

use std::fs;
use std::path::{Path, PathBuf};

use oci_delta_fetch::digest::digest_of;
use serde_json::{Value, json};
use support::gap::{Gap, REMOTE, files_below};
use support::images::{INDEX, MANIFEST};
use support::registry::{put_manifest, skopeo};
use support::{Registry, Sandbox};

#[test]
fn an_update_crosses_the_gap_as_a_delta_and_keeps_its_digest() {
    let mut gap = Gap::new();
    let (_, two) = (gap.release(1), gap.release(2));
    gap.carry(1);
    let (have, medium) = (gap.have(), gap.medium("medium"));
    let planned = gap.bundle(&[&gap.os(2)], &["--have", &have, "--to", &medium, "--dry-run"]);
    assert_eq!(planned["status"], "planned");
    assert!(!Path::new(&medium).exists());
    let exact = gap.bundle(&[&gap.os(2)], &["--have", &have, "--create", "--to", &medium, "--dry-run"]);
    assert!(!Path::new(&medium).exists());
    let bundled = gap.bundle(&[&gap.os(2)], &["--have", &have, "--create", "--to", &medium]);
    for bytes in ["bytes", "written_bytes", "downloaded_bytes"] {
        assert_eq!(exact[bytes], bundled[bytes], "{bytes}: {exact:#} {bundled:#}");
    }
    let on_medium: usize = files_below(Path::new(&medium)).iter().map(|(_, bytes)| bytes.len()).sum();
    assert_eq!(exact["written_bytes"], on_medium);
    let image = &bundled["images"][0];
    assert_eq!((image["deltas"].as_u64(), bundled["part_count"].as_u64()), (Some(1), Some(1)), "{bundled:#}");
    let (bytes, whole) = (image["bytes"].as_u64().unwrap(), image["whole_bytes"].as_u64().unwrap());
    assert!(bytes * 5 < whole, "{bundled:#}");
    // Without a delta that is published, and none to be made, the layer goes whole.
    assert_eq!(planned["images"][0]["whole_bytes"], whole, "{planned:#}");
    assert!(planned["bytes"].as_u64().unwrap() > whole, "{planned:#}");
    // Any tool reads it by name.
    let name = format!("{}/org/os:2", gap.outer.address);
    let inside = skopeo(&["inspect", "--raw", &format!("oci:{medium}:{name}")], gap.sandbox.dir.path());
    assert_eq!(digest_of(inside.as_bytes()).to_string(), two);
    gap.sandbox.ok(&["verify", &medium]);

    let before = files_below(Path::new(&medium));
    let dry = ["--dry-run"];
    let planned = gap.sandbox.json(&[&["unbundle", &medium, &gap.target()], &REMOTE[..], &dry].concat());
    assert_eq!(planned["images"][0]["status"], "planned");
    let done = gap.unbundle(&medium);
    assert_eq!(done[0]["status"], "brought", "{done:#?}");
    for bytes in ["sent_bytes", "read_bytes"] {
        assert!(done[0][bytes].as_u64().unwrap() > 0, "{done:#?}");
        assert_eq!(planned["images"][0][bytes], done[0][bytes], "{bytes}");
    }
    assert_eq!(done[0]["rebuilt"], 1);
    assert_eq!(gap.digest_inside("org/os:2"), two);
    let copy = format!("dir:{}", gap.medium("copy"));
    let from = gap.inner.reference("org/os:2");
    skopeo(&["copy", "--src-tls-verify=false", &from, &copy], gap.sandbox.dir.path());
    let rewritten = gap.sandbox.run(&["unbundle", &medium, &gap.target(), "--rewrite"]);
    assert_eq!(rewritten.code, 2, "{rewritten:#?}");
    // A second run changes nothing, and nothing on the medium was changed.
    assert_eq!(gap.unbundle(&medium)[0]["status"], "present");
    assert_eq!(files_below(Path::new(&medium)), before);
    let again = gap.bundle(&[&gap.os(2)], &["--have", &have, "--create", "--to", &medium]);
    assert_eq!(again["downloaded_bytes"], 0);
    assert_eq!(files_below(Path::new(&medium)), before);
    // What the inside has now needs no bytes of layers.
    let nothing =
        gap.bundle(&[&gap.os(2)], &["--have", &gap.have(), "--to", &gap.medium("other"), "--dry-run"]);
    assert_eq!(nothing["images"][0]["whole_bytes"], 0, "{nothing:#}");
}

#[test]
fn a_bundle_that_was_lost_costs_the_next_one_a_clear_word() {
    let mut gap = Gap::new();
    let (_, _, three) = (gap.release(1), gap.release(2), gap.release(3));
    gap.carry(1);
    let (lost, next) = (gap.medium("lost"), gap.medium("next.tar"));
    // The outside believes that 2 arrived.
    gap.bundle(&[&gap.os(2)], &["--have", &gap.have(), "--create", "--to", &lost]);
    gap.bundle(&[&gap.os(3)], &["--since", &gap.os(2), "--create", "--to", &next]);
    let (code, report, said) = gap.fails(&next);
    assert_eq!(code, 3, "{report:#} {said}");
    assert_eq!(report["images"][0]["status"], "failed");
    assert!(report["images"][0]["error"].as_str().unwrap().contains("org/os"), "{report:#}");
    let archive = fs::metadata(&next).unwrap().len();
    let parts = gap.bundle(
        &[&gap.os(3)],
        &["--since", &gap.os(2), "--create", "--to", &gap.medium("x.tar"), "--dry-run"],
    );
    assert_eq!(parts["written_bytes"], archive);
    // Found after all, in any order.
    gap.unbundle(&lost);
    assert_eq!(gap.unbundle(&next)[0]["status"], "brought");
    assert_eq!(gap.digest_inside("org/os:3"), three);
}

#[test]
fn parts_come_in_any_order_and_one_that_is_missing_is_named() {
    let mut gap = Gap::new();
    let one = gap.release(1);
    let medium = gap.medium("parts");
    let bundled = gap.bundle(&[&gap.os(1)], &["--to", &medium, "--max-size", "100K"]);
    let parts = bundled["parts"].as_array().unwrap();
    assert!(parts.len() > 2, "{bundled:#}");
    for part in parts {
        let size: usize =
            files_below(Path::new(part.as_str().unwrap())).iter().map(|(_, bytes)| bytes.len()).sum();
        assert!(size <= 100 << 10, "{part}: {size}");
    }
    let (last, away) = (parts.last().unwrap().as_str().unwrap(), gap.sandbox.path("away"));
    fs::rename(last, &away).unwrap();
    let (code, report, _) = gap.fails(&medium);
    assert_eq!(code, 3);
    let named = format!("part {} of {}", parts.len(), parts.len());
    assert!(report["images"][0]["error"].as_str().unwrap().contains(&named), "{report:#}");
    assert_eq!(gap.sandbox.run(&["verify", &medium]).code, 4);
    fs::rename(&away, last).unwrap();
    gap.sandbox.ok(&["verify", &medium]);
    assert_eq!(gap.unbundle(&medium)[0]["status"], "brought");
    assert_eq!(gap.digest_inside("org/os:1"), one);
}

#[test]
fn what_points_to_an_image_comes_along() {
    for inner in [Registry::start(), Registry::with_referrers()] {
        let mut gap = Gap::to(inner);
        let one = gap.release(1);
        // An SBOM by the fallback tag of the referrers, an index of two likewise, and a signature by cosign's tag; their
        // blobs are in the repository.
        let image: Value = serde_json::from_str(&skopeo(
            &["inspect", "--raw", "--tls-verify=false", &gap.os(1)],
            gap.sandbox.dir.path(),
        ))
        .unwrap();
        let blob = image["layers"][0].clone();
        let sbom = json!({"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "application/spdx+json",
            "config": image["config"], "layers": [blob], "subject": {"mediaType": MANIFEST, "digest": one, "size": 1}})
        .to_string();
        let sbom_digest = digest_of(sbom.as_bytes()).to_string();
        let put = |tag: &str, kind: &str, bytes: &str| {
            let status = put_manifest(&gap.outer.address, "org/os", tag, kind, bytes.as_bytes());
            assert!(status.contains("201"), "{status}");
        };
        put(&sbom_digest, MANIFEST, &sbom);
        let listed = ["a", "b"].map(|of| {
            let report =
                json!({"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "application/x-report",
                "config": image["config"], "layers": [blob], "annotations": {"of": of}})
                .to_string();
            let digest = digest_of(report.as_bytes()).to_string();
            put(&digest, MANIFEST, &report);
            json!({"mediaType": MANIFEST, "digest": digest, "size": report.len()})
        });
        let reports = json!({"schemaVersion": 2, "mediaType": INDEX, "artifactType": "application/x-reports",
            "manifests": listed, "annotations": {"made": "today"},
            "subject": {"mediaType": MANIFEST, "digest": one, "size": 1}})
        .to_string();
        let reports_digest = digest_of(reports.as_bytes()).to_string();
        put(&reports_digest, INDEX, &reports);
        let list = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [{"mediaType": MANIFEST,
            "digest": sbom_digest, "size": sbom.len(), "artifactType": "application/spdx+json"},
            {"mediaType": INDEX, "digest": reports_digest, "size": reports.len()}]});
        put(&one.replacen(':', "-", 1), INDEX, &list.to_string());
        // A list may say anything: this one, that the SBOM points to itself.
        put(&sbom_digest.replacen(':', "-", 1), INDEX, &list.to_string());
        let signature =
            json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": image["config"], "layers": [blob]})
                .to_string();
        put(&format!("{}.sig", one.replacen(':', "-", 1)), MANIFEST, &signature);

        let medium = gap.medium("medium");
        let bundled = gap.bundle(&[&gap.os(1)], &["--to", &medium]);
        assert_eq!(bundled["images"][0]["referrers"], 3, "{bundled:#}");
        gap.sandbox.ok(&["verify", &medium]);
        let done = gap.unbundle(&medium);
        assert_eq!(
            (done[0]["status"].as_str(), done[0]["referrers"].as_u64()),
            (Some("brought"), Some(3)),
            "{done:#?}"
        );
        let of_reports = listed.iter().map(|report| report["digest"].as_str().unwrap());
        for digest in of_reports.chain([&*sbom_digest, &*reports_digest]) {
            assert_eq!(gap.digest_inside(&format!("org/os@{digest}")), digest);
        }
        let tag = format!("org/os:{}.sig", one.replacen(':', "-", 1));
        assert_eq!(gap.digest_inside(&tag), digest_of(signature.as_bytes()).to_string());
        assert_eq!(gap.unbundle(&medium)[0]["status"], "present");
        let alone = gap.bundle(&[&gap.os(1)], &["--to", &gap.medium("alone"), "--without-referrers"]);
        assert_eq!(alone["images"][0]["referrers"], 0);
    }
}

#[test]
fn a_repository_on_this_machine_takes_bundles_as_well() {
    let mut gap = Gap::new();
    let (_, two) = (gap.release(1), gap.release(2));
    gap.sandbox.ok(&[&[gap.os(1).as_str(), "--tag", "one"], &REMOTE[..]].concat());
    let list = gap.sandbox.ok(&["inventory"]);
    let have = gap.medium("have.json");
    fs::write(&have, list.stdout).unwrap();
    let medium = gap.medium("medium");
    let bundled = gap.bundle(&[&gap.os(2)], &["--since", &gap.os(1), "--create", "--to", &medium]);
    assert_eq!(bundled["images"][0]["deltas"], 1, "{bundled:#}");
    let repo = gap.sandbox.repo_reference();
    let map = format!("{}/org=mine", gap.outer.address);
    let done = gap.sandbox.json(&["unbundle", &medium, &repo, "--map", &map]);
    assert_eq!(done["images"][0]["status"], "brought", "{done:#}");
    assert_eq!(done["images"][0]["to"], "mine/os:2");
    let listed = gap.sandbox.json(&["list"]).to_string();
    assert!(listed.contains(&two) && listed.contains("mine/os:2"), "{listed}");
    assert_eq!(
        gap.sandbox.json(&["unbundle", &medium, &repo, "--map", &map])["images"][0]["status"],
        "present"
    );
}

#[test]
fn the_scripts_of_a_mirror_pair_carry_an_update() {
    let mut gap = Gap::new();
    let (one, two) = (gap.release(1), gap.release(2));
    let medium = gap.medium("medium");
    fs::create_dir(&medium).unwrap();
    let images = gap.medium("images.txt");
    let contrib = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/mirror");
    let script = |name: &str, sandbox: &Sandbox, inner: &str| {
        let command = sandbox.command();
        let program = Path::new(command.get_program()).parent().unwrap();
        let path = format!("{}:{}:{}", program.display(), contrib.display(), std::env::var("PATH").unwrap());
        let mut script = std::process::Command::new("sh");
        script.args(["-ec", name]).env("PATH", path).current_dir(sandbox.dir.path());
        for (key, value) in command.get_envs().filter_map(|(key, value)| Some((key, value?))) {
            script.env(key, value);
        }
        script.envs([("MEDIUM", medium.as_str()), ("IMAGES", &images), ("INNER", inner), ("MAX_SIZE", "1G")]);
        let output = script.env("OPTIONS", REMOTE.join(" ")).output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let file = |name: &str| fs::read_to_string(contrib.join(name)).unwrap();
    // What the units start, and what the jobs run.
    let unit = |name: &str| {
        let text = file(name);
        let start =
            text.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/libexec/oci-delta-fetch/"));
        start.unwrap().to_owned()
    };
    let job = |name: &str, head: &str, indent: &str| {
        let text = file(name);
        let lines = text.split_once(head).unwrap().1.lines();
        let script: Vec<&str> = lines.map_while(|line| line.strip_prefix(indent)).collect();
        script.join("\n")
    };
    let units = [unit("oci-delta-fetch-outside.service"), unit("oci-delta-fetch-inside.service")];
    let jobs = [
        job("gitlab-ci.yml", "\n  script:\n", "    - "),
        job("tekton.yaml", "\n      script: |\n", "        "),
    ];
    for (n, digest, [outside, inside]) in [(1, one, units), (2, two, jobs)] {
        fs::write(&images, format!("# this month\n{}\n", gap.os(n))).unwrap();
        script(&outside, &gap.sandbox, &gap.target());
        script(&inside, &gap.sandbox, &gap.target());
        assert_eq!(gap.digest_inside(&format!("org/os:{n}")), digest);
        let have = fs::read_to_string(Path::new(&medium).join("inner.json")).unwrap();
        assert!(have.contains(&digest), "{have}");
    }
}

#[test]
fn all_platforms_of_an_index_come_along_under_its_digest() {
    let mut gap = Gap::new();
    let (one, two) = (gap.release(1), gap.release(2));
    let raw = |digest: &str| {
        let reference = gap.outer.reference(&format!("org/os@{digest}"));
        skopeo(&["inspect", "--raw", "--tls-verify=false", &reference], gap.sandbox.dir.path())
    };
    let entry = |digest: &str, architecture: &str| {
        json!({"mediaType": MANIFEST, "digest": digest, "size": raw(digest).len(),
            "platform": {"os": "linux", "architecture": architecture}})
    };
    // What BuildKit adds: an attestation in the form of an image for no platform.
    let image: Value = serde_json::from_str(&raw(&one)).unwrap();
    let mut statement = image["layers"][0].clone();
    statement["mediaType"] = "application/vnd.in-toto+json".into();
    let attestation =
        json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": image["config"], "layers": [statement]})
            .to_string();
    let attested = digest_of(attestation.as_bytes()).to_string();
    let status = put_manifest(&gap.outer.address, "org/os", &attested, MANIFEST, attestation.as_bytes());
    assert!(status.contains("201"), "{status}");
    let beside = json!({"mediaType": MANIFEST, "digest": attested, "size": attestation.len(),
        "platform": {"os": "unknown", "architecture": "unknown"},
        "annotations": {"vnd.docker.reference.digest": one, "vnd.docker.reference.type": "attestation-manifest"}});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX,
        "manifests": [entry(&one, "amd64"), entry(&two, "arm64"), beside]})
    .to_string();
    let status = put_manifest(&gap.outer.address, "org/os", "multi", INDEX, index.as_bytes());
    assert!(status.contains("201"), "{status}");
    let multi = gap.outer.reference("org/os:multi");
    let medium = gap.medium("medium");
    gap.bundle(&[&multi], &["--to", &medium]);
    assert_eq!(gap.unbundle(&medium)[0]["status"], "brought");
    assert_eq!(gap.digest_inside("org/os:multi"), digest_of(index.as_bytes()).to_string());
    for digest in [&two, &attested] {
        assert_eq!(&gap.digest_inside(&format!("org/os@{digest}")), digest);
    }
    let single = gap.medium("single");
    gap.bundle(&[&multi], &["--to", &single, "--platform", "linux/arm64"]);
    let table: Value =
        serde_json::from_slice(&fs::read(Path::new(&single).join("bundle.json")).unwrap()).unwrap();
    assert_eq!(table["images"][0]["digest"], two);
}

/// A bundle of one image whose table is changed; its digest is made right, as whoever wants to deceive would.
fn tampered(medium: &Path, change: impl FnOnce(&mut Value)) {
    let path = medium.join("bundle.json");
    let mut table: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut table);
    let (part, mut plain) = (table["part"].clone(), table.clone());
    plain["id"] = "".into();
    plain["part"] = 0.into();
    let pretty = |value: &Value| serde_json::to_string_pretty(value).unwrap() + "\n";
    table["id"] = digest_of(pretty(&plain).as_bytes()).to_string().into();
    table["part"] = part;
    fs::write(path, pretty(&table)).unwrap();
}

#[test]
fn hostile_bundles_leave_nothing_behind() {
    let mut gap = Gap::new();
    let (one, _) = (gap.release(1), gap.release(2));
    let attack = |name: &str, change: &dyn Fn(&Path), code: i32, named: &str| {
        let medium = gap.medium(name);
        gap.bundle(&[&gap.os(1)], &["--to", &medium]);
        change(Path::new(&medium));
        let (ended, report, said) = gap.fails(&medium);
        assert_eq!(ended, code, "{name}: {report:#} {said}");
        assert!(format!("{report}{said}").contains(named), "{name}: {report:#} {said}");
        let list = gap.sandbox.ok(&[&["inventory", &gap.target()], &REMOTE[..]].concat()).stdout;
        assert!(!list.contains(&one), "{name}: {list}");
    };
    let blobs = |medium: &Path| {
        let mut files = files_below(&medium.join("blobs"));
        files.sort_by_key(|(_, bytes)| std::cmp::Reverse(bytes.len()));
        files
    };
    attack(
        "a-layer-of-other-bytes",
        &|medium| {
            let (path, mut bytes) = blobs(medium).remove(0);
            bytes[100] ^= 1;
            fs::write(path, bytes).unwrap();
        },
        4,
        "",
    );
    attack(
        "a-layer-that-is-gone",
        &|medium| fs::remove_file(&blobs(medium)[0].0).unwrap(),
        3,
        "is not there",
    );
    attack(
        "a-manifest-for-another-image",
        &|medium| {
            let hex = |digest: &str| medium.join("blobs/sha256").join(digest.trim_start_matches("sha256:"));
            fs::write(hex(&one), b"{}").unwrap();
        },
        4,
        "",
    );
    attack(
        "a-name-that-climbs",
        &|medium| {
            tampered(medium, |table| table["images"][0]["name"] = "h/../../etc:1".into());
        },
        2,
        "",
    );
    attack(
        "a-digest-that-is-none",
        &|medium| {
            tampered(medium, |table| table["images"][0]["digest"] = "sha256:..".into());
        },
        4,
        "sha256:..",
    );
    attack(
        "a-table-that-was-changed",
        &|medium| {
            let path = medium.join("bundle.json");
            let text = fs::read_to_string(&path).unwrap().replacen("org/os:1", "org/os:9", 1);
            fs::write(path, text).unwrap();
        },
        4,
        "it was changed",
    );
    attack(
        "a-blob-larger-than-it-is",
        &|medium| {
            tampered(medium, |table| {
                for blob in table["blobs"].as_object_mut().unwrap().values_mut() {
                    blob["size"] = u64::MAX.into();
                    blob["parts"] = json!([{"part": 1}]);
                }
            });
            fs::remove_file(&blobs(medium)[0].0).unwrap();
        },
        3,
        "is not there",
    );
    attack(
        "a-part-of-another-bundle",
        &|medium| {
            let other = gap.medium("another");
            if !Path::new(&other).exists() {
                gap.bundle(&[&gap.os(2)], &["--to", &other]);
            }
            let (a, b) = (medium.join("part-1"), medium.join("part-2"));
            for (from, to) in [(medium.to_owned(), a), (PathBuf::from(&other), b)] {
                fs::create_dir(&to).unwrap();
                for name in ["blobs", "index.json", "oci-layout", "bundle.json"] {
                    let from = from.join(name);
                    match from.is_dir() {
                        true => {
                            drop(std::os::unix::fs::symlink(fs::canonicalize(from).unwrap(), to.join(name)))
                        }
                        false => drop(fs::copy(from, to.join(name)).unwrap()),
                    }
                }
            }
            fs::remove_file(medium.join("index.json")).unwrap();
        },
        3,
        "part of another bundle",
    );
}
