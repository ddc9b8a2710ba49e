//! A real docker-registry on a free loopback port, and real skopeo. A missing tool fails the test.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

pub struct Registry {
    server: Child,
    pub address: String,
    dir: TempDir,
}

impl Registry {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:0\n",
            dir.path().join("data").display()
        );
        fs::write(&config, text).unwrap();
        let mut server = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect(
                "these tests need docker-registry (Debian package docker-registry); `make test` installs it",
            );
        let mut lines = BufReader::new(server.stderr.take().unwrap()).lines();
        let address = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| {
                let at = line.find("listening on ")? + "listening on ".len();
                Some(
                    line[at..]
                        .chars()
                        .take_while(|c| !c.is_whitespace() && *c != '"' && *c != ',')
                        .collect::<String>(),
                )
            })
            .expect("docker-registry says where it listens");
        std::thread::spawn(move || lines.for_each(drop));
        Registry { server, address, dir }
    }

    /// The file that holds a blob, for spoiling it.
    pub fn blob_file(&self, digest: &str) -> PathBuf {
        let hex = digest.trim_start_matches("sha256:");
        self.dir.path().join("data/docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex).join("data")
    }

    pub fn reference(&self, name: &str) -> String {
        format!("docker://{}/{name}", self.address)
    }

    /// Copies an image or artifact into the registry with skopeo.
    pub fn push(&self, from: &str, name: &str) {
        skopeo(
            &["copy", "--preserve-digests", "--dest-tls-verify=false", from, &self.reference(name)],
            self.dir.path(),
        );
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Runs skopeo with a home of its own and demands success.
pub fn skopeo(args: &[&str], home: &Path) -> String {
    let output = Command::new("skopeo")
        .arg("--insecure-policy")
        .args(args)
        .env("HOME", home)
        .env("XDG_RUNTIME_DIR", home)
        .env("NO_PROXY", "127.0.0.1")
        .output()
        .expect("these tests need skopeo (Debian package skopeo); `make test` installs it");
    assert!(output.status.success(), "skopeo {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
