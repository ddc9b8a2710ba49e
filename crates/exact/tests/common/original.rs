//! Fresh streams of the originals.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

/// The program of `tests/go`, built with the command `go`, under a name of its own.
pub fn build(go: &Path, name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let program = folder.join(name);
    let status = Command::new(go)
        .args(["build", "-o"])
        .arg(&program)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/go/main.go"))
        .env("GOCACHE", folder.join("go-cache"))
        .env("GO111MODULE", "off")
        .current_dir(folder)
        .status()
        .expect("the path is a Go toolchain");
    assert!(status.success(), "go build: {status}");
    program
}

/// What the program makes of `plain`.
pub fn run(program: &Path, level: i32, plain: &[u8]) -> Vec<u8> {
    pipe(Command::new(program).arg(level.to_string()), plain)
}

/// What a command makes of `plain`, which it reads from a pipe.
pub fn pipe(command: &mut Command, plain: &[u8]) -> Vec<u8> {
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = child.unwrap_or_else(|error| panic!("{command:?} does not run: {error}"));
    let mut stdin = child.stdin.take().expect("a pipe");
    let output = thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(plain).expect("the program reads"));
        child.wait_with_output().expect("the program ends")
    });
    assert!(output.status.success(), "{command:?}: {}", output.status);
    output.stdout
}
