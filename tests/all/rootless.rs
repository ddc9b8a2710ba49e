//! Podman's storage of a user without rights, by every driver: `contrib/ci/rootless` makes such a user and runs this.

use crate::support;

use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use oci_delta_fetch::digest::digest_of;
use serde_json::Value;
use support::cli::ended;
use support::registry::skopeo;
use support::{Ended, OciDir, Registry, Sandbox};

use crate::podman::version;

const STORAGE: &str = "containers-storage:";

/// How this user's podman keeps files, and what a deletion is there.
struct Way {
    name: &'static str,
    conf: &'static str,
    deletion: Deletion,
}

#[derive(Debug, PartialEq, Eq)]
enum Deletion {
    /// A device with number 0.
    Device,
    /// A file with a name that says so.
    Name,
    /// Nothing: all layers below are there as well.
    None,
}

const WAYS: [Way; 3] = [
    Way { name: "native", conf: "driver = 'overlay'", deletion: Deletion::Device },
    Way {
        name: "fuse-overlayfs",
        conf: "driver = 'overlay'\n[storage.options.overlay]\nmount_program = '/usr/bin/fuse-overlayfs'",
        deletion: Deletion::Name,
    },
    Way { name: "vfs", conf: "driver = 'vfs'", deletion: Deletion::None },
];

/// The user, at home.
struct User {
    name: String,
    home: PathBuf,
}

impl User {
    fn of(name: &str, home: PathBuf, conf: &str) -> Self {
        let user = User { name: name.to_owned(), home };
        for dir in [".config/containers", "run", "tmp"] {
            fs::create_dir_all(user.home.join(dir)).unwrap();
        }
        fs::write(user.home.join(".config/containers/storage.conf"), format!("[storage]\n{conf}\n")).unwrap();
        // Where this one was built, the user may have no business.
        fs::copy(env!("CARGO_BIN_EXE_oci-delta-fetch"), user.home.join("oci-delta-fetch")).unwrap();
        run(Command::new("chown").args(["-R", &format!("{name}:")]).arg(&user.home));
        user
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("runuser");
        // The home is set behind it, since it would set the user's own.
        command.args(["-u", &self.name, "--", "env", "-i", "PATH=/usr/bin:/bin:/usr/sbin:/sbin"]);
        for (variable, dir) in [("HOME", ""), ("XDG_RUNTIME_DIR", "run"), ("TMPDIR", "tmp")] {
            command.arg(format!("{variable}={}", self.home.join(dir).display()));
        }
        command.arg("NO_PROXY=127.0.0.1").args(words).current_dir(&self.home);
        command
    }

    fn podman(&self, words: &[&str]) -> String {
        run(&mut self.command(&[&["podman"], words].concat()))
    }

    fn digest(&self, name: &str) -> String {
        self.podman(&["image", "inspect", "--format", "{{.Digest}}", name])
    }

    /// Our program, as the user or as root among the user's own ids.
    fn fetch(&self, unshared: bool, words: &[&str]) -> Ended {
        let before: &[&str] = if unshared { &["podman", "unshare"] } else { &[] };
        ended(self.command(&[before, &["./oci-delta-fetch"], words].concat()).output().unwrap())
    }
}

impl Drop for User {
    /// Ends the process that keeps what is mounted.
    fn drop(&mut self) {
        let _ = self.command(&["podman", "system", "migrate"]).output();
    }
}

fn run(command: &mut Command) -> String {
    let ended = command.output().unwrap();
    assert!(ended.status.success(), "{command:?}: {ended:?}");
    String::from_utf8(ended.stdout).unwrap().trim().to_owned()
}

fn raw(reference: &str, dir: &Path) -> String {
    skopeo(&["inspect", "--raw", "--tls-verify=false", reference], dir)
}

/// The kind of the deletion of `usr/gone` in the layers of a storage.
fn deletion(storage: &Path) -> Deletion {
    let layers = fs::read_dir(storage.join("overlay")).into_iter().flatten();
    for usr in layers.map(|layer| layer.unwrap().path().join("diff/usr")).filter(|usr| usr.is_dir()) {
        if usr.join(".wh.gone").exists() {
            return Deletion::Name;
        }
        if fs::symlink_metadata(usr.join("gone")).is_ok_and(|file| file.file_type().is_char_device()) {
            return Deletion::Device;
        }
    }
    Deletion::None
}

#[test]
#[ignore = "needs a user with subordinate ids: contrib/ci/rootless"]
fn a_users_storage_is_updated_whatever_its_driver() {
    let name = std::env::var("ROOTLESS_USER").expect("ROOTLESS_USER names a user; see contrib/ci/rootless");
    let sandbox = Sandbox::new();
    run(Command::new("chmod").arg("755").arg(sandbox.dir.path()));
    let registry = Registry::start();
    let mut dir = OciDir::create(&sandbox.path("source"));
    for n in [1, 2] {
        let tag = n.to_string();
        dir.image(&tag, &version(n));
        registry.push_with(&["--dest-compress-format=gzip"], &dir.reference(&tag), &format!("os:{n}"));
    }
    let [one, two] = ["1", "2"].map(|tag| registry.reference(&format!("os:{tag}")));
    let os = registry.reference("os");
    sandbox.ok(&["create", &one, &two, &os, "--tls-verify=false", "--insecure-policy"]);
    let manifest = raw(&two, sandbox.dir.path());
    let published = digest_of(manifest.as_bytes()).to_string();
    let users: Vec<(Way, User)> = WAYS
        .into_iter()
        .map(|way| {
            let user = User::of(&name, sandbox.path(way.name), way.conf);
            user.podman(&["pull", "-q", "--tls-verify=false", one.trim_start_matches("docker://")]);
            (way, user)
        })
        .collect();
    for (way, user) in &users {
        let storage = user.home.join(".local/share/containers/storage");
        assert_eq!(deletion(&storage), way.deletion, "{}", way.name);
        let update = [&two, "--repo", STORAGE, "--tls-verify=false", "--insecure-policy", "--json"];
        // Files that are out of reach are no sources.
        let updated = user.fetch(false, &update);
        assert_eq!(updated.code, 0, "{}: {updated:#?}", way.name);
        let report: Value = serde_json::from_str(&updated.stdout).unwrap();
        assert_eq!(report["layers"][0]["action"], "reused", "{}: {report:#}", way.name);
        assert_eq!(report["layers"][1]["action"], "patched", "{}: {report:#}", way.name);
        let named = two.trim_start_matches("docker://");
        assert_eq!(user.digest(named), published, "{}", way.name);
        // Where all of a layer is wanted, one must be root among the user's ids.
        let refused = |words: &[&str]| {
            let refused = user.fetch(false, words);
            assert!(refused.code != 0 && refused.stderr.contains("usr/theirs"), "{}: {refused:#?}", way.name);
            assert!(refused.stderr.contains("podman unshare"), "{}: {refused:#?}", way.name);
        };
        let [old, new] = [one.trim_start_matches("docker://"), named].map(|name| format!("{STORAGE}{name}"));
        for words in [&["verify", "--repo", STORAGE][..], &["create", &old, &new, "oci:delta"]] {
            refused(words);
            let done = user.fetch(true, words);
            assert_eq!(done.code, 0, "{}: {words:?}: {done:#?}", way.name);
        }
        let further = [&update[..], &["--to", "dir:out"]].concat();
        user.podman(&["rmi", named]);
        refused(&further);
        user.podman(&["rmi", named]);
        let done = user.fetch(true, &further);
        assert_eq!((done.code, user.digest(named)), (0, published.clone()), "{}: {done:#?}", way.name);
        let left = raw(&format!("dir:{}", user.home.join("out").display()), sandbox.dir.path());
        assert_eq!(left, manifest, "{}", way.name);
    }
    // Podman finds nothing to download.
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    for layer in manifest["layers"].as_array().unwrap() {
        fs::remove_file(registry.blob_file(layer["digest"].as_str().unwrap())).unwrap();
    }
    for (_, user) in &users {
        user.podman(&["pull", "-q", "--tls-verify=false", two.trim_start_matches("docker://")]);
    }
}
