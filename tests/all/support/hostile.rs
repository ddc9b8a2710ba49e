//! A victim with a base image, and patches that nobody should write.

use super::{Delta, Ended, Image, Layer, OciDir, Sandbox, images};

/// A sandbox that holds the base image, and what an attacker can build on.
pub struct Victim {
    pub sandbox: Sandbox,
    pub source: OciDir,
    pub old: Image,
    pub new: Image,
}

/// Content of the base's `data/file`.
pub const FILE: &[u8] = &[b'x'; 10_000];

impl Victim {
    pub fn new() -> Self {
        let old_tar = {
            let mut builder = tar::Builder::new(images::tar(&[("data/file", FILE)]));
            // The builder appends behind the end blocks otherwise.
            builder.get_mut().truncate(512 + 10_240);
            let mut link = tar::Header::new_gnu();
            link.set_entry_type(tar::EntryType::Symlink);
            link.set_size(0);
            builder.append_link(&mut link, "data/escape", "/etc/passwd").unwrap();
            let mut dir = tar::Header::new_gnu();
            dir.set_entry_type(tar::EntryType::Directory);
            dir.set_size(0);
            dir.set_mode(0o755);
            builder.append_data(&mut dir, "data/folder", &b""[..]).unwrap();
            builder.into_inner().unwrap()
        };
        let old = Image::new(vec![Layer::plain(old_tar)]);
        let new = Image::new(vec![Layer::plain(images::tar(&[("data/file", b"new"), ("etc/new", FILE)]))]);
        Self::with(old, new)
    }

    pub fn with(old: Image, new: Image) -> Self {
        let sandbox = Sandbox::new();
        let mut source = OciDir::create(&sandbox.path("source"));
        source.image("old", &old);
        sandbox.ok(&[&source.reference("old"), "--tag", "os"]);
        Victim { sandbox, source, old, new }
    }

    pub fn delta(&self) -> Delta {
        Delta::new(&self.old, &self.new)
    }

    /// Offers a delta and demands: this exit code, this text, no panic, and the repository as before.
    pub fn refuses(&mut self, delta: &Delta, code: i32, text: &str) -> Ended {
        self.source.delta("attack", delta);
        self.refuses_as_it_lies(code, text, &[])
    }

    /// The same for the layout as it lies.
    pub fn refuses_as_it_lies(&self, code: i32, text: &str, more: &[&str]) -> Ended {
        let before = self.sandbox.snapshot();
        let reference = self.source.reference("attack");
        let mut args = vec![&*reference, "--tag", "os"];
        args.extend(more);
        let ended = self.sandbox.run(&args);
        assert_eq!(ended.code, code, "{ended:#?}");
        assert!(ended.stderr.contains(text), "no {text:?} in {ended:#?}");
        assert_eq!(self.sandbox.snapshot(), before, "the repository changed");
        ended
    }

    /// Offers a patch made of these operations.
    pub fn refuses_ops(&mut self, magic: &[u8; 8], ops: &[u8], code: i32, text: &str) -> Ended {
        let blob = patch(magic, ops);
        let delta = Delta::with(&self.old, &self.new, |_| (images::TAR_DIFF.into(), blob.clone()));
        self.refuses(&delta, code, text)
    }
}

pub const V1: &[u8; 8] = b"tardf1\n\0";
pub const V2: &[u8; 8] = b"tardf2\n\0";

/// A patch of raw operations.
pub fn patch(magic: &[u8; 8], ops: &[u8]) -> Vec<u8> {
    [&magic[..], &zstd::encode_all(ops, 1).unwrap()].concat()
}

/// An operation: code, size, payload.
pub fn op(code: u8, size: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![code];
    let mut left = size;
    while left >= 0x80 {
        bytes.push(left as u8 | 0x80);
        left >>= 7;
    }
    bytes.push(left as u8);
    bytes.extend(payload);
    bytes
}

pub fn open(path: &str) -> Vec<u8> {
    op(1, path.len() as u64, path.as_bytes())
}
