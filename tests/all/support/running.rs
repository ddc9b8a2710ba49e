//! A run of the program that is to be met at work.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use super::Ended;

/// Far above what an end may take, far below what the work would.
pub const SOON: Duration = Duration::from_secs(15);

/// A run that hears signals.
pub struct Running {
    child: Child,
    stderr: BufReader<ChildStderr>,
    said: String,
}

impl Running {
    /// Starts it and waits until it has caught SIGTERM.
    pub fn start(command: &mut Command) -> Self {
        Self::with_input(command, Stdio::null())
    }

    /// The same with this standard input.
    pub fn with_input(command: &mut Command, input: Stdio) -> Self {
        let mut child = command
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let running = Running { child, stderr, said: String::new() };
        wait_for("it to hear signals", || catches_sigterm(running.child.id()));
        running
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Reads standard error up to a line with `text` in it, and gives that.
    pub fn wait_for_line(&mut self, text: &str) -> String {
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            let n = self.stderr.read_line(&mut line).unwrap();
            assert!(n > 0, "it ended without {text:?}: {}", self.said);
            self.said.push_str(&line);
        }
        line
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Waits for its end, which must come soon.
    pub fn end(mut self) -> Ended {
        let started = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            if started.elapsed() > SOON {
                self.child.kill().unwrap();
                panic!("it goes on: {}", self.said);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.stderr.read_to_string(&mut self.said).unwrap();
        let output = self.child.wait_with_output().unwrap();
        Ended { stderr: self.said, ..super::cli::ended(output) }
    }
}

/// Waits until `what` is so.
pub fn wait_for(what: &str, so: impl Fn() -> bool) {
    let started = Instant::now();
    while !so() {
        assert!(started.elapsed() < SOON, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The processes that one started and that run.
pub fn children(pid: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|process| process.file_name().to_str()?.parse().ok());
    let is_child = |child: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1));
        parent == Some(&pid.to_string())
    };
    pids.filter(is_child).collect()
}

/// Ends processes at once, whatever they are doing.
pub fn kill(pids: &[u32]) {
    assert!(!pids.is_empty());
    let pids = pids.iter().map(u32::to_string);
    // One of them may have ended by itself.
    Command::new("kill").arg("-9").args(pids).stderr(Stdio::null()).status().unwrap();
}

/// Waits until none of them runs.
pub fn wait_for_end_of(pids: &[u32]) {
    for pid in pids {
        wait_for("a process to end", || !std::path::Path::new(&format!("/proc/{pid}/exe")).exists());
    }
}

fn catches_sigterm(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or("0").trim();
    u64::from_str_radix(caught, 16).unwrap() & 1 << 14 != 0
}

/// Does a process run whose command line has `text` in it?
pub fn runs(text: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes.filter(|p| p.file_name() != *std::process::id().to_string()).any(|process| {
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(text)
    })
}
