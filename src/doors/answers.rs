//! What deltas give of an image that the client opened, and the answers that come of it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, PipeWriter, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Timespec;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Builder;

use super::wire::Packet;
use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::engine::aside::{Aside, AsideLayer, ByDelta, has_bases};
use crate::engine::request::{BaseChoice, FetchRequest, PlaceOptions};
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::reference::Reference;
use crate::session::Session;
use crate::store::StoreRef;

/// How long a client waits for it to be found out whether there is a delta. Without one, it waits for nothing.
const SEARCH: Duration = Duration::from_secs(2);

/// How often it is looked whether a client that waits is still there.
const LOOK: Duration = Duration::from_millis(100);

/// How long the work on an image gets to end when nobody wants it any more.
const END: Duration = Duration::from_secs(1);

/// Most images for which deltas are sought at once; clients open one or two.
const MAX_IMAGES: usize = 8;

/// Most blobs of ours that are on their way; clients ask for as many as there are cores.
const MAX_PIPES: usize = 256;

/// Where numbers of our pipes begin: those of skopeo are descriptors, which are far below.
const FIRST_PIPE: u32 = 1 << 30;

/// What deltas are looked for with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How registries are reached.
    pub place: PlaceOptions,
    /// Which bases there are beside `repository`.
    pub base: BaseChoice,
    /// A composefs repository that the client fills, or a layout with bases; `None`: neither.
    pub repository: Option<StoreRef>,
    /// Stops the work; where files may be put.
    pub session: Session,
    /// Is told of each answer from a delta, and why there is none, in a line of JSON.
    pub log: fn(&str),
}

/// Answers from deltas.
#[derive(Debug)]
pub(super) struct Answers {
    settings: Option<Settings>,
    /// By the numbers that skopeo gave them.
    images: HashMap<u64, Image>,
    pipes: HashMap<u32, JoinHandle<io::Result<u64>>>,
    next_pipe: u32,
}

/// An image that is open.
#[derive(Debug)]
struct Image {
    reference: String,
    opened: Instant,
    shared: Arc<Shared>,
    session: Session,
    log: fn(&str),
    /// Is the client's own repository filled? Else layers are made aside.
    fills: bool,
    /// The layers, while they are made and asked for.
    _dir: Option<TempDir>,
}

/// What the thread that works on it has come to.
#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// What deltas give; `None` while that is not known.
    found: Option<Found>,
    /// Is nothing more to come?
    is_over: bool,
}

#[derive(Debug, Default)]
struct Found {
    layers: HashMap<Digest, AsideLayer>,
    deltas: Vec<Digest>,
}

/// A blob that is asked for.
struct Wanted {
    image: u64,
    digest: Digest,
    /// The bytes that it has for the client, which says so in one of two methods.
    size: Option<u64>,
}

impl Answers {
    /// None, where it is not known how a registry is reached: then everything is skopeo's.
    pub fn new(settings: Option<Settings>) -> Self {
        Answers { settings, images: HashMap::new(), pipes: HashMap::new(), next_pipe: FIRST_PIPE }
    }

    /// The answer to a request, where it is not skopeo's. `client` is looked at while it waits.
    ///
    /// # Errors
    /// Interrupted, when it goes meanwhile; the system's.
    pub fn to(&mut self, request: &Value, client: impl AsFd) -> Result<Option<Packet>> {
        let arguments = &request["args"];
        match request["method"].as_str() {
            Some("GetManifest") => {
                let image = arguments[0].as_u64().and_then(|id| self.images.get(&id));
                if let Some(image) = image.filter(|image| image.fills) {
                    image.wait(client, |state| state.is_over)?;
                }
                Ok(None)
            }
            Some(method @ ("GetBlob" | "GetRawBlob")) => match Wanted::read(arguments) {
                Some(wanted) => self.blob(&wanted, method == "GetRawBlob", client),
                None => Ok(None),
            },
            Some("FinishPipe") => {
                let pipe = arguments[0].as_u64().and_then(|id| u32::try_from(id).ok());
                Ok(pipe.and_then(|id| self.pipes.remove(&id)).map(finished))
            }
            Some("CloseImage") => {
                drop(arguments[0].as_u64().and_then(|id| self.images.remove(&id)));
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    /// Takes note of skopeo's reply to a request.
    pub fn note(&mut self, request: &Value, reply: &[u8]) {
        let is_open = matches!(request["method"].as_str(), Some("OpenImage" | "OpenImageOptional"));
        let Some(settings) = self.settings.as_ref().filter(|_| is_open) else { return };
        let reply: Value = serde_json::from_slice(reply).unwrap_or_default();
        let (Some(id), Some(reference)) = (reply["value"].as_u64(), request["args"][0].as_str()) else {
            return;
        };
        if reply["success"] != true || id == 0 || self.images.len() >= MAX_IMAGES {
            return;
        }
        // Not from a registry, it has no deltas; what cannot be begun is skopeo's.
        if let Ok(parsed @ Reference::Docker { .. }) = reference.parse()
            && let Ok(image) = Image::open(reference, parsed, settings)
        {
            self.images.insert(id, image);
        }
    }

    /// The reply with a layer that a delta gave.
    fn blob(&mut self, wanted: &Wanted, is_raw: bool, client: impl AsFd) -> Result<Option<Packet>> {
        let Some(image) = self.images.get(&wanted.image).filter(|_| self.pipes.len() < MAX_PIPES) else {
            return Ok(None);
        };
        let Some((layer, deltas)) = image.layer(wanted, client)? else { return Ok(None) };
        let size = layer.published.size();
        let Ok(file) = File::open(&layer.place) else { return Ok(None) };
        let (reader, writer) = io::pipe().at("cannot make a pipe")?;
        let (fault, told) = io::pipe().at("cannot make a pipe")?;
        let pass = move || pass(file, writer, is_raw.then_some(told));
        let writing = thread::Builder::new().spawn(pass).at("cannot start a thread")?;
        (image.log)(
            &json!({
                "event": "delta-answer",
                "image": image.reference,
                "blob": wanted.digest.to_string(),
                "bytes": size,
                "downloaded_bytes": layer.download_bytes,
                "saved_bytes": size.saturating_sub(layer.download_bytes),
                "deltas": texts(&deltas),
            })
            .to_string(),
        );
        if is_raw {
            return Ok(Some(reply(json!(size), 0, vec![reader.into(), fault.into()])));
        }
        let pipe = self.next_pipe;
        self.next_pipe = pipe.checked_add(1).unwrap_or(FIRST_PIPE);
        self.pipes.insert(pipe, writing);
        Ok(Some(reply(json!(size), pipe, vec![reader.into()])))
    }
}

impl Image {
    /// Begins to look for deltas.
    fn open(reference: &str, parsed: Reference, settings: &Settings) -> Result<Self> {
        let fills = settings.repository.as_ref().filter(|repo| matches!(repo, StoreRef::Composefs(_)));
        let dir = match fills {
            None => Some(tempfile::tempdir_in(&settings.session.spool).at(settings.session.spool.display())?),
            Some(_) => None,
        };
        let aside = || dir.as_ref().map(|dir| StoreRef::Layout(dir.path().join("layers")));
        let repository = fills.cloned().or_else(aside).ok_or_else(|| Error::local("no place for layers"))?;
        let mut request = FetchRequest {
            place: settings.place.clone(),
            base: settings.base.clone(),
            ..FetchRequest::new(parsed, repository)
        };
        if fills.is_none() {
            request.base.repository = settings.repository.clone();
        }
        // A token of its own: closing one image stops the work for no other.
        let mut session = settings.session.clone();
        session.cancel = Cancel::default();
        let shared = Arc::<Shared>::default();
        let (told, name, working) = (shared.clone(), reference.to_owned(), session.clone());
        let fills = fills.is_some();
        let log = settings.log;
        let work = move || {
            match work(&working, &request, fills, &told, log) {
                Err(e) if e.kind() != Kind::Interrupted => {
                    log(&fallback(&name, &e.to_string()));
                }
                _ => {}
            }
            told.change(|state| {
                state.is_over = true;
                state.found.get_or_insert_default();
            });
        };
        thread::Builder::new().name("deltas".into()).spawn(work).at("cannot start a thread")?;
        Ok(Image {
            reference: reference.to_owned(),
            opened: Instant::now(),
            shared,
            session,
            log,
            fills,
            _dir: dir,
        })
    }

    /// The layer, as soon as it is made; and the deltas that gave it.
    fn layer(&self, wanted: &Wanted, client: impl AsFd) -> Result<Option<(AsideLayer, Vec<Digest>)>> {
        let mut found = None;
        self.wait(client, |state| {
            let Some(all) = &state.found else { return false };
            let layer = all.layers.get(&wanted.digest);
            let layer = layer.filter(|layer| wanted.size.is_none_or(|size| size == layer.published.size()));
            let Some(layer) = layer else { return true };
            if layer.place.exists() {
                found = Some((layer.clone(), all.deltas.clone()));
            }
            found.is_some() || state.is_over
        })?;
        Ok(found)
    }

    /// Waits until it is so, or until the search has taken too long.
    fn wait(&self, client: impl AsFd, mut so: impl FnMut(&State) -> bool) -> Result<()> {
        let mut state = self.shared.lock();
        loop {
            if so(&state) {
                return Ok(());
            }
            if state.found.is_none() && self.opened.elapsed() >= SEARCH {
                self.session.cancel.cancel();
                drop(state);
                let reason = format!("not found out within {} seconds", SEARCH.as_secs());
                (self.log)(&fallback(&self.reference, &reason));
                return Ok(());
            }
            state = match self.shared.changed.wait_timeout(state, LOOK) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
            if is_gone(&client) {
                return Err(Error::new(Kind::Interrupted, "the client is gone"));
            }
        }
    }
}

impl Drop for Image {
    /// What works here ends before its directory goes.
    fn drop(&mut self) {
        self.session.cancel.cancel();
        let state = self.shared.lock();
        let _ = self.shared.changed.wait_timeout_while(state, END, |state| !state.is_over);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }
}

impl Wanted {
    fn read(arguments: &Value) -> Option<Self> {
        let digest = arguments[1].as_str()?.parse().ok()?;
        Some(Wanted { image: arguments[0].as_u64()?, digest, size: arguments[2].as_u64() })
    }
}

/// Looks what deltas give, tells it, and makes that.
fn work(
    session: &Session,
    request: &FetchRequest,
    fills: bool,
    shared: &Shared,
    log: fn(&str),
) -> Result<()> {
    if !has_bases(session, request)? {
        return Ok(());
    }
    let runtime = Builder::new_current_thread().enable_all().build().at("cannot start")?;
    runtime.block_on(async {
        if fills {
            let Some(image) = ByDelta::look(session, request).await? else { return Ok(()) };
            shared.change(|state| state.found = Some(Found::default()));
            let outcome = image.fetch().await?;
            log(&json!({
                "event": "delta-filled",
                "image": request.reference.to_string(),
                "repository": request.repository.to_string(),
                "downloaded_bytes": outcome.bytes.downloaded,
                "saved_bytes": outcome.bytes.plain_pull.saturating_sub(outcome.bytes.downloaded),
                "deltas": texts(&outcome.deltas),
            })
            .to_string());
            return Ok(());
        }
        let Some(aside) = Aside::look(session, request).await? else { return Ok(()) };
        let layers = aside.layers().into_iter().map(|layer| (layer.published.digest().clone(), layer));
        let (layers, deltas) = (layers.collect(), aside.deltas());
        shared.change(|state| state.found = Some(Found { layers, deltas }));
        aside.make().await
    })
}

/// The line that says why a layer does not come from a delta.
fn fallback(image: &str, reason: &str) -> String {
    json!({ "event": "delta-fallback", "image": image, "reason": reason }).to_string()
}

fn texts(digests: &[Digest]) -> Vec<String> {
    digests.iter().map(ToString::to_string).collect()
}

/// Writes a file into a pipe; what goes wrong, into the one for errors, if there is one.
fn pass(mut file: File, mut pipe: PipeWriter, fault: Option<PipeWriter>) -> io::Result<u64> {
    let passed = io::copy(&mut file, &mut pipe);
    if let (Err(e), Some(mut fault)) = (&passed, fault) {
        let code = if e.kind() == io::ErrorKind::BrokenPipe { "EPIPE" } else { "other" };
        // Where nobody reads it, nobody wants it.
        let _ = write!(fault, "{}", json!({ "code": code, "message": e.to_string() }));
    }
    passed
}

/// The reply to `FinishPipe`.
fn finished(writing: JoinHandle<io::Result<u64>>) -> Packet {
    let error = match writing.join() {
        Ok(Ok(_)) => return reply(Value::Null, 0, Vec::new()),
        // In the words of skopeo, by which clients know that it was they who went.
        Ok(Err(e)) if e.kind() == io::ErrorKind::BrokenPipe => "write |1: broken pipe".to_owned(),
        Ok(Err(e)) => e.to_string(),
        Err(_) => "the transfer failed".to_owned(),
    };
    packet(&json!({ "success": false, "value": null, "pipeid": 0, "error": error }), Vec::new())
}

fn reply(value: Value, pipe: u32, descriptors: Vec<OwnedFd>) -> Packet {
    packet(&json!({ "success": true, "value": value, "pipeid": pipe, "error": "" }), descriptors)
}

fn packet(document: &Value, descriptors: Vec<OwnedFd>) -> Packet {
    Packet { bytes: document.to_string().into_bytes(), descriptors }
}

fn is_gone(client: impl AsFd) -> bool {
    let mut watched = [PollFd::new(&client, PollFlags::RDHUP)];
    poll(&mut watched, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok()
        && watched[0].revents().intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR)
}
