//! How a user names podman's storage: in skopeo's words, `[DRIVER@ROOT+RUNROOT:OPTIONS]`, or not at all.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::error::{Error, Result};

/// What stands before the name of an image in podman's storage.
pub const TRANSPORT: &str = "containers-storage:";

/// Which of podman's storages is meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodmanPlace {
    /// That of this machine's configuration, if none is named.
    named: Option<Named>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Named {
    driver: Option<String>,
    root: PathBuf,
    /// Run root and options, which are skopeo's business, with what stands before them.
    rest: String,
}

impl PodmanPlace {
    /// Splits what follows [`TRANSPORT`] into the storage and the rest, which names an image.
    ///
    /// # Errors
    /// Usage.
    pub fn split(text: &str) -> Result<(Self, &str)> {
        let Some(inside) = text.strip_prefix('[') else { return Ok((PodmanPlace::default(), text)) };
        let (inside, name) = inside.split_once(']').ok_or_else(|| {
            Error::usage(format!("{TRANSPORT}{text}: the bracket of the storage is not closed"))
                .with_hint("containers-storage:[overlay@/ROOT+/RUNROOT]NAME")
        })?;
        Ok((inside.parse()?, name))
    }

    /// Its directory, where one is named.
    pub fn root(&self) -> Option<&Path> {
        Some(&self.named.as_ref()?.root)
    }

    /// Its driver, where one is named.
    pub(crate) fn driver(&self) -> Option<&str> {
        self.named.as_ref()?.driver.as_deref()
    }

    /// Further storages that it reads images from, by its options.
    pub(crate) fn further(&self) -> impl Iterator<Item = &Path> {
        let rest = self.named.as_ref().map_or("", |named| &named.rest);
        let options = rest.split_once(':').map_or("", |(_, options)| options);
        options.split(',').filter_map(|option| {
            let (key, path) = option.split_once('=')?;
            let is_store = ["imagestore", "additionalimagestore"].contains(&key.rsplit('.').next()?);
            is_store.then(|| Path::new(path))
        })
    }
}

impl FromStr for PodmanPlace {
    type Err = Error;

    /// What stands in the brackets; a path alone is one as well.
    fn from_str(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Ok(PodmanPlace::default());
        }
        let (before, rest) = text.split_at(text.find(['+', ':']).unwrap_or(text.len()));
        let (driver, root) = match before.split_once('@') {
            Some((driver, root)) => (Some(driver).filter(|driver| !driver.is_empty()), root),
            None => (None, before),
        };
        if !root.starts_with('/') || text.contains(['[', ']']) {
            return Err(Error::usage(format!("{text:?} names no storage: its root is an absolute path"))
                .with_hint("containers-storage:[overlay@/ROOT+/RUNROOT], or containers-storage: alone"));
        }
        let named = Named { driver: driver.map(str::to_owned), root: root.into(), rest: rest.to_owned() };
        Ok(PodmanPlace { named: Some(named) })
    }
}

impl fmt::Display for PodmanPlace {
    /// As skopeo takes it, before the name of an image.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(TRANSPORT)?;
        let Some(Named { driver, root, rest }) = &self.named else { return Ok(()) };
        let driver = driver.as_ref().map(|driver| format!("{driver}@")).unwrap_or_default();
        write!(f, "[{driver}{}{rest}]", root.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storage_is_named_as_skopeo_names_it() {
        for (text, shown, name) in [
            ("x:1", "containers-storage:", "x:1"),
            ("[/r]x", "containers-storage:[/r]", "x"),
            ("[overlay@/r+/run]h/x:1", "containers-storage:[overlay@/r+/run]", "h/x:1"),
            ("[vfs@/r]", "containers-storage:[vfs@/r]", ""),
            ("[overlay@/r+/u:a=b,c=d]@1f", "containers-storage:[overlay@/r+/u:a=b,c=d]", "@1f"),
        ] {
            let (place, rest) = PodmanPlace::split(text).unwrap();
            assert_eq!((place.to_string().as_str(), rest), (shown, name));
        }
        for bad in ["[overlay@r]x", "[/r", "[x", "[overlay@]x"] {
            assert_eq!(PodmanPlace::split(bad).unwrap_err().kind(), crate::error::Kind::Usage, "{bad}");
        }
    }

    #[test]
    fn options_name_further_stores() {
        let text = "overlay@/r+/u:overlay.imagestore=/a,overlay.mount_program=/p,.imagestore=/b";
        let place: PodmanPlace = text.parse().unwrap();
        assert_eq!(place.root(), Some(Path::new("/r")));
        assert_eq!(place.further().collect::<Vec<_>>(), ["/a", "/b"].map(Path::new));
        assert_eq!(place.driver(), Some("overlay"));
    }
}
