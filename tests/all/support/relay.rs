//! A relay between a client and a registry without TLS, that counts what passes and can break it.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What passed so far.
#[derive(Debug, Default)]
pub struct Counts {
    pub requests: AtomicU64,
    /// Bytes of answers, heads included.
    pub bytes: AtomicU64,
    /// Answers that were cut.
    pub cuts: AtomicU64,
}

/// What happens to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// The answer ends after so many bytes.
    Cut(usize),
    /// The same, if no answer was cut before.
    FirstCut(usize),
    /// Nothing more comes after so many bytes.
    Stall(usize),
    /// 16 KiB come every 50 ms, so that a transfer can be met at work.
    Slow,
    /// This answer comes at once in place of the registry's.
    Status(&'static str),
}

/// Chooses the fault of each connection, by its number.
type Faults = Arc<dyn Fn(u64) -> Fault + Send + Sync>;
/// Sees each request before the registry does; what it gives is the answer instead.
type Watch = Arc<dyn Fn(&str) -> Option<Vec<u8>> + Send + Sync>;

#[derive(Debug)]
pub struct Relay {
    pub address: String,
    counts: Arc<Counts>,
}

impl Relay {
    /// To the registry at `target`, for as long as the process lives.
    pub fn to(target: &str) -> Self {
        Self::faulty(target, |_| Fault::None)
    }

    /// The same with faults.
    pub fn faulty(target: &str, faults: impl Fn(u64) -> Fault + Send + Sync + 'static) -> Self {
        Self::watched(target, faults, |_| None)
    }

    /// The same, with requests that are seen, or answered, by `watch`.
    pub fn watched(
        target: &str,
        faults: impl Fn(u64) -> Fault + Send + Sync + 'static,
        watch: impl Fn(&str) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        let (faults, watch): (Faults, Watch) = (Arc::new(faults), Arc::new(watch));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let counts = Arc::new(Counts::default());
        let (shared, target) = (counts.clone(), target.to_owned());
        std::thread::spawn(move || {
            for (number, client) in listener.incoming().flatten().enumerate() {
                let (counts, target, watch) = (shared.clone(), target.clone(), watch.clone());
                let fault = faults(number as u64);
                std::thread::spawn(move || pass(client, &target, &counts, fault, watch));
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

    /// Bytes since the last call of [`take`](Self::take).
    pub fn bytes(&self) -> u64 {
        self.counts.bytes.load(Ordering::SeqCst)
    }

    /// Cuts so far.
    pub fn cuts(&self) -> u64 {
        self.counts.cuts.load(Ordering::SeqCst)
    }
}

fn pass(mut client: TcpStream, target: &str, counts: &Arc<Counts>, fault: Fault, watch: Watch) {
    if let Fault::Status(status) = fault {
        let mut request = [0; 4096];
        let _ = client.read(&mut request);
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        let _ = client.write_all(answer.as_bytes());
        return;
    }
    let Ok(server) = TcpStream::connect(target) else { return };
    let (from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let upward = counts.clone();
    std::thread::spawn(move || {
        copy(from, &mut to, |bytes| {
            let requests = bytes.windows(11).filter(|w| w == b" HTTP/1.1\r\n").count();
            upward.requests.fetch_add(requests as u64, Ordering::SeqCst);
            if requests > 0 { watch(&String::from_utf8_lossy(bytes)) } else { None }
        });
    });
    let mut left = match fault {
        Fault::Cut(bytes) | Fault::FirstCut(bytes) | Fault::Stall(bytes) => bytes,
        _ => usize::MAX,
    };
    let mut buf = vec![0; if fault == Fault::Slow { 16 << 10 } else { 64 << 10 }];
    let mut server = server;
    while let Ok(n) = server.read(&mut buf) {
        if fault == Fault::Slow {
            std::thread::sleep(Duration::from_millis(50));
        }
        if matches!(fault, Fault::FirstCut(_)) && counts.cuts.load(Ordering::SeqCst) > 0 {
            left = usize::MAX;
        }
        let n = n.min(left);
        if n == 0 || client.write_all(&buf[..n]).is_err() {
            break;
        }
        counts.bytes.fetch_add(n as u64, Ordering::SeqCst);
        left -= n;
        if left == 0 {
            counts.cuts.fetch_add(1, Ordering::SeqCst);
            if matches!(fault, Fault::Stall(_)) {
                std::thread::sleep(Duration::from_secs(30));
            }
            break;
        }
    }
    let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
}

fn copy(mut from: TcpStream, to: &mut TcpStream, see: impl Fn(&[u8]) -> Option<Vec<u8>>) {
    let mut buf = [0; 64 << 10];
    while let Ok(n) = from.read(&mut buf) {
        if n == 0 {
            break;
        }
        if let Some(answer) = see(&buf[..n]) {
            let _ = from.write_all(&answer);
            let _ = from.shutdown(Shutdown::Both);
            break;
        }
        if to.write_all(&buf[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
