//! Answers to the requests for which there is a better one than skopeo's.

use std::collections::HashMap;
use std::io::{self, PipeWriter, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use serde_json::{Value, json};

use super::Settings;
use super::image::{Given, Image, Wanted};
use super::wire::Packet;
use super::work::texts;
use crate::encoding::EncodingWriter;
use crate::error::{IoContext as _, Result};
use crate::reference::Reference;
use crate::region::Region;

/// Most images for which deltas are sought at once; clients open one or two.
const MAX_IMAGES: usize = 8;
/// Most blobs of ours that are on their way; clients ask for as many as there are cores.
const MAX_PIPES: usize = 256;
/// Where numbers of our pipes begin: those of skopeo are descriptors, which are far below.
const FIRST_PIPE: u32 = 1 << 30;
/// Bytes that are wrapped at once.
const PIECE: usize = 256 << 10;

/// Answers from deltas.
#[derive(Debug)]
pub(super) struct Answers {
    settings: Option<Settings>,
    /// By the numbers that skopeo gave them.
    images: HashMap<u64, Image>,
    pipes: HashMap<u32, JoinHandle<io::Result<u64>>>,
    next_pipe: u32,
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
        let number = arguments[0].as_u64();
        match request["method"].as_str() {
            Some("GetManifest") => {
                if let Some(image) = number.and_then(|id| self.images.get(&id)).filter(|image| image.fills) {
                    image.filled(client)?;
                }
                Ok(None)
            }
            Some("GetFullConfig") => {
                if let Some(image) = number.and_then(|id| self.images.get_mut(&id)) {
                    image.knows_ostree = true;
                }
                Ok(None)
            }
            Some(method @ ("GetBlob" | "GetRawBlob")) => match arguments[1].as_str().map(str::parse) {
                Some(Ok(digest)) => {
                    let (size, is_raw) = (arguments[2].as_u64(), method == "GetRawBlob");
                    self.blob(number, &Wanted { digest, size, is_raw }, client)
                }
                _ => Ok(None),
            },
            Some("FinishPipe") => {
                let pipe = number.and_then(|id| u32::try_from(id).ok());
                Ok(pipe.and_then(|id| self.pipes.remove(&id)).map(finished))
            }
            Some("CloseImage") => {
                drop(number.and_then(|id| self.images.remove(&id)));
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    /// Takes note of skopeo's reply to a request.
    pub fn note(&mut self, request: &Value, reply: &[u8]) {
        let method = request["method"].as_str();
        if !matches!(method, Some("OpenImage" | "OpenImageOptional" | "GetManifest")) {
            return;
        }
        let reply: Value = serde_json::from_slice(reply).unwrap_or_default();
        if reply["success"] != true {
            return;
        }
        if method == Some("GetManifest") {
            let image = request["args"][0].as_u64().and_then(|id| self.images.get_mut(&id));
            if let Some(image) = image {
                image.manifest = reply["value"].as_str().and_then(|digest| digest.parse().ok());
            }
            return;
        }
        let (Some(id), Some(reference)) = (reply["value"].as_u64(), request["args"][0].as_str()) else {
            return;
        };
        if id == 0 || self.images.len() >= MAX_IMAGES {
            return;
        }
        // Not from a registry, it has no deltas; what cannot be begun is skopeo's.
        if let Some(settings) = &self.settings
            && let Ok(parsed @ Reference::Docker { .. }) = reference.parse()
            && let Ok(image) = Image::open(reference, parsed, settings)
        {
            self.images.insert(id, image);
        }
    }

    /// The reply with a layer that a delta gave.
    fn blob(&mut self, image: Option<u64>, wanted: &Wanted, client: impl AsFd) -> Result<Option<Packet>> {
        let image = image.and_then(|id| self.images.get_mut(&id)).filter(|_| self.pipes.len() < MAX_PIPES);
        let Some(image) = image else { return Ok(None) };
        let Some(given) = image.layer(wanted, client)? else { return Ok(None) };
        (image.log)(&line(&image.reference, wanted, &given));
        let (reader, writer) = io::pipe().at("cannot make a pipe")?;
        let (fault, told) = io::pipe().at("cannot make a pipe")?;
        // What it is wrapped into, nobody has counted.
        let size = given.wrapping.map_or(json!(given.size), |_| json!(-1));
        let told = wanted.is_raw.then_some(told);
        let writing =
            thread::Builder::new().spawn(|| pass(given, writer, told)).at("cannot start a thread")?;
        if wanted.is_raw {
            return Ok(Some(reply(size, 0, vec![reader.into(), fault.into()])));
        }
        let pipe = self.next_pipe;
        self.next_pipe = pipe.checked_add(1).unwrap_or(FIRST_PIPE);
        self.pipes.insert(pipe, writing);
        Ok(Some(reply(size, pipe, vec![reader.into()])))
    }
}

/// What is logged of an answer.
fn line(image: &str, wanted: &Wanted, given: &Given) -> String {
    json!({
        "event": "delta-answer",
        "image": image,
        "blob": wanted.digest.to_string(),
        "bytes": given.size,
        "is_exact": given.wrapping.is_none(),
        "downloaded_bytes": given.downloaded,
        "saved_bytes": given.size.saturating_sub(given.downloaded),
        "deltas": texts(&given.deltas),
    })
    .to_string()
}

/// Writes a layer into a pipe; what goes wrong, into the one for errors, if there is one.
fn pass(given: Given, pipe: PipeWriter, fault: Option<PipeWriter>) -> io::Result<u64> {
    let passed = copy(given, pipe);
    if let (Err(e), Some(mut fault)) = (&passed, fault) {
        let code = if e.kind() == io::ErrorKind::BrokenPipe { "EPIPE" } else { "other" };
        // Where nobody reads it, nobody wants it.
        let _ = write!(fault, "{}", json!({ "code": code, "message": e.to_string() }));
    }
    passed
}

fn copy(given: Given, mut pipe: PipeWriter) -> io::Result<u64> {
    let len = given.file.metadata()?.len();
    // Others may read the same file.
    let layer = Region::of(Arc::new(given.file), len).reader();
    let mut layer = io::BufReader::with_capacity(PIECE, layer);
    let Some(encoding) = given.wrapping else { return io::copy(&mut layer, &mut pipe) };
    let mut writer = EncodingWriter::new(pipe, encoding)?;
    let bytes = io::copy(&mut layer, &mut writer)?;
    writer.finish()?;
    Ok(bytes)
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
