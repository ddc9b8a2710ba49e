//! Repositories whose registry has no referrers API but a list under the fallback tag: there the tag
//! is asked for first, for a week, which saves a request in each search.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use oci_spec::distribution::Reference as DockerReference;

/// After that the API is asked for again: registries are upgraded. Longer than from one update to the next.
const FRESH: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The note on one repository: an empty file in the user's cache, as old as what it says.
#[derive(Debug)]
pub(super) struct Memory(PathBuf);

impl Memory {
    /// Below `$XDG_CACHE_HOME` or `~/.cache` (XDG base directory specification); none without either.
    pub(super) fn of(image: &DockerReference) -> Option<Self> {
        let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
        let cache =
            absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")))?;
        Some(Self::in_cache(&cache, image))
    }

    fn in_cache(cache: &Path, image: &DockerReference) -> Self {
        // A name has no `@`, so no repository's file is another one's folder.
        let name = format!("{}/{}@", image.registry(), image.repository());
        Memory(cache.join("oci-delta-fetch/fallback-tag").join(name))
    }

    /// Is the tag to be asked for first?
    pub(super) fn holds(&self) -> bool {
        let age = fs::metadata(&self.0).and_then(|meta| meta.modified()).map(|time| time.elapsed());
        matches!(age, Ok(Ok(age)) if age < FRESH)
    }

    /// The API is not there and the tag is. A cache that cannot be written only saves nothing.
    pub(super) fn note(&self) {
        let written = self.0.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| File::create(&self.0));
        drop(written);
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn a_note_holds_for_a_week() {
        let dir = tempfile::tempdir().unwrap();
        let memory = |name: &str| Memory::in_cache(dir.path(), &name.parse().unwrap());
        let (short, long) = (memory("h:5000/a:1"), memory("h:5000/a/b:1"));
        assert!(!short.holds());
        short.note();
        long.note();
        assert!(short.holds() && long.holds() && !memory("other/a").holds());
        for (age, holds) in [(FRESH / 2, true), (FRESH * 2, false)] {
            let file = File::options().write(true).open(&short.0).unwrap();
            file.set_modified(SystemTime::now() - age).unwrap();
            assert_eq!(short.holds(), holds);
        }
    }
}
