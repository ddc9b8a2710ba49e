//! Recipes that were proven on this machine before: a layer that many images share is made again only once.
//!
//! A note ties the digests of a blob and of its plain tar to a recipe that has made the one from the other, as a whole.
//! So it holds for all bytes of these digests, wherever they are, as long as the encoders stay what they were. Only what
//! was proven here is noted, nothing that somebody else's delta says.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use exact_encoders::REVISION;
use oci_spec::image::Descriptor;
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::digest::DiffId;
use crate::exact::Recipe;

/// Most notes that are kept, of some 300 bytes each: 16 MiB where a file takes 4 KiB.
const MAX_NOTES: usize = 4096;
/// Longest note that is read.
const MAX_NOTE: u64 = 2048;

/// The notes: a file for each blob. One that cannot be read or written only saves nothing.
pub(super) struct Proven {
    dir: Option<PathBuf>,
    most: usize,
}

impl Proven {
    /// In the directory `notes`; `None`: nowhere.
    pub(super) fn of(notes: Option<&Path>) -> Self {
        Proven { dir: notes.map(|notes| notes.join("recipes")), most: MAX_NOTES }
    }

    fn path(&self, blob: &Descriptor) -> Option<PathBuf> {
        // Digests have no slashes.
        self.dir.as_ref().map(|dir| dir.join(blob.digest().to_string().replace(':', "-")))
    }

    /// The recipe by which `tar` has become `blob`.
    pub(super) fn recipe(&self, blob: &Descriptor, tar: &DiffId) -> Option<Recipe> {
        let mut file = File::options().read(true).write(true).open(self.path(blob)?).ok()?;
        let mut text = String::new();
        (&mut file).take(MAX_NOTE).read_to_string(&mut text).ok()?;
        let note: Value = serde_json::from_str(&text).ok()?;
        let recipe: Recipe = note["recipe"].to_string().parse().ok()?;
        let fits = note["encoders"] == REVISION && note["tar"] == tar.to_string().as_str();
        if !fits || recipe.size() != blob.size() || recipe.fix().is_some() {
            return None;
        }
        // What is of use stays longest.
        let _ = file.set_modified(SystemTime::now());
        Some(recipe)
    }

    /// Notes that `recipe` has just been proven. Corrections are not kept, so recipes that need some are not noted.
    pub(super) fn note(&self, blob: &Descriptor, tar: &DiffId, recipe: &Recipe) {
        if let Some(path) = self.path(blob).filter(|_| recipe.fix().is_none()) {
            let _ = self.write(&path, tar, recipe);
        }
    }

    fn write(&self, path: &Path, tar: &DiffId, recipe: &Recipe) -> io::Result<()> {
        let Some(dir) = &self.dir else { return Ok(()) };
        fs::create_dir_all(dir)?;
        let recipe: Value = serde_json::from_str(&recipe.to_string())?;
        let note = json!({"encoders": REVISION, "tar": tar.to_string(), "recipe": recipe});
        // Another run may read or write the same.
        let mut file = NamedTempFile::new_in(dir)?;
        file.write_all(note.to_string().as_bytes())?;
        file.persist(path)?;
        self.prune(dir)
    }

    /// Removes a quarter of the notes, those that were not used for the longest time, if there are too many.
    fn prune(&self, dir: &Path) -> io::Result<()> {
        let count = fs::read_dir(dir)?.count();
        if count <= self.most {
            return Ok(());
        }
        // Some may go meanwhile.
        let aged = |entry: fs::DirEntry| Some((entry.metadata().ok()?.modified().ok()?, entry.path()));
        let mut notes: Vec<_> = fs::read_dir(dir)?.filter_map(|entry| aged(entry.ok()?)).collect();
        notes.sort();
        for (_, path) in notes.into_iter().take(count - self.most * 3 / 4) {
            fs::remove_file(path)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use oci_spec::image::MediaType;

    use super::*;
    use crate::digest::digest_of;

    fn blob(n: u32) -> Descriptor {
        Descriptor::new(MediaType::ImageLayerGzip, 99, digest_of(&n.to_le_bytes()))
    }

    fn tar(n: u8) -> DiffId {
        DiffId::new(digest_of(&[n]))
    }

    fn recipe(size: u64) -> Recipe {
        let rest = r#""wrap":"raw","enc":"go-flate","fam":"1.26","lvl":6,"frame":{"kind":"stream"}"#;
        format!(r#"{{"v":1,"size":{size},{rest}}}"#).parse().unwrap()
    }

    #[test]
    fn what_was_proven_is_known_for_the_same_digests_alone() {
        let dir = tempfile::tempdir().unwrap();
        let proven = Proven::of(Some(dir.path()));
        assert!(proven.recipe(&blob(1), &tar(1)).is_none());
        proven.note(&blob(1), &tar(1), &recipe(99));
        assert_eq!(proven.recipe(&blob(1), &tar(1)), Some(recipe(99)));
        assert!(proven.recipe(&blob(1), &tar(2)).is_none(), "another tar");
        assert!(proven.recipe(&blob(2), &tar(1)).is_none(), "another blob");
        let longer = Descriptor::new(MediaType::ImageLayerGzip, 100, blob(1).digest().clone());
        assert!(proven.recipe(&longer, &tar(1)).is_none(), "another size");
        let nowhere = Proven::of(None);
        nowhere.note(&blob(1), &tar(1), &recipe(99));
        assert!(nowhere.recipe(&blob(1), &tar(1)).is_none());
    }

    #[test]
    fn notes_of_other_encoders_and_garbage_are_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let proven = Proven::of(Some(dir.path()));
        proven.note(&blob(1), &tar(1), &recipe(99));
        let path = proven.path(&blob(1)).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let current = format!(r#""encoders":{REVISION}"#);
        let older = text.replace(&current, r#""encoders":0"#);
        let fixed = text.replace(r#""v":1"#, &format!(r#""v":1,"fix":"sha256:{}""#, "0".repeat(64)));
        let long = format!("{}{text}", " ".repeat(4096));
        for other in [&older, &fixed, &text[..text.len() / 2], "", "[1]", &long] {
            assert_ne!(other, text);
            fs::write(&path, other).unwrap();
            assert!(proven.recipe(&blob(1), &tar(1)).is_none(), "{:.200}", other);
        }
        proven.note(&blob(1), &tar(1), &recipe(99));
        assert!(proven.recipe(&blob(1), &tar(1)).is_some());
    }

    #[test]
    fn the_least_used_notes_go_first() {
        let dir = tempfile::tempdir().unwrap();
        let proven = Proven { most: 8, ..Proven::of(Some(dir.path())) };
        for n in 0..8 {
            proven.note(&blob(n), &tar(1), &recipe(99));
            let file = File::options().write(true).open(proven.path(&blob(n)).unwrap()).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(100 - u64::from(n))).unwrap();
        }
        assert!(proven.recipe(&blob(0), &tar(1)).is_some(), "used just now");
        proven.note(&blob(8), &tar(1), &recipe(99));
        let left: Vec<u32> = (0..9).filter(|n| proven.recipe(&blob(*n), &tar(1)).is_some()).collect();
        assert_eq!(left, [0, 4, 5, 6, 7, 8]);
    }
}
