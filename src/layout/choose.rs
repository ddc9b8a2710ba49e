//! Which entry of an index is meant: by name, by position, or by platform where there is no name.

use oci_spec::image::Descriptor;

use crate::document::{DocumentKind, Index};
use crate::error::{Error, Result};
use crate::platform::Platform;
use crate::reference::Reference;

/// The annotation that names an image in an index (OCI image-spec, annotations).
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The full name, where Docker and containerd put the tag alone into [`REF_NAME`].
pub const FULL_NAME: &str = "io.containerd.image.name";

/// What an entry of `cosign save` is; only the image itself is one.
const COSIGN_KIND: &str = "kind";
const COSIGN_IMAGES: [&str; 2] = ["dev.cosignproject.cosign/image", "dev.cosignproject.cosign/imageIndex"];

/// Most names that an error lists.
const SHOWN: usize = 20;

/// The name an index entry gives its image.
pub fn ref_name(descriptor: &Descriptor) -> Option<&str> {
    note(descriptor, REF_NAME)
}

/// The name in full, where the entry has one.
pub fn full_name(descriptor: &Descriptor) -> Option<&str> {
    note(descriptor, FULL_NAME)
}

fn note<'a>(descriptor: &'a Descriptor, key: &str) -> Option<&'a str> {
    descriptor.annotations().as_ref()?.get(key).map(String::as_str).filter(|text| !text.is_empty())
}

/// An entry and its position in the index.
type Entry<'a> = (usize, &'a Descriptor);

/// Chooses the entry that `name` means: `@POSITION`, a name, or a full name. Without a name it is the only
/// image, or the one for `platform`.
///
/// # Errors
/// Misfit when nothing matches; Usage when several images do.
pub(super) fn choose<'a>(
    shown: &str,
    index: &'a Index,
    name: Option<&str>,
    platform: &Platform,
) -> Result<&'a Descriptor> {
    let entries: Vec<Entry<'_>> =
        index.entries.iter().enumerate().filter_map(|(at, entry)| Some((at, entry.as_ref().ok()?))).collect();
    let odd = index.entries.iter().find_map(|entry| entry.as_ref().err());
    let odd = odd.map(|odd| format!(" ({})", odd.why)).unwrap_or_default();
    let Some(name) = name else {
        return match only_image(&entries) {
            Some(entry) => Ok(entry),
            None if entries.is_empty() => Err(Error::misfit(format!("{shown}: no image in the layout{odd}"))),
            None if entries.iter().all(|(_, d)| d.platform().is_some() && ref_name(d).is_none()) => {
                platform.choose(entries.iter().map(|(_, entry)| *entry))
            }
            None => Err(Error::usage(format!("{shown}: more than one image in the layout"))
                .with_hint(format!("name one: {}", names(&entries)))),
        };
    };
    if let Some(position) = name.strip_prefix('@').and_then(|n| n.parse::<usize>().ok()) {
        return match index.entries.get(position) {
            Some(Ok(entry)) => Ok(entry),
            Some(Err(odd)) => Err(Error::verification(format!("{shown}: {}", odd.why))),
            None => Err(Error::misfit(format!("{shown}: no image at index {position}"))),
        };
    }
    let found = named(&entries, name);
    match found[..] {
        [] => Err(Error::misfit(format!("{shown}: no image named {name:?}{odd}"))
            .with_hint(format!("there is: {}", names(&entries)))),
        [(_, entry)] => Ok(entry),
        _ if found.iter().all(|(_, entry)| entry.platform().is_some()) => {
            platform.choose(found.iter().map(|(_, entry)| *entry))
        }
        _ => Err(Error::usage(format!("{shown}: {} images are named {name:?}", found.len()))
            .with_hint(format!("name one: {}", full_names(&found)))),
    }
}

/// The only image, whatever belongs to it (signatures, SBOMs), and however many names it has.
fn only_image<'a>(entries: &[Entry<'a>]) -> Option<&'a Descriptor> {
    let is_image = |entry: &Descriptor| {
        entry.artifact_type().is_none()
            && note(entry, COSIGN_KIND).is_none_or(|kind| COSIGN_IMAGES.contains(&kind))
    };
    let [(_, first), rest @ ..] = entries else { return None };
    if rest.iter().all(|(_, entry)| entry.digest() == first.digest()) {
        return Some(first);
    }
    let images: Vec<Entry<'a>> = entries.iter().filter(|(_, entry)| is_image(entry)).copied().collect();
    match images[..] {
        [(_, image)] => Some(image),
        _ => None,
    }
}

/// The different entries that `name` means; the first way to read it that finds one counts. What is neither
/// a manifest nor an index steps back, as it does for skopeo.
fn named<'a>(entries: &[Entry<'a>], name: &str) -> Vec<Entry<'a>> {
    let whole = normal(name);
    let has_normal = |text: Option<&str>| whole.is_some() && text.and_then(normal) == whole;
    let ways: [&dyn Fn(&Descriptor) -> bool; 3] =
        [&|entry| ref_name(entry) == Some(name), &|entry| full_name(entry) == Some(name), &|entry| {
            has_normal(full_name(entry)) || has_normal(ref_name(entry))
        }];
    for is_meant in ways {
        let mut found: Vec<Entry<'a>> = Vec::new();
        for (at, entry) in entries.iter().filter(|(_, entry)| is_meant(entry)) {
            if found.iter().all(|(_, other)| other.digest() != entry.digest()) {
                found.push((*at, entry));
            }
        }
        let is_known = |entry: &Descriptor| DocumentKind::of(entry.media_type()) != DocumentKind::Other;
        if found.iter().any(|(_, entry)| is_known(entry)) {
            found.retain(|(_, entry)| is_known(entry));
        }
        if !found.is_empty() {
            return found;
        }
    }
    Vec::new()
}

/// A name with its host and its tag.
fn normal(name: &str) -> Option<String> {
    match name.parse().ok()? {
        Reference::Docker { name } => Some(name.whole()),
        _ => None,
    }
}

fn names(entries: &[Entry<'_>]) -> String {
    let named: Vec<&str> =
        entries.iter().filter_map(|(_, entry)| ref_name(entry).or_else(|| full_name(entry))).collect();
    if named.is_empty() {
        return format!("@0 to @{}", entries.last().map_or(0, |(at, _)| *at));
    }
    list(named.iter().map(|name| (*name).to_owned()))
}

/// What tells entries of one name apart.
fn full_names(entries: &[Entry<'_>]) -> String {
    let mut named: Vec<&str> = entries.iter().filter_map(|(_, entry)| full_name(entry)).collect();
    named.sort_unstable();
    named.dedup();
    if named.len() == entries.len() {
        return list(named.into_iter().map(str::to_owned));
    }
    list(entries.iter().map(|(at, entry)| format!("@{at} ({})", entry.digest())))
}

fn list(names: impl ExactSizeIterator<Item = String>) -> String {
    let more = names.len() > SHOWN;
    let mut shown: Vec<String> = names.take(SHOWN).map(|name| name.escape_default().to_string()).collect();
    if more {
        shown.push("…".into());
    }
    shown.join(", ")
}
