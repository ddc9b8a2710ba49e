//! Random trees, random edits: whatever `create` makes of them, the target comes
//! out again, here and with the `oci-delta` crate.

use crate::support;

use proptest::prelude::*;
use support::images::noise;
use support::tars::Entry::{Dir, File, Link, Mode, Symlink};
use support::tars::{Entry, tar_of};
use support::{Image, Layer, OciDir, Sandbox, oracle};

/// What is done to a tree between two layers or images.
#[derive(Debug, Clone)]
enum Change {
    Write { path: usize, seed: u64, len: usize },
    Edit { path: usize, at: usize, len: usize },
    Insert { path: usize, at: usize, len: usize },
    Join { path: usize, other: usize },
    Rename { path: usize, to: usize },
    Remove { path: usize },
    Hide { path: usize },
    Symlink { path: usize, to: usize },
    HardLink { path: usize, to: usize },
    Protect { path: usize },
}

const PATHS: &[&str] = &[
    "a",
    "b.txt",
    "d/one",
    "d/two",
    "d/e/three",
    "d/e/four",
    "usr/lib/libx.so.1.2",
    "usr/lib/libx.so.1.3",
    "opt/app-1.0/main",
    "opt/app-2.0/main",
    "sysroot/ostree/objects/ab",
    "very/deep/er/and/deep/er/file",
];

fn change() -> impl Strategy<Value = Change> {
    let path = || 0..PATHS.len();
    prop_oneof![
        4 => (path(), 0..6u64, 0..60_000usize).prop_map(|(path, seed, len)| Change::Write { path, seed, len }),
        4 => (path(), any::<usize>(), 1..300usize).prop_map(|(path, at, len)| Change::Edit { path, at, len }),
        3 => (path(), any::<usize>(), 1..3000usize).prop_map(|(path, at, len)| Change::Insert { path, at, len }),
        2 => (path(), path()).prop_map(|(path, other)| Change::Join { path, other }),
        2 => (path(), path()).prop_map(|(path, to)| Change::Rename { path, to }),
        1 => path().prop_map(|path| Change::Remove { path }),
        1 => path().prop_map(|path| Change::Hide { path }),
        1 => (path(), path()).prop_map(|(path, to)| Change::Symlink { path, to }),
        1 => (path(), path()).prop_map(|(path, to)| Change::HardLink { path, to }),
        1 => path().prop_map(|path| Change::Protect { path }),
    ]
}

#[derive(Debug, Clone)]
enum Node {
    File(Vec<u8>, u32),
    Symlink(usize),
    HardLink(usize),
    Whiteout,
}

/// A layer: what stands at some of the paths.
type Tree = std::collections::BTreeMap<usize, Node>;

fn apply(tree: &mut Tree, change: &Change) {
    let content = |tree: &Tree, path: &usize| match tree.get(path) {
        Some(Node::File(bytes, _)) => bytes.clone(),
        _ => Vec::new(),
    };
    match change {
        Change::Write { path, seed, len } => {
            tree.insert(*path, Node::File(noise(*seed, *len), 0o644));
        }
        Change::Edit { path, at, len } => {
            let mut bytes = content(tree, path);
            let size = bytes.len().max(1);
            bytes.iter_mut().skip(at % size).take(*len).step_by(7).for_each(|b| *b ^= 0x5a);
            tree.insert(*path, Node::File(bytes, 0o644));
        }
        Change::Insert { path, at, len } => {
            let mut bytes = content(tree, path);
            let at = at % (bytes.len() + 1);
            bytes.splice(at..at, noise(99, *len));
            tree.insert(*path, Node::File(bytes, 0o644));
        }
        Change::Join { path, other } => {
            let joined = [content(tree, path), content(tree, other)].concat();
            tree.insert(*path, Node::File(joined, 0o644));
        }
        Change::Rename { path, to } => {
            if let Some(node) = tree.remove(path) {
                tree.insert(*to, node);
            }
        }
        Change::Remove { path } => drop(tree.remove(path)),
        Change::Hide { path } => drop(tree.insert(*path, Node::Whiteout)),
        Change::Symlink { path, to } => drop(tree.insert(*path, Node::Symlink(*to))),
        // A link must come after its target in the tar.
        Change::HardLink { path, to } if to < path && matches!(tree.get(to), Some(Node::File(..))) => {
            tree.insert(*path, Node::HardLink(*to));
        }
        Change::HardLink { .. } => {}
        Change::Protect { path } => {
            let bytes = content(tree, path);
            tree.insert(*path, Node::File(bytes, 0o600));
        }
    }
}

/// The tar of a tree; hard links whose target went are left out.
fn tar(tree: &Tree) -> Vec<u8> {
    let names: Vec<String> = PATHS
        .iter()
        .map(|path| match path.rsplit_once('/') {
            Some((dir, name)) => format!("{dir}/.wh.{name}"),
            None => format!(".wh.{path}"),
        })
        .collect();
    let links: Vec<String> = PATHS.iter().map(|path| format!("/{path}")).collect();
    let mut entries: Vec<Entry<'_>> = vec![Dir(b"d/"), Dir(b"usr/")];
    for (path, node) in tree {
        let name = PATHS[*path].as_bytes();
        match node {
            Node::File(bytes, 0o600) => entries.push(Mode(name, bytes, 0o600)),
            Node::File(bytes, _) => entries.push(File(name, bytes)),
            Node::Symlink(to) => entries.push(Symlink(name, links[*to].as_bytes())),
            Node::HardLink(to) if matches!(tree.get(to), Some(Node::File(..))) => {
                entries.push(Link(name, PATHS[*to].as_bytes()));
            }
            Node::HardLink(_) => {}
            Node::Whiteout => entries.push(File(names[*path].as_bytes(), b"")),
        }
    }
    tar_of(&entries)
}

/// An image of as many layers as there are lists of changes; each starts from the one below.
fn image(layers: &[Vec<Change>], tree: &mut Tree) -> Image {
    let mut tars = Vec::new();
    for changes in layers {
        changes.iter().for_each(|change| apply(tree, change));
        tars.push(Layer::gzip(tar(tree)));
    }
    Image::new(tars)
}

fn layers() -> impl Strategy<Value = Vec<Vec<Change>>> {
    proptest::collection::vec(proptest::collection::vec(change(), 1..8), 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_target_comes_out_of_any_delta(
        old in layers(),
        new in layers(),
        preset in prop_oneof![Just("fast"), Just("default"), Just("best")],
        format in prop_oneof![Just("v1"), Just("v2")],
    ) {
        let mut tree = Tree::new();
        let (old, new) = (image(&old, &mut tree), image(&new, &mut tree));
        prop_assume!(old.config_digest() != new.config_digest());
        let sandbox = Sandbox::new();
        let mut images = OciDir::create(&sandbox.path("images"));
        images.image("old", &old).image("new", &new);
        let delta = format!("oci:{}", sandbox.path("delta").display());
        let args = [&images.reference("old"), &images.reference("new"), &delta];
        let made = sandbox.json(&["create", args[0], args[1], args[2], "--preset", preset, "--format", format]);
        for layer in made["layers"].as_array().unwrap() {
            prop_assert!(layer["fault"].is_null(), "{made}");
        }
        oracle::check(&delta, &old, &new);
        sandbox.ok(&[&images.reference("old")]);
        let report = sandbox.json(&[&delta, "--tag", "new"]);
        prop_assert_eq!(&report["image"]["config"], &new.config_digest().to_string());
        sandbox.ok(&["verify"]);
    }
}
