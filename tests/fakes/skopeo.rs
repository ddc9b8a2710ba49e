//! A skopeo for tests: speaks the image proxy protocol on fd 0, serves an OCI
//! layout, and misbehaves on demand.
//!
//! Settings come from the file `settings.json` beside the path it is called by (so
//! each test calls it through its own symbolic link): `layout` is a directory,
//! `protocol` a version, `fault` one of the words matched on below, and `times` how
//! many blob requests are hit by it; with `withdrawn`, how many processes. It appends
//! its pid to `pids`, and one byte for each blob request to `count`.
//!
//! Like the real one it closes the pipe of a `GetBlob` only at `FinishPipe`, and
//! `FinishPipe` answers nothing else until the transfer is over.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv, sendmsg};
use serde_json::{Value, json};

const MAX_MESSAGE: usize = 32 << 10;

fn main() -> io::Result<()> {
    let mut server = Server::new()?;
    let stdin = io::stdin();
    let mut buffer = vec![0; MAX_MESSAGE];
    loop {
        let (n, _) = recv(stdin.as_fd(), buffer.as_mut_slice(), RecvFlags::empty())?;
        if n == 0 {
            return Ok(());
        }
        let request: Value = serde_json::from_slice(&buffer[..n])?;
        let reply = server.answer(request["method"].as_str().unwrap_or_default(), &request["args"])?;
        server.send(stdin.as_fd(), reply)?;
    }
}

/// One answer: value or error, and the descriptors that go with it.
struct Reply {
    result: Result<Value, &'static str>,
    pipe_id: u32,
    fds: Vec<OwnedFd>,
}

impl Reply {
    fn value(value: impl Into<Value>) -> Reply {
        Reply { result: Ok(value.into()), pipe_id: 0, fds: Vec::new() }
    }

    fn error(text: &'static str) -> Reply {
        Reply { result: Err(text), pipe_id: 0, fds: Vec::new() }
    }
}

/// A transfer that waits for `FinishPipe`: the thread gives back the pipe's write end.
type Transfer = JoinHandle<(Option<File>, Option<&'static str>)>;

struct Server {
    dir: PathBuf,
    layout: PathBuf,
    protocol: String,
    fault: String,
    times: u64,
    /// Which process this is, counted from 1.
    number: u64,
    transfers: HashMap<u32, Transfer>,
    last_pipe: u32,
}

impl Server {
    fn new() -> io::Result<Server> {
        let called = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
        let dir = called.parent().unwrap_or(Path::new(".")).to_owned();
        let settings: Value = serde_json::from_slice(&fs::read(dir.join("settings.json"))?)?;
        let text = |key: &str| settings[key].as_str().unwrap_or_default().to_owned();
        append(&dir.join("pids"), format!("{}\n", std::process::id()).as_bytes())?;
        let number = fs::read_to_string(dir.join("pids"))?.lines().count() as u64;
        append(
            &dir.join("args"),
            format!("{:?}\n", std::env::args_os().skip(1).collect::<Vec<_>>()).as_bytes(),
        )?;
        Ok(Server {
            layout: text("layout").into(),
            protocol: text("protocol"),
            fault: text("fault"),
            times: settings["times"].as_u64().unwrap_or(u64::MAX),
            number,
            transfers: HashMap::new(),
            last_pipe: 0,
            dir,
        })
    }

    fn answer(&mut self, method: &str, args: &Value) -> io::Result<Reply> {
        match (method, self.fault.as_str()) {
            ("Initialize", "stall-start")
            | ("OpenImage", "stall-open")
            | ("GetManifest", "stall-manifest") => hang(),
            ("Initialize", "die-start") => die(),
            ("OpenImage", "reject") => return Ok(Reply::error("Running image x is rejected by policy.")),
            ("OpenImage", "unauthorized") => {
                return Ok(Reply::error("unauthorized: authentication required"));
            }
            ("OpenImage", "no-manifest") => {
                return Ok(Reply::error("reading manifest t in h/r: manifest unknown"));
            }
            _ => {}
        }
        match method {
            "Initialize" => Ok(Reply::value(self.protocol.as_str())),
            "OpenImage" => {
                append(
                    &self.dir.join("opened"),
                    format!("{}\n", args[0].as_str().unwrap_or_default()).as_bytes(),
                )?;
                Ok(Reply::value(1))
            }
            "CloseImage" => Ok(Reply::value(Value::Null)),
            "GetManifest" => self.manifest(),
            "GetBlob" | "GetRawBlob" => {
                self.blob(args[1].as_str().unwrap_or_default(), method == "GetRawBlob")
            }
            "FinishPipe" => Ok(self.finish(args[0].as_u64().unwrap_or(0) as u32)),
            "Shutdown" => std::process::exit(0),
            _ => Ok(Reply::error("unknown method")),
        }
    }

    fn manifest(&mut self) -> io::Result<Reply> {
        let index: Value = serde_json::from_slice(&fs::read(self.layout.join("index.json"))?)?;
        let digest = index["manifests"][0]["digest"].as_str().unwrap_or_default().to_owned();
        let mut bytes = fs::read(self.blob_path(&digest))?;
        if self.fault == "huge-manifest" {
            bytes.resize(5 << 20, b' ');
        }
        if self.fault == "lie" {
            bytes.push(b' ');
        }
        let (read, mut write) = pipe()?;
        let transfer = thread::spawn(move || {
            let _ = write.write_all(&bytes);
            (Some(write), None)
        });
        let pipe_id = self.keep(transfer);
        Ok(Reply { result: Ok(digest.into()), pipe_id, fds: vec![read] })
    }

    fn blob(&mut self, digest: &str, raw: bool) -> io::Result<Reply> {
        let mut hit = append(&self.dir.join("count"), b".")? <= self.times;
        if self.fault == "withdrawn" {
            hit = self.number <= self.times;
        }
        let fault = if hit { self.fault.clone() } else { String::new() };
        match fault.as_str() {
            "err-retryable" => {
                return Ok(Reply::error("received unexpected HTTP status: 503 Service Unavailable"));
            }
            "withdrawn" => return Ok(Reply::error("unauthorized: authentication required")),
            "err-404" => return Ok(Reply::error("blob unknown to registry")),
            "garbage" => {
                rustix::net::send(io::stdin().as_fd(), b"\xff{garbage", SendFlags::empty())?;
                hang()
            }
            "stall-blob" => hang(),
            _ => {}
        }
        let Ok(bytes) = fs::read(self.blob_path(digest)) else {
            return Ok(Reply::error("blob unknown to registry"));
        };
        let size = bytes.len();
        let (read, write) = pipe()?;
        if !raw {
            let pipe_id = self.keep(thread::spawn(move || send(write, bytes, &fault)));
            return Ok(Reply { result: Ok(size.into()), pipe_id, fds: vec![read] });
        }
        let (read_error, mut write_error) = pipe()?;
        thread::spawn(move || {
            // The real one hashes nothing here, so a corrupt blob goes unnoticed.
            let (end, error) = send(write, bytes, &fault);
            if let Some(text) = error.filter(|_| fault == "cut") {
                let _ = write!(write_error, "{}", json!({ "code": "other", "message": text }));
            }
            drop(end);
        });
        Ok(Reply { result: Ok(size.into()), pipe_id: 0, fds: vec![read, read_error] })
    }

    fn finish(&mut self, id: u32) -> Reply {
        match self.transfers.remove(&id).map(JoinHandle::join) {
            Some(Ok((_end, None))) => Reply::value(Value::Null),
            Some(Ok((_end, Some(error)))) => Reply::error(error),
            _ => Reply::error("no such pipe"),
        }
    }

    fn keep(&mut self, transfer: Transfer) -> u32 {
        self.last_pipe += 1;
        self.transfers.insert(self.last_pipe, transfer);
        self.last_pipe
    }

    fn blob_path(&self, digest: &str) -> PathBuf {
        self.layout.join("blobs").join(digest.replace(':', "/"))
    }

    fn send(&self, socket: BorrowedFd<'_>, reply: Reply) -> io::Result<()> {
        let (value, error) = match reply.result {
            Ok(value) => (value, ""),
            Err(error) => (Value::Null, error),
        };
        let mut message =
            json!({ "success": error.is_empty(), "value": value, "pipeid": reply.pipe_id, "error": error });
        if self.protocol == "0.2.8" && !error.is_empty() {
            message["error_code"] = if error.contains("503") { "retryable" } else { "other" }.into();
        }
        let fds: Vec<BorrowedFd<'_>> = reply.fds.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&fds));
        }
        sendmsg(socket, &[IoSlice::new(message.to_string().as_bytes())], &mut control, SendFlags::empty())?;
        Ok(())
    }
}

/// Writes a blob as `fault` wants it; gives back the open pipe and what `FinishPipe` will say.
fn send(mut pipe: File, mut bytes: Vec<u8>, fault: &str) -> (Option<File>, Option<&'static str>) {
    let half = bytes.len() / 2;
    match fault {
        "stall" | "die" | "truncate" | "cut" => bytes.truncate(half),
        "corrupt" => bytes[half] ^= 1,
        "long" => bytes.resize(bytes.len() + (1 << 20), 0),
        _ => {}
    }
    if fault == "slow" {
        for part in bytes.chunks(bytes.len() / 8 + 1) {
            thread::sleep(Duration::from_millis(250));
            let _ = pipe.write_all(part);
        }
        return (Some(pipe), None);
    }
    if pipe.write_all(&bytes).is_err() {
        return (Some(pipe), Some("write |1: broken pipe"));
    }
    match fault {
        "stall" => hang(),
        "die" => die(),
        "truncate" => (Some(pipe), None),
        "cut" => (Some(pipe), Some("unexpected EOF")),
        "corrupt" => (Some(pipe), Some("corrupted blob, expecting sha256:a, got sha256:b")),
        "long" => (Some(pipe), Some("expected 1 bytes in blob, got 2")),
        _ => (Some(pipe), None),
    }
}

fn pipe() -> io::Result<(OwnedFd, File)> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    Ok((read, File::from(write)))
}

/// Appends to a file and returns its new length.
fn append(path: &Path, bytes: &[u8]) -> io::Result<u64> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    file.write_all(bytes)?;
    Ok(file.metadata()?.len())
}

fn hang() -> ! {
    loop {
        thread::park();
    }
}

fn die() -> ! {
    let _ = writeln!(io::stderr(), "level=fatal msg=\"the fake dies\"");
    std::process::exit(1)
}
