//! Which skopeo is there, and what its image proxy speaks.

use std::io::Read as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use serde_json::Value;

use crate::error::{Error, IoContext as _, Result};

/// How long a look at skopeo may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of its version that are read.
const MAX_VERSION: u64 = 4096;

/// What a skopeo says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skopeo {
    /// The last word of `skopeo --version`, but for a commit.
    pub version: String,
    /// Of its image proxy.
    pub protocol: String,
}

/// Asks `program`. Blocks.
///
/// # Errors
/// Local when it cannot be started, or is no skopeo with an image proxy.
pub fn probe(program: &Path) -> Result<Skopeo> {
    let name = &program.display();
    let mut child = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .at(name)?;
    let mut text = String::new();
    if let Some(out) = child.stdout.take() {
        out.take(MAX_VERSION).read_to_string(&mut text).at(name)?;
    }
    child.wait().at(name)?;
    let mut words = text.split_whitespace().skip_while(|word| *word != "version");
    let version = words.nth(1).unwrap_or_default().to_owned();
    if version.is_empty() {
        return Err(Error::local(format!("{name}: says no version of skopeo")));
    }
    Ok(Skopeo { version, protocol: protocol(program)? })
}

fn protocol(program: &Path) -> Result<String> {
    let name = &program.display();
    let (ours, its) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(std::io::Error::from)
        .at(name)?;
    let ours = UnixDatagram::from(ours);
    ours.set_read_timeout(Some(PATIENCE)).at(name)?;
    let mut child = Command::new(program)
        .arg("experimental-image-proxy")
        .stdin(Stdio::from(its))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .at(name)?;
    let mut answer = vec![0; 32 << 10];
    let said = ours.send(br#"{"method":"Initialize","args":[]}"#).and_then(|_| ours.recv(&mut answer));
    // It may have ended by itself.
    let _ = child.kill();
    child.wait().at(name)?;
    let answer: Option<Value> = said.ok().and_then(|n| serde_json::from_slice(&answer[..n]).ok());
    let protocol = answer.as_ref().and_then(|answer| answer["value"].as_str());
    protocol.map(str::to_owned).ok_or_else(|| Error::local(format!("{name}: has no image proxy")))
}
