//! Real podman with a storage of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What leads container engines from `registry` to a mirror; the file is in `dir`.
pub fn mirrored(dir: &Path, registry: &str, mirror: &str) -> PathBuf {
    let path = registry.replace(':', "__");
    let conf = format!(
        "[[registry]]\nlocation = \"{registry}\"\ninsecure = true\n[[registry.mirror]]\nlocation = \"{mirror}/{path}\"\ninsecure = true\n"
    );
    let file = dir.join("registries.conf");
    std::fs::write(&file, conf).unwrap();
    file
}

/// A policy that takes every image; the file is in `dir`.
pub fn any_image(dir: &Path) -> String {
    let policy = dir.join("policy.json");
    std::fs::write(&policy, r#"{"default": [{"type": "insecureAcceptAnything"}]}"#).unwrap();
    policy.display().to_string()
}

/// A storage in a directory of a test.
pub struct Podman {
    pub root: PathBuf,
    run: PathBuf,
    home: PathBuf,
    driver: &'static str,
}

impl Podman {
    pub fn new(dir: &Path, name: &str, driver: &'static str) -> Self {
        let root = dir.join(name);
        // One for all: what is mounted is noted there.
        Podman { root, run: dir.join(format!("{name}-run")), home: dir.to_owned(), driver }
    }

    /// An image in it, or with an empty name the storage itself.
    pub fn reference(&self, name: &str) -> String {
        format!("containers-storage:[{}@{}+{}]{name}", self.driver, self.root.display(), self.run.display())
    }

    pub fn podman(&self, args: &[&str]) -> String {
        let ended = self
            .command(args)
            .output()
            .expect("this test needs podman (Debian package podman); `make test` installs it");
        assert!(ended.status.success(), "podman {args:?}: {ended:?}");
        String::from_utf8(ended.stdout).unwrap().trim().to_owned()
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("podman");
        command.arg("--root").arg(&self.root).arg("--runroot").arg(&self.run);
        command.args(["--storage-driver", self.driver]).args(args);
        command.env("HOME", &self.home).env("XDG_RUNTIME_DIR", &self.home);
        command
    }

    /// Digest of the manifest of an image, as podman shows it.
    pub fn digest(&self, name: &str) -> String {
        self.podman(&["image", "inspect", "--format", "{{.Digest}}", name])
    }

    pub fn overlay_layers(&self) -> PathBuf {
        self.root.join(format!("{}-layers", self.driver))
    }
}

impl Drop for Podman {
    /// As root the overlay driver mounts its own folder, and leaves it so; nobody could remove that.
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-q").arg(self.root.join("overlay")).output();
    }
}
