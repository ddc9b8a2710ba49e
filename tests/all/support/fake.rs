//! The fake skopeo, set up for one test.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A fake skopeo with its own settings and records.
#[derive(Debug)]
pub struct FakeSkopeo {
    dir: TempDir,
}

impl FakeSkopeo {
    /// A well-behaved one if `fault` is empty; else the first `times` blob requests are hit.
    pub fn new(layout: &Path, protocol: &str, fault: &str, times: u64) -> FakeSkopeo {
        let dir = TempDir::new().unwrap();
        let settings =
            serde_json::json!({ "layout": layout, "protocol": protocol, "fault": fault, "times": times });
        fs::write(dir.path().join("settings.json"), settings.to_string()).unwrap();
        symlink(super::example("fake-skopeo"), dir.path().join("skopeo")).unwrap();
        FakeSkopeo { dir }
    }

    /// The program to run.
    pub fn program(&self) -> PathBuf {
        self.dir.path().join("skopeo")
    }

    /// Lines of one of its records: `pids`, `args` or `opened`.
    pub fn record(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.dir.path().join(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Waits until none of its processes run.
    pub fn assert_gone(&self) {
        let pids = self.record("pids");
        assert!(!pids.is_empty(), "it never ran");
        let deadline = Instant::now() + Duration::from_secs(5);
        for pid in pids {
            while runs(&pid) {
                assert!(Instant::now() < deadline, "process {pid} still runs");
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// Whether the process runs; one that only waits to be reaped does not.
fn runs(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}
