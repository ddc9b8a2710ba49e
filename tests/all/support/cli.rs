//! Runs the real binary in a home of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

/// A temporary directory with a repository in it.
#[derive(Debug)]
pub struct Sandbox {
    pub dir: TempDir,
    /// Set before the repository's path on the command line.
    scheme: &'static str,
}

/// How a run ended.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Sandbox {
    pub fn new() -> Self {
        Sandbox { dir: tempfile::tempdir().unwrap(), scheme: "" }
    }

    /// With an empty composefs repository, its objects named by `sha256` or `sha512`.
    #[cfg(feature = "composefs")]
    pub fn composefs(algorithm: &str) -> Self {
        let sandbox = Sandbox { scheme: "composefs:", ..Self::new() };
        sandbox.ok(&["init", &sandbox.repo_reference(), "--insecure", "--algorithm", algorithm]);
        sandbox
    }

    /// One with each kind of repository.
    pub fn of_each_store() -> Vec<Self> {
        vec![
            Self::new(),
            #[cfg(feature = "composefs")]
            Self::composefs("sha256"),
            #[cfg(feature = "composefs")]
            Self::composefs("sha512"),
        ]
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn repo(&self) -> PathBuf {
        self.path("repo")
    }

    /// As `--repo` wants it.
    pub fn repo_reference(&self) -> String {
        format!("{}{}", self.scheme, self.repo().display())
    }

    /// The command with the sandbox's home and repository, without the caller's configuration.
    pub fn command(&self) -> Command {
        self.command_of(Path::new(env!("CARGO_BIN_EXE_oci-delta-fetch")))
    }

    /// The same under the reference tool's name.
    pub fn oci_delta(&self) -> Command {
        let link = self.path("oci-delta");
        if !link.exists() {
            std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_oci-delta-fetch"), &link).unwrap();
        }
        self.command_of(&link)
    }

    fn command_of(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env("HOME", self.dir.path())
            .env_remove("XDG_DATA_HOME")
            .env_remove("XDG_CACHE_HOME")
            .env_remove("REGISTRY_AUTH_FILE")
            .env("XDG_RUNTIME_DIR", self.dir.path())
            .env("NO_PROXY", "127.0.0.1")
            .env("OCI_DELTA_FETCH_REPO", self.repo_reference());
        command
    }

    /// The command with a limit on the size of a file, which stands in for the
    /// full disk: a write fails half-way. In blocks of 512 bytes.
    pub fn limited_files(&self, blocks: u32) -> Command {
        self.limited(&format!("trap '' XFSZ; ulimit -f {blocks}"))
    }

    /// The command after `limits`, shell commands that set them.
    pub fn limited(&self, limits: &str) -> Command {
        let inner = self.command();
        let mut limited = Command::new("sh");
        limited.args(["-ec", &format!("{limits}; exec \"$@\""), "sh"]);
        limited.arg(inner.get_program());
        for (key, value) in inner.get_envs() {
            match value {
                Some(value) => limited.env(key, value),
                None => limited.env_remove(key),
            };
        }
        limited
    }

    pub fn run(&self, args: &[&str]) -> Ended {
        ended(self.command().args(args).output().unwrap())
    }

    /// Runs and demands success.
    pub fn ok(&self, args: &[&str]) -> Ended {
        let ended = self.run(args);
        assert_eq!(ended.code, 0, "{args:?}: {ended:#?}");
        ended
    }

    /// Runs with `--json`, demands success and parses the object.
    pub fn json(&self, args: &[&str]) -> Value {
        let mut all = args.to_vec();
        all.push("--json");
        let ended = self.ok(&all);
        serde_json::from_str(&ended.stdout).unwrap_or_else(|e| panic!("{e}: {ended:#?}"))
    }

    /// Every file below the repository with its size, but for locks: to see that a failed run changed nothing.
    pub fn snapshot(&self) -> Vec<(PathBuf, u64)> {
        let mut files = Vec::new();
        walk(&self.repo(), &mut files);
        files.retain(|(path, _)| !path.ends_with("lock") && !path.ends_with("publish.lock"));
        files.sort();
        files
    }
}

fn walk(dir: &Path, files: &mut Vec<(PathBuf, u64)>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let meta = entry.metadata().unwrap();
        if meta.is_dir() {
            walk(&entry.path(), files);
        } else {
            files.push((entry.path(), meta.len()));
        }
    }
}

pub fn ended(output: Output) -> Ended {
    Ended {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}
