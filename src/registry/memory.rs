//! What registries were seen to do, so that the next search asks in the order that takes
//! the fewest requests. A note only sets the order: a wrong one costs a request and is put right.
//! Only where a registry has just got the API is a list under the tag believed for up to a week more.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use oci_spec::distribution::Reference as DockerReference;

/// After that a registry is looked at anew: they are upgraded. Longer than from one update to the next.
const FRESH: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Where a registry lists what points to an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lists {
    /// It has the referrers API.
    Api,
    /// It has none; clients keep a list under the fallback tag.
    Tag,
}

impl Lists {
    const ALL: [Lists; 2] = [Lists::Api, Lists::Tag];

    fn word(self) -> &'static str {
        match self {
            Lists::Api => "referrers-api",
            Lists::Tag => "fallback-tag",
        }
    }
}

/// The note on one registry: a file with a word.
#[derive(Debug)]
pub(super) struct Memory(PathBuf);

impl Memory {
    /// In the directory `notes`.
    pub(super) fn of(notes: &Path, image: &DockerReference) -> Self {
        Memory(notes.join("registries").join(image.registry()))
    }

    /// What was seen within the last week.
    pub(super) fn lists(&self) -> Option<Lists> {
        let age = fs::metadata(&self.0).and_then(|meta| meta.modified()).map(|time| time.elapsed());
        if !matches!(age, Ok(Ok(age)) if age < FRESH) {
            return None;
        }
        let word = fs::read_to_string(&self.0).ok()?;
        Lists::ALL.into_iter().find(|lists| lists.word() == word.trim())
    }

    /// Writes it down, if that is news. A cache that cannot be written only saves nothing.
    pub(super) fn note(&self, lists: Lists) {
        if self.lists() == Some(lists) {
            return;
        }
        let written = self.0.parent().map_or(Ok(()), fs::create_dir_all);
        drop(written.and_then(|()| fs::write(&self.0, lists.word())));
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn a_note_holds_for_a_week() {
        let dir = tempfile::tempdir().unwrap();
        let memory = |name: &str| Memory::of(dir.path(), &name.parse().unwrap());
        let (one, other) = (memory("h:5000/a:1"), memory("h:5000/a/b:1"));
        assert_eq!(one.lists(), None);
        one.note(Lists::Tag);
        assert_eq!(other.lists(), Some(Lists::Tag), "it is the registry's");
        assert_eq!(memory("other/a").lists(), None);
        for (age, lists) in [(FRESH / 2, Some(Lists::Tag)), (FRESH * 2, None)] {
            let file = File::options().write(true).open(&one.0).unwrap();
            file.set_modified(SystemTime::now() - age).unwrap();
            assert_eq!(one.lists(), lists);
        }
        one.note(Lists::Api);
        assert_eq!(one.lists(), Some(Lists::Api));
        fs::write(&one.0, "garbage").unwrap();
        assert_eq!(one.lists(), None);
    }
}
