//! An image that a client opened: whether deltas give layers of it is found out beside, and they are made when the
//! first of them is asked for.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use oci_spec::image::{Descriptor, MediaType};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Timespec;
use tokio::sync::oneshot;

use super::Settings;
use super::work::{Layer, Made, Making, Shared, State, Work, fallback};
use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::encoding::Encoding;
use crate::engine::request::{FetchRequest, OstreeChoice};
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::reference::Reference;
use crate::scratch::Scratch;
use crate::session::Session;
use crate::store::StoreRef;

/// How long a client waits for it to be found out whether there is a delta. Without one, it waits for nothing.
const SEARCH: Duration = Duration::from_secs(2);
/// How often it is looked whether a client that waits is still there.
const LOOK: Duration = Duration::from_millis(100);
/// How long the work on an image gets to end when nobody wants it any more.
const END: Duration = Duration::from_secs(1);
/// Those that only wrap a tar, so that it passes as fast as it is read: stored blocks, and what zstd does with least.
const STORED: Encoding = Encoding::Gzip(0);
const FASTEST: Encoding = Encoding::Zstd(-7);

/// An image that is open.
#[derive(Debug)]
pub(super) struct Image {
    pub reference: String,
    /// The manifest that skopeo gave the client.
    pub manifest: Option<Digest>,
    /// Has the client asked for the config as ostree-ext does? It takes any encoding of a layer (composefs, which does not,
    /// asks for the config as for any blob).
    pub knows_ostree: bool,
    /// Is the client's own repository filled? Else layers are made aside.
    pub fills: bool,
    opened: Instant,
    shared: Arc<Shared>,
    session: Session,
    pub log: fn(&str),
    /// Are images of this machine in ostree?
    has_ostree: bool,
    /// Begins the work on the layers, also on those that will be no more than tars.
    begin: Option<oneshot::Sender<bool>>,
    /// The layers, while they are made and asked for.
    _dir: Option<Scratch>,
}

/// A blob that is asked for.
#[derive(Debug)]
pub(super) struct Wanted {
    pub digest: Digest,
    /// The bytes that it has for the client, which says so in one of two methods.
    pub size: Option<u64>,
    /// Is it asked for by the method whose clients look at the bytes themselves?
    pub is_raw: bool,
}

/// A layer for the client.
#[derive(Debug)]
pub(super) struct Given {
    pub file: Arc<File>,
    /// As published.
    pub size: u64,
    /// What the file is to be wrapped into; nothing, for the blob that was published.
    pub wrapping: Option<Encoding>,
    pub downloaded: u64,
    pub deltas: Vec<Digest>,
}

impl Image {
    /// Begins to look for deltas.
    ///
    /// # Errors
    /// The system's.
    pub fn open(reference: &str, parsed: Reference, settings: &Settings) -> Result<Self> {
        let fills = matches!(settings.repository, StoreRef::Composefs(_));
        let dir = (!fills).then(|| settings.session.scratch_dir()).transpose()?;
        let request = FetchRequest {
            place: settings.place.clone(),
            base: settings.base.clone(),
            ..FetchRequest::new(parsed, settings.repository.clone())
        };
        // A token of its own: closing one image stops the work for no other.
        let mut session = settings.session.clone();
        session.cancel = Cancel::default();
        let (begin, begun) = oneshot::channel();
        let shared = Arc::<Shared>::default();
        let work = Work {
            session: session.clone(),
            request,
            dir: dir.as_ref().map(|dir| dir.path().join("layers")),
            shared: shared.clone(),
            begun,
            log: settings.log,
        };
        thread::Builder::new().name("deltas".into()).spawn(|| work.run()).at("cannot start a thread")?;
        Ok(Image {
            reference: reference.to_owned(),
            manifest: None,
            knows_ostree: false,
            fills,
            opened: Instant::now(),
            shared,
            session,
            log: settings.log,
            has_ostree: matches!(&settings.base.ostree, OstreeChoice::At(at) | OstreeChoice::IfThere(at) if at.exists()),
            begin: Some(begin),
            _dir: dir,
        })
    }

    /// A layer, as soon as it is made; `None` for one that skopeo gives.
    ///
    /// # Errors
    /// Interrupted, when the client goes meanwhile.
    pub fn layer(&mut self, wanted: &Wanted, client: impl AsFd) -> Result<Option<Given>> {
        self.wait(&client, |state| state.found.is_some())?;
        let takes_tars = self.takes_tars(wanted);
        let will_do = |layer: &Layer| {
            let size = layer.published.size();
            wanted.size.is_none_or(|wanted| wanted == size) && (layer.is_exact || takes_tars)
        };
        let is_given = self
            .shared
            .lock()
            .found
            .as_ref()
            .and_then(|found| found.layers.get(&wanted.digest))
            .is_some_and(will_do);
        if !is_given {
            return Ok(None);
        }
        if let Some(begin) = self.begin.take() {
            // Where it is over already, nothing is made.
            let _ = begin.send(takes_tars);
        }
        let mut given = None;
        self.wait(&client, |state| {
            let Some(found) = &state.found else { return state.is_over };
            match found.layers.get(&wanted.digest) {
                Some(Layer { state: Making::Awaited, .. }) => state.is_over,
                Some(Layer { state: Making::Made(made), published, .. }) => {
                    given = given_of(made.clone(), published, takes_tars)
                        .map(|given| Given { deltas: found.deltas.clone(), ..given });
                    true
                }
                _ => true,
            }
        })?;
        Ok(given)
    }

    /// Does any encoding of the tar do? The image must be the one that skopeo gave, under its policy: what the tar of a
    /// layer is, only the config says.
    fn takes_tars(&self, wanted: &Wanted) -> bool {
        let state = self.shared.lock();
        let manifest = state.found.as_ref().and_then(|found| found.manifest.as_ref());
        self.knows_ostree
            && self.has_ostree
            && !wanted.is_raw
            && manifest.is_some()
            && manifest == self.manifest.as_ref()
    }

    /// Waits until the client's repository is filled, or deltas turn out not to help.
    ///
    /// # Errors
    /// Interrupted, when the client goes meanwhile.
    pub fn filled(&self, client: impl AsFd) -> Result<()> {
        self.wait(client, |state| state.is_over)
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
        drop(self.begin.take());
        let state = self.shared.lock();
        let _ = self.shared.changed.wait_timeout_while(state, END, |state| !state.is_over);
    }
}

/// What is given of a layer that was made; nothing, where the client would not take it.
fn given_of(made: Made, published: &Descriptor, takes_tars: bool) -> Option<Given> {
    let is_exact = made.digest == *published.digest();
    let wrapping = match is_exact {
        true => None,
        false if takes_tars => Some(wrapping(published.media_type())?),
        false => return None,
    };
    let Made { file, downloaded, .. } = made;
    Some(Given { file, size: published.size(), wrapping, downloaded, deltas: Vec::new() })
}

/// How a tar is wrapped to be a layer of this type.
fn wrapping(media_type: &MediaType) -> Option<Encoding> {
    match media_type.to_string() {
        name if name.ends_with("gzip") => Some(STORED),
        name if name.ends_with("zstd") => Some(FASTEST),
        name if name.ends_with("tar") => Some(Encoding::Plain),
        _ => None,
    }
}

fn is_gone(client: impl AsFd) -> bool {
    let mut watched = [PollFd::new(&client, PollFlags::RDHUP)];
    poll(&mut watched, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok()
        && watched[0].revents().intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR)
}
