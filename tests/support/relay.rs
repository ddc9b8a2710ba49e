//! A relay between a client and a registry without TLS, that counts what passes.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What passed so far.
#[derive(Debug, Default)]
pub struct Counts {
    pub requests: AtomicU64,
    /// Bytes of answers, heads included.
    pub bytes: AtomicU64,
}

#[derive(Debug)]
pub struct Relay {
    pub address: String,
    counts: Arc<Counts>,
}

impl Relay {
    /// To the registry at `target`, for as long as the process lives.
    pub fn to(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let counts = Arc::new(Counts::default());
        let (shared, target) = (counts.clone(), target.to_owned());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (counts, target) = (shared.clone(), target.clone());
                std::thread::spawn(move || pass(client, &target, &counts));
            }
        });
        Relay { address, counts }
    }

    pub fn reference(&self, name: &str) -> String {
        format!("docker://{}/{name}", self.address)
    }

    /// Requests and bytes since the last call.
    pub fn take(&self) -> (u64, u64) {
        (self.counts.requests.swap(0, Ordering::SeqCst), self.counts.bytes.swap(0, Ordering::SeqCst))
    }
}

fn pass(client: TcpStream, target: &str, counts: &Arc<Counts>) {
    let Ok(server) = TcpStream::connect(target) else { return };
    let (from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let upward = counts.clone();
    std::thread::spawn(move || {
        copy(from, &mut to, |bytes| {
            let requests = bytes.windows(11).filter(|w| w == b" HTTP/1.1\r\n").count();
            upward.requests.fetch_add(requests as u64, Ordering::SeqCst);
        });
    });
    let mut client = client;
    copy(server, &mut client, |bytes| {
        counts.bytes.fetch_add(bytes.len() as u64, Ordering::SeqCst);
    });
}

fn copy(mut from: TcpStream, to: &mut TcpStream, see: impl Fn(&[u8])) {
    let mut buf = [0; 64 << 10];
    while let Ok(n) = from.read(&mut buf) {
        if n == 0 {
            break;
        }
        see(&buf[..n]);
        if to.write_all(&buf[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
