//! Between a client and the real skopeo: every packet goes on with its descriptors.

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Timespec;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::Value;

use super::answers::Answers;
use super::wire::{self, MAX_REPLY, MAX_REQUEST};
use super::{SUBCOMMAND, real};
use crate::child::{self, Gifts};
use crate::error::{Error, IoContext as _, Kind, Result};

/// How long skopeo gets to end when its client is gone.
const PATIENCE: Duration = Duration::from_secs(2);

/// The real skopeo as an image proxy.
#[derive(Debug)]
pub(super) struct Skopeo {
    socket: OwnedFd,
    process: Child,
}

/// Who has something to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Skopeo,
}

impl Skopeo {
    /// Starts it with these arguments. It ends with us.
    ///
    /// # Errors
    /// When there is none, or it cannot be started.
    pub fn start(arguments: &[OsString]) -> Result<Self> {
        let (ours, its) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(std::io::Error::from)
            .at("cannot make a socket")?;
        let mut command = real::command()?;
        if !arguments.iter().any(|argument| argument == SUBCOMMAND) {
            command.arg(SUBCOMMAND);
        }
        command.args(arguments).stdin(Stdio::from(its));
        child::bind(&mut command, Gifts::default());
        let process = command.spawn().at(format_args!("cannot start {}", command.get_program().display()))?;
        Ok(Skopeo { socket: ours, process })
    }

    pub fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// Waits for its end, once its client is gone; killed where that takes long.
    ///
    /// # Errors
    /// When it ended with a failure.
    pub fn end(self) -> Result<()> {
        let Skopeo { socket, mut process } = self;
        drop(socket);
        let handle = Pid::from_raw(process.id() as i32).map(|pid| pidfd_open(pid, PidfdFlags::empty()));
        if let Some(Ok(handle)) = handle {
            let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
            let ended = poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&patience));
            if ended != Ok(1) {
                process.kill().at("skopeo")?;
            }
        }
        let status = process.wait().at("skopeo")?;
        // Killed by us, it has no code.
        match status.code() {
            Some(0) | None => Ok(()),
            Some(_) => Err(Error::local(format!("skopeo ended with {status}"))),
        }
    }
}

/// Waits until one side says something or is gone; skopeo first, whose word may be that it ends.
///
/// # Errors
/// The system's.
pub(super) fn wait(client: impl AsFd, skopeo: impl AsFd) -> Result<Side> {
    let mut both = [PollFd::new(&skopeo, PollFlags::IN), PollFd::new(&client, PollFlags::IN)];
    loop {
        match poll(&mut both, None) {
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(Error::from_io(e.into(), "image proxy")),
            Ok(_) if !both[0].revents().is_empty() => return Ok(Side::Skopeo),
            Ok(_) => return Ok(Side::Client),
        }
    }
}

/// Hands everything on, both ways, until one side is gone; but for what there is an answer to.
///
/// # Errors
/// What the real skopeo ends with; packets that are too large; the system's.
pub(super) fn run(client: &OwnedFd, skopeo: Skopeo, mut answers: Answers) -> Result<()> {
    // One request, one reply: the protocol knows no others.
    let mut asked = Value::Null;
    loop {
        let goes_on = match wait(client, skopeo.socket())? {
            Side::Client => {
                let Some(packet) = wire::receive(client, MAX_REQUEST)? else { break };
                asked = serde_json::from_slice(&packet.bytes).unwrap_or_default();
                match answers.to(&asked, client) {
                    Ok(Some(answer)) => wire::send(client, &answer)?,
                    Ok(None) => wire::send(skopeo.socket(), &packet)?,
                    Err(e) if e.kind() == Kind::Interrupted => break,
                    Err(e) => return Err(e),
                }
            }
            Side::Skopeo => {
                let Some(packet) = wire::receive(skopeo.socket(), MAX_REPLY)? else { break };
                answers.note(&asked, &packet.bytes);
                wire::send(client, &packet)?
            }
        };
        if !goes_on {
            break;
        }
    }
    drop(answers);
    skopeo.end()
}
