//! A client of skopeo's image proxy that does what clients may do, and what they should not.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendFlags,
    SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde_json::{Value, json};

use super::running::wait_for;

/// Most bytes of a reply that is read.
const MAX_REPLY: usize = 64 << 10;

/// A client, and the proxy that it started.
pub struct Client {
    socket: OwnedFd,
    pub proxy: Child,
}

/// What a request brought.
#[derive(Debug)]
pub struct Reply {
    pub value: Value,
    pub pipe: u64,
    pub error: String,
    pub files: Vec<File>,
}

impl Client {
    /// Starts the proxy.
    pub fn start(mut command: Command) -> Self {
        let (socket, its) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let proxy = command.stdin(Stdio::from(its)).spawn().unwrap();
        let client = Client { socket, proxy };
        client.ask("Initialize", json!([]));
        client
    }

    /// Opens an image and reads its manifest.
    pub fn open(&self, reference: &str) -> u64 {
        let image = self.ask("OpenImage", json!([reference])).value.as_u64().unwrap();
        self.read(self.ask("GetManifest", json!([image])));
        image
    }

    /// The same, and its config, as ostree-ext does.
    pub fn open_for_ostree(&self, reference: &str) -> u64 {
        let image = self.open(reference);
        self.read(self.ask("GetFullConfig", json!([image])));
        image
    }

    /// Sends a request; whatever it brings, also an error.
    pub fn try_ask(&self, method: &str, args: Value) -> Option<Reply> {
        let request = json!({ "method": method, "args": args }).to_string();
        let mut none = SendAncillaryBuffer::default();
        sendmsg(&self.socket, &[IoSlice::new(request.as_bytes())], &mut none, SendFlags::NOSIGNAL).ok()?;
        let mut bytes = vec![0; MAX_REPLY];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut rights = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let received = recvmsg(&self.socket, &mut parts, &mut rights, RecvFlags::CMSG_CLOEXEC).ok()?;
        let mut files = Vec::new();
        for message in rights.drain() {
            if let RecvAncillaryMessage::ScmRights(given) = message {
                files.extend(given.map(File::from));
            }
        }
        let reply: Value = serde_json::from_slice(&bytes[..received.bytes]).ok()?;
        let error = reply["error"].as_str().unwrap_or_default().to_owned();
        assert_eq!(reply["success"], error.is_empty(), "{method}: {reply}");
        Some(Reply { value: reply["value"].clone(), pipe: reply["pipeid"].as_u64().unwrap(), error, files })
    }

    /// Sends a request that goes well.
    pub fn ask(&self, method: &str, args: Value) -> Reply {
        let reply = self.try_ask(method, args).expect("the proxy is there");
        assert_eq!(reply.error, "", "{method}");
        reply
    }

    /// Reads the pipe of a reply until `FinishPipe` ends it.
    pub fn read(&self, reply: Reply) -> Vec<u8> {
        let [mut file] = <[File; 1]>::try_from(reply.files).unwrap();
        std::thread::scope(|scope| {
            let reading = scope.spawn(move || {
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes).unwrap();
                bytes
            });
            self.ask("FinishPipe", json!([reply.pipe]));
            reading.join().unwrap()
        })
    }

    /// Goes away, as when it is killed, and waits for the proxy, whose exit code it gives.
    pub fn vanish(self) -> Option<i32> {
        let Client { socket, mut proxy } = self;
        drop(socket);
        let pid = proxy.id();
        let ended =
            || std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z"));
        wait_for("the proxy to end", ended);
        proxy.wait().unwrap().code()
    }
}
