//! A read-only mirror of registries for container engines on this machine. Changed layers are made from deltas,
//! exactly as they were published; everything else is passed on.
//!
//! ```text
//! podman, CRI-O ─ registries.conf ─┐
//! containerd ──── hosts.toml ──────┼─► door ─┬─ manifest: passed on; deltas for it are looked up beside
//! Docker ──────── registry-mirrors ┘         ├─ changed layer: the registry is asked whether this client may have it,
//!                                            │    then it is sent while it is made (engine::offer), or from the cache
//!                                            └─ everything else: passed on, in the client's name
//! ```
//!
//! A client's credentials go to the registry that it means, and nobody else's are used for it. Requests never go
//! through skopeo, whose registries.conf may name us.

mod along;
mod asked;
mod body;
mod deltas;
mod door;
mod log;
mod pace;
pub mod print;
mod route;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::engine::offer::Workshop;
use crate::engine::request::FetchRequest;
use crate::error::{Advice, Error, IoContext as _, Result};
use crate::fetch::on_thread;
use crate::registry::Guests;
use crate::session::Session;
use crate::store::BlobCache;
use deltas::Deltas;
use door::Door;
pub use log::{Line, Log};
use pace::Paced;
use route::Upstreams;

/// Connections at once; an engine makes six or so for a pull. Others wait until one ends.
const MAX_CONNECTIONS: usize = 256;
/// Bytes of a request's head.
const MAX_HEAD: usize = 32 << 10;
/// Headers of a request.
const MAX_HEADERS: usize = 64;
/// How long a client may take for the head of its request, and how long a connection may be idle.
const HEAD_TIME: Duration = Duration::from_secs(30);
/// How long a client may read nothing of its answer.
const WRITE_TIME: Duration = Duration::from_secs(60);
/// How long answers that are under way may take when we are to end.
const LAST: Duration = Duration::from_millis(1500);
/// How often what nobody wants any more is let go.
const TIDY: Duration = Duration::from_secs(60);
/// Pause after a connection could not be taken, as without free descriptors.
const BREATH: Duration = Duration::from_millis(100);

/// How a mirror is to be.
#[derive(Debug, Clone)]
pub struct ServeRequest {
    /// How images are fetched; its reference does not matter, and its repository and base choice say where bases are.
    pub fetch: FetchRequest,
    /// Hosts of registries that may be asked; any that a client names, where there are none.
    pub upstreams: Vec<String>,
    /// Where rebuilt layers are kept.
    pub cache: PathBuf,
    /// Most bytes of them.
    pub cache_size: u64,
}

impl ServeRequest {
    /// Refuses what would open more than this machine's users expect.
    ///
    /// # Errors
    /// Usage.
    pub fn check(&self, address: SocketAddr) -> Result<()> {
        if self.upstreams.is_empty() && !address.ip().is_loopback() {
            return Err(Error::usage(format!(
                "on {address} others could reach any registry through this machine, also those of its own network"
            ))
            .with_hint(Advice::NameUpstreams));
        }
        Ok(())
    }
}

/// Serves until the session is stopped.
///
/// # Errors
/// Usage as [`ServeRequest::check`]; Local where the cache cannot be used, or nobody can be listened to.
pub async fn serve(
    session: &Session,
    request: ServeRequest,
    listener: std::net::TcpListener,
    log: Log,
) -> Result<()> {
    let address = listener.local_addr().at("the socket to listen on")?;
    request.check(address)?;
    listener.set_nonblocking(true).at(address)?;
    let listener = TcpListener::from_std(listener).at(address)?;
    let ServeRequest { fetch, upstreams, cache, cache_size } = request;
    let cache = on_thread(move || BlobCache::open(&cache, cache_size)).await?;
    let guests = Guests::new(&fetch.place.proxy);
    let works = Workshop::new(Arc::new(cache));
    let deltas = Arc::new(Deltas::new(session, works, fetch, log));
    let own = vec![address.to_string(), format!("localhost:{}", address.port())];
    let door = Arc::new(Door {
        guests,
        upstreams: Upstreams { allowed: upstreams, own },
        deltas: deltas.clone(),
        only_loopback: address.ip().is_loopback(),
        repositories: Mutex::default(),
        rate: Mutex::default(),
    });
    session.say(&format!("serving on {address}"));
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    let mut tidy = tokio::time::interval(TIDY);
    loop {
        tokio::select! {
            biased;
            () = session.cancel.cancelled() => break,
            _ = tidy.tick() => deltas.tidy(),
            Some(_) = connections.join_next() => {}
            place = places.clone().acquire_owned() => {
                let taken = tokio::select! {
                    biased;
                    () = session.cancel.cancelled() => break,
                    taken = listener.accept() => taken,
                };
                match taken {
                    Ok((stream, _)) => {
                        let connection = connection(session.clone(), door.clone(), stream);
                        connections.spawn(async move {
                            connection.await;
                            drop(place);
                        });
                    }
                    Err(_) => tokio::time::sleep(BREATH).await,
                }
            }
        }
    }
    let all = async { while connections.join_next().await.is_some() {} };
    // Who is cut off goes on elsewhere.
    let _ = tokio::time::timeout(LAST, all).await;
    Ok(())
}

async fn connection(session: Session, door: Arc<Door>, stream: TcpStream) {
    // Answers go in large pieces, and none should wait for the next.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| door.clone().answer(request));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD);
    let stream = TokioIo::new(Paced::new(stream, WRITE_TIME));
    let connection = http.serve_connection(stream, service);
    tokio::pin!(connection);
    // What goes wrong with a client is its own matter.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = session.cancel.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}
