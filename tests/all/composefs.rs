//! A composefs repository, with cfsctl as the judge of what we write into it.

use crate::support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use support::cfsctl::{cfsctl, cfsctl_fails, fsck, init};
use support::images::{gzip, noise, tree};
use support::tars::{Entry, tar_of};
use support::{Delta, Image, Layer, OciDir, Sandbox};

const ALGORITHMS: [&str; 2] = ["sha256", "sha512"];

/// A repository and the layouts `old`, `new` and `delta`, one image each, as cfsctl wants them.
struct Case {
    sandbox: Sandbox,
    old: Image,
    new: Image,
}

impl Case {
    fn new(algorithm: &str) -> Self {
        let (kept, changed) = (noise(2, 300_000), noise(3, 200_000));
        let mut later = changed.clone();
        later[1000..1100].fill(7);
        let base = Layer::gzip(tree(&[("usr/lib/shared", &noise(1, 90_000)), ("usr/lib/tiny", b"small")]));
        let old = Layer::gzip(tree(&[("usr/bin/kept", &kept), ("usr/bin/changed", &changed)]));
        let new =
            Layer::gzip(tree(&[("opt/moved", &kept), ("usr/bin/changed", &later), ("usr/bin/new", b"new")]));
        Self::of(algorithm, Image::new(vec![base.clone(), old]), Image::new(vec![base, new]))
    }

    fn of(algorithm: &str, old: Image, new: Image) -> Self {
        let case = Case { sandbox: Sandbox::composefs(algorithm), old, new };
        OciDir::create(&case.sandbox.path("old")).image("image", &case.old);
        OciDir::create(&case.sandbox.path("new")).image("image", &case.new);
        OciDir::create(&case.sandbox.path("delta")).delta("image", &Delta::new(&case.old, &case.new));
        case
    }

    fn source(&self, name: &str) -> String {
        format!("oci:{}", self.sandbox.path(name).display())
    }

    fn repo(&self) -> PathBuf {
        self.sandbox.repo()
    }

    /// Pulls with our tool.
    fn pull(&self, name: &str) -> serde_json::Value {
        self.sandbox.json(&[&self.source(name), "--tag", name])
    }

    /// Pulls with cfsctl into a repository of its choice.
    fn cfsctl_pull(&self, repo: &Path, name: &str, tag: &str) {
        cfsctl(repo, &["oci", "pull", &self.source(name), tag]);
    }

    /// cfsctl finds the repository sound, and the target in it under `name`, as its own pull makes it.
    fn is_judged_sound(&self, name: &str) {
        fsck(&self.repo());
        for (layer, diff_id) in self.new.layers.iter().zip(self.new.diff_ids()) {
            assert!(
                cfsctl(&self.repo(), &["oci", "layer", &diff_id]) == layer.tar,
                "{diff_id} is another tar"
            );
        }
        let inspected = cfsctl(&self.repo(), &["oci", "inspect", "--manifest", name]);
        assert_eq!(inspected.trim_ascii_end(), self.new.manifest, "the manifest's bytes");
        let before = content(&self.repo());
        let said = cfsctl(&self.repo(), &["oci", "pull", &self.source("new"), name]);
        assert!(String::from_utf8_lossy(&said).contains("objects  0 new + 0 already present"));
        assert_same(&content(&self.repo()), &before);
    }
}

/// Objects, images and streams by name: inode of a file, target of a link.
fn content(repo: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![repo.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let (path, meta) = (entry.path(), entry.path().symlink_metadata().unwrap());
            if meta.is_dir() {
                dirs.push(path);
            } else if meta.is_symlink() {
                found.insert(path.clone(), fs::read_link(path).unwrap().display().to_string());
            } else {
                found.insert(path, meta.ino().to_string());
            }
        }
    }
    found
}

/// The same but for streams of manifests: cfsctl writes these anew with each pull,
/// their references in random order.
fn assert_same(now: &BTreeMap<PathBuf, String>, before: &BTreeMap<PathBuf, String>) {
    let of_manifests: BTreeSet<PathBuf> = [now, before]
        .iter()
        .flat_map(|content| content.iter())
        .filter(|(name, _)| name.to_string_lossy().contains("streams/oci-manifest-"))
        .flat_map(|(name, object)| {
            [name.clone(), name.parent().unwrap().parent().unwrap().join(&object[3..])]
        })
        .collect();
    for (name, value) in now.iter().filter(|(name, _)| !of_manifests.contains(*name)) {
        assert_eq!(before.get(name), Some(value), "{} changed", name.display());
    }
}

/// Names under a folder of the repository.
fn names(repo: &Path, folder: &str) -> Vec<PathBuf> {
    let all = content(&repo.join(folder)).into_keys();
    all.map(|path| path.strip_prefix(repo).unwrap().to_owned()).collect()
}

#[test]
fn a_delta_gives_what_cfsctl_makes() {
    for algorithm in ALGORITHMS {
        let case = Case::new(algorithm);
        case.pull("old");
        let report = case.pull("delta");
        assert_eq!(report["image"]["fidelity"], "verbatim");
        case.is_judged_sound("delta");

        // The same commands by cfsctl, in a repository of its own.
        let theirs = case.sandbox.path("theirs");
        init(&theirs, algorithm);
        case.cfsctl_pull(&theirs, "old", "old");
        case.cfsctl_pull(&theirs, "delta", "delta");
        assert_eq!(names(&case.repo(), "images"), names(&theirs, "images"), "EROFS images by digest");
        assert_eq!(names(&case.repo(), "streams"), names(&theirs, "streams"), "streams and tags");
        assert_eq!(cfsctl(&case.repo(), &["images"]), cfsctl(&theirs, &["images"]));
        assert_eq!(cfsctl(&case.repo(), &["oci", "images"]), cfsctl(&theirs, &["oci", "images"]));
    }
}

#[test]
fn we_and_cfsctl_apply_deltas_on_top_of_each_other() {
    for algorithm in ALGORITHMS {
        let case = Case::new(algorithm);
        let third =
            Image::new(vec![Layer::zstd(tree(&[("usr/bin/changed", &noise(3, 200_000)), ("usr/x", b"3")]))]);
        OciDir::create(&case.sandbox.path("third")).delta("image", &Delta::new(&case.new, &third));
        let back = Delta::new(&third, &case.new);
        OciDir::create(&case.sandbox.path("back")).delta("image", &back);
        // We on cfsctl's, cfsctl on ours, we on cfsctl's again.
        let theirs = case.sandbox.path("theirs");
        init(&theirs, algorithm);
        case.cfsctl_pull(&theirs, "old", "v1");
        let repo = format!("composefs:{}", theirs.display());
        case.sandbox.ok(&[&case.source("delta"), "--repo", &repo, "--tag", "v2"]);
        case.cfsctl_pull(&theirs, "third", "v3");
        let list = case.sandbox.json(&["list", "--repo", &repo]);
        assert_eq!(list[2]["config"], third.config_digest().to_string());
        case.sandbox.ok(&["remove", "v2", "--repo", &repo]);
        case.sandbox.ok(&["gc", "--repo", &repo]);
        case.sandbox.ok(&[&case.source("back"), "--repo", &repo, "--tag", "v4"]);
        case.sandbox.ok(&["verify", "--repo", &repo]);
        fsck(&theirs);
    }
}

#[test]
fn unchanged_files_reference_the_objects_of_the_base() {
    let case = Case::new("sha512");
    case.pull("old");
    let before = content(&case.repo());
    case.pull("delta");
    let after = content(&case.repo());
    for (name, inode) in &before {
        assert_eq!(after.get(name), Some(inode), "{} was written again", name.display());
    }
    let new = after
        .keys()
        .filter(|name| !before.contains_key(*name) && name.starts_with(case.repo().join("objects")));
    let large = new.filter(|name| name.metadata().unwrap().len() == 200_000).count();
    assert_eq!(large, 1, "of the large files, the changed one alone is new");
    assert!(
        !after
            .keys()
            .any(|name| name.metadata().is_ok_and(|m| m.len() == 300_000) && !before.contains_key(name))
    );
}

#[test]
fn bases_that_cfsctl_cannot_use() {
    let (run, tool) = (noise(5, 50_000), noise(6, 80_000));
    let mut later = tool.clone();
    later[5] ^= 1;
    let files: [(&str, &[u8]); 4] =
        [("run/state", b"x"), ("run/big", &run), ("usr/tool", &tool), ("usr/n\u{e9}", b"n")];
    let two_members = |tar: Vec<u8>| {
        let blob = [gzip(&tar[..3000]), gzip(&tar[3000..])].concat();
        Layer { blob, ..Layer::gzip(tar) }
    };
    let latin = |content: &[u8]| {
        tar_of(&[Entry::Dir(b"usr"), Entry::File(b"usr/caf\xe9", content), Entry::File(b"usr/tool", &tool)])
    };
    let below_run = [("run/big", &run[..]), ("usr/tool", &later)];
    let cases = [
        ("below /run", Layer::gzip(tree(&files)), Layer::gzip(tree(&below_run)), true),
        ("two gzip members", two_members(tree(&files)), two_members(tree(&below_run)), true),
        ("name in Latin-1", Layer::gzip(latin(b"one")), Layer::gzip(latin(&tool)), false),
        (
            "no /usr",
            Layer::gzip(tree(&[("opt/tool", &tool)])),
            Layer::gzip(tree(&[("opt/tool", &later)])),
            true,
        ),
    ];
    for (name, old, new, cfsctl_cannot) in cases {
        let case = Case::of("sha256", Image::new(vec![old]), Image::new(vec![new]));
        case.pull("old");
        if cfsctl_cannot {
            cfsctl_fails(&case.repo(), &["oci", "pull", &case.source("delta"), "theirs"]);
        }
        case.pull("delta");
        fsck(&case.repo());
        let diff_id = &case.new.diff_ids()[0];
        assert!(cfsctl(&case.repo(), &["oci", "layer", diff_id]) == case.new.layers[0].tar, "{name}");
        case.sandbox.ok(&["verify"]);
    }
}

/// Three layers of which each has one large file that changes.
fn three_layers() -> Case {
    let layer = |seed: u64, version: u8| {
        let mut file = noise(seed, 150_000 + seed as usize);
        file[9] = version;
        Layer::gzip(tree(&[(&format!("usr/f{seed}"), &file)]))
    };
    let image = |version| Image::new((0..3).map(|n| layer(n, version)).collect());
    Case::of("sha256", image(1), image(2))
}

/// The object of a file with this many bytes.
fn object_of_size(repo: &Path, size: u64) -> PathBuf {
    let mut objects = content(&repo.join("objects")).into_keys();
    objects.find(|path| path.metadata().unwrap().len() == size).unwrap()
}

#[test]
fn a_damaged_or_missing_base_object_costs_its_layer_alone() {
    for missing in [false, true] {
        let case = three_layers();
        case.pull("old");
        let object = object_of_size(&case.repo(), 150_001);
        let mut bytes = fs::read(&object).unwrap();
        fs::remove_file(&object).unwrap();
        if !missing {
            bytes[70_000] ^= 1;
            fs::write(&object, bytes).unwrap();
        }
        let ended = case.sandbox.run(&[&case.source("delta"), "--tag", "new"]);
        assert_eq!(ended.code, 4, "{ended:#?}");
        assert!(ended.stderr.contains("base file usr/f1 is damaged"), "{ended:#?}");
        let list = case.sandbox.json(&["list"]);
        assert_eq!(list.as_array().unwrap().len(), 1, "nothing was published");
        // The other two are there: a full pull fetches one layer only.
        let report = case.pull("new");
        let fetched: Vec<_> =
            report["layers"].as_array().unwrap().iter().map(|l| l["action"].as_str().unwrap()).collect();
        assert_eq!(fetched, ["reused", "fetched", "reused"], "missing: {missing}");
    }
}

#[test]
fn an_object_that_a_power_failure_cut_short_is_written_again() {
    for algorithm in ALGORITHMS {
        // Hashed in memory, and while it is written.
        let sizes = [200_000, 300_000];
        let case = || {
            let layer = |number: u64| {
                let files = sizes.map(|size| noise(number + size as u64, size));
                // So many new ones before them that nobody asks any more whether one is there.
                let others: Vec<_> =
                    (0..100).map(|n| (format!("usr/a{n}"), noise(n * number, 1000))).collect();
                let mut entries: Vec<(&str, &[u8])> =
                    others.iter().map(|(name, c)| (&name[..], &c[..])).collect();
                entries.extend([("usr/small", &files[0][..]), ("usr/large", &files[1])]);
                Layer::gzip(tree(&entries))
            };
            Case::of(algorithm, Image::new(vec![layer(1)]), Image::new(vec![layer(2)]))
        };
        let (whole, cut) = (case(), case());
        cut.pull("old");
        let old = content(&cut.repo().join("objects"));
        whole.pull("new");
        for size in sizes {
            let object = object_of_size(&whole.repo(), size as u64);
            let object = cut.repo().join(object.strip_prefix(whole.repo()).unwrap());
            assert!(!old.contains_key(&object), "it is of the new image only");
            fs::create_dir_all(object.parent().unwrap()).unwrap();
            fs::write(object, b"").unwrap();
        }
        cut.pull("delta");
        cut.is_judged_sound("delta");
    }
}

#[test]
fn repositories_of_another_age() {
    let case = three_layers();
    case.pull("old");
    let meta = case.repo().join("meta.json");
    let text = fs::read_to_string(&meta).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    json["version"] = 99.into();
    for (content, expected) in
        [(Some(json.to_string()), "version"), (Some("{}".into()), "meta.json"), (None, "meta.json")]
    {
        match content {
            Some(content) => fs::write(&meta, content).unwrap(),
            None => fs::remove_file(&meta).unwrap(),
        }
        let ended = case.sandbox.run(&["list"]);
        assert_eq!(ended.code, 3, "{ended:#?}");
        assert!(ended.stderr.contains(expected), "{ended:#?}");
    }
    fs::write(&meta, text).unwrap();
    case.pull("delta");
}

#[test]
fn what_a_composefs_repository_does_not_take() {
    let case = three_layers();
    let repo = case.sandbox.repo_reference();
    let ended = case.sandbox.run(&[&case.source("old"), "--compress", "zstd"]);
    assert_eq!(ended.code, 2, "{ended:#?}");
    let ended = case.sandbox.run(&["init", &repo, "--insecure", "--algorithm", "sha512"]);
    assert_eq!(ended.code, 3, "another hash than it has: {ended:#?}");
    case.sandbox.ok(&["init", &repo, "--insecure", "--algorithm", "sha256"]);

    // An image of Docker media types, as skopeo makes it: taken in OCI's.
    let docker = format!("dir:{}", case.sandbox.path("docker").display());
    support::registry::skopeo(
        &["copy", "--format", "v2s2", &case.source("old"), &docker],
        case.sandbox.dir.path(),
    );
    case.sandbox.ok(&[&docker]);

    let nowhere = case.sandbox.run(&["list", "--repo", "composefs:/nonexistent/repo"]);
    assert_eq!(nowhere.code, 3, "{nowhere:#?}");
    assert!(
        nowhere.stderr.contains("hint: oci-delta-fetch init composefs:/nonexistent/repo"),
        "{nowhere:#?}"
    );
}

#[test]
fn a_full_disk_leaves_the_images_alone() {
    let case = Case::new("sha256");
    case.pull("old");
    let mut limited = case.sandbox.limited_files(150);
    limited.args([&case.source("delta"), "--tag", "old"]);
    let ended = support::cli::ended(limited.output().unwrap());
    assert_eq!(ended.code, 1, "{ended:#?}");
    assert!(ended.stderr.contains("File too large"), "{ended:#?}");
    let list = case.sandbox.json(&["list"]);
    assert_eq!(list[0]["config"], case.old.config_digest().to_string());
    case.sandbox.ok(&["gc"]);
    fsck(&case.repo());
    case.pull("delta");
    case.is_judged_sound("delta");
}

#[test]
fn kill_before_and_after_a_layer_has_its_name() {
    let layer = |seed: u64, version: u8| {
        let mut file = noise(seed, 2_000_000);
        file[9] = version;
        Layer::plain(tree(&[(&format!("usr/f{seed}"), &file)]))
    };
    let image = |version| Image::new((0..6).map(|n| layer(n, version)).collect());
    let case = Case::of("sha256", image(1), image(2));
    case.pull("old");
    let reference = case.source("delta");
    let mut interrupted = 0;
    for delay in (0..20).map(|n| n * 10) {
        let mut run = case.sandbox.command();
        let mut run = run.args([&reference, "--tag", "new"]).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(delay));
        interrupted += u32::from(run.try_wait().unwrap().is_none());
        run.kill().unwrap();
        run.wait().unwrap();
        fsck(&case.repo());
    }
    assert!(interrupted > 0, "no run was caught at work");
    // cfsctl's gc goes on where the kills left off, and takes nothing that is needed.
    cfsctl(&case.repo(), &["gc"]);
    case.sandbox.ok(&[&reference, "--tag", "new"]);
    case.is_judged_sound("new");
}

#[test]
fn a_concurrent_gc_of_cfsctl_takes_nothing() {
    let case = three_layers();
    case.pull("old");
    for round in 0..10 {
        let mut gc = Command::new(support::cfsctl::program());
        let mut gc = gc.arg("--repo").arg(case.repo()).arg("gc").stdout(Stdio::null()).spawn().unwrap();
        let report = case.sandbox.json(&[&case.source("delta"), "--tag", "new"]);
        assert_eq!(report["image"]["config"], case.new.config_digest().to_string());
        assert!(gc.wait().unwrap().success());
        fsck(&case.repo());
        assert_eq!(case.sandbox.json(&["list"]).as_array().unwrap().len(), 2, "round {round}");
        case.sandbox.ok(&["remove", "new"]);
    }
}

#[test]
fn what_a_composefs_repository_took_apart_does_not_leave_it() {
    let sandbox = Sandbox::composefs("sha256");
    let mut dir = OciDir::create(&sandbox.path("source"));
    dir.image("1", &Image::new(vec![Layer::gzip(tree(&[("usr/bin/tool", &noise(1, 90_000))]))]));
    sandbox.ok(&[&dir.reference("1"), "--tag", "one"]);
    let place = format!("dir:{}", sandbox.path("out").display());
    for options in [&["--rewrite"][..], &[]] {
        let refused = sandbox.run(&[&["export", "one", "--to", &place], options].concat());
        assert_eq!(refused.code, 3, "{refused:#?}");
        assert!(refused.stderr.contains("composefs"), "{refused:#?}");
        assert!(!sandbox.path("out").exists());
    }
}
