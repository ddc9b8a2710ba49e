//! Packets of the protocol: one JSON document each, and the descriptors that come along.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use crate::error::{Error, IoContext as _, Result};

/// Most bytes of a request, as skopeo has it (its `maxMsgSize`).
pub(super) const MAX_REQUEST: usize = 32 << 10;

/// Most bytes of a reply: skopeo has no limit for them, but a socket takes no larger packet (`wmem_default` of Linux).
pub(super) const MAX_REPLY: usize = 256 << 10;

/// Most descriptors of a packet; the protocol knows two.
const MAX_DESCRIPTORS: usize = 8;

/// What one side says.
#[derive(Debug)]
pub(super) struct Packet {
    pub bytes: Vec<u8>,
    pub descriptors: Vec<OwnedFd>,
}

/// Waits for a packet of at most `most` bytes; `None` when the other side is gone.
///
/// # Errors
/// Verification for a packet that is too large; the system's.
pub(super) fn receive(socket: impl AsFd, most: usize) -> Result<Option<Packet>> {
    let mut bytes = vec![0; most];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut rights = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        match recvmsg(&socket, &mut parts, &mut rights, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            received => break received.map_err(std::io::Error::from).at("image proxy")?,
        }
    };
    let mut descriptors = Vec::new();
    for message in rights.drain() {
        if let RecvAncillaryMessage::ScmRights(files) = message {
            descriptors.extend(files);
        }
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(Error::verification(format!(
            "image proxy: a packet of more than {most} bytes or {MAX_DESCRIPTORS} descriptors"
        )));
    }
    bytes.truncate(received.bytes);
    Ok((received.bytes > 0).then_some(Packet { bytes, descriptors }))
}

/// Sends a packet; says whether the other side is still there.
///
/// # Errors
/// The system's.
pub(super) fn send(socket: impl AsFd, packet: &Packet) -> Result<bool> {
    let files: Vec<_> = packet.descriptors.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut rights = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() && !rights.push(SendAncillaryMessage::ScmRights(&files)) {
        return Err(Error::local(format!("image proxy: {} descriptors in one packet", files.len())));
    }
    loop {
        match sendmsg(&socket, &[IoSlice::new(&packet.bytes)], &mut rights, SendFlags::NOSIGNAL) {
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => return Ok(false),
            sent => return sent.map(|_| true).map_err(std::io::Error::from).at("image proxy"),
        }
    }
}
