//! The list of referrers under the fallback tag, which its writers keep by reading,
//! changing and writing it (distribution specification 1.1, "Referrers Tag Schema").

use std::time::{Duration, SystemTime};

use oci_spec::image::Descriptor;
use serde_json::{Value, json};

use super::{IMAGE_INDEX, Repository};
use crate::digest::Digest;
use crate::error::{Error, Result};

/// Times the list is written at most; more means that somebody keeps undoing it.
const MAX_WRITES: usize = 12;
/// Looks in a row that must find the list as wanted: another writer may have read it before us.
const STEADY: usize = 3;
/// Longest pause between two looks; a writer needs less than that from reading to writing.
const PAUSE: Duration = Duration::from_millis(400);

/// A change of a list.
#[derive(Debug, Clone)]
pub enum Change {
    /// This entry is in it.
    Add(Box<Descriptor>),
    /// None of these is in it.
    Remove(Vec<Digest>),
}

impl Change {
    fn holds(&self, entries: &[Value]) -> bool {
        let lists = |digest: &Digest| entries.iter().any(|e| e["digest"].as_str() == Some(digest.as_ref()));
        match self {
            Change::Add(entry) => lists(entry.digest()),
            Change::Remove(digests) => !digests.iter().any(lists),
        }
    }

    /// Everything else in the list stays as it is.
    fn apply(&self, entries: &mut Vec<Value>) -> Result<()> {
        match self {
            Change::Add(entry) => {
                let entry = serde_json::to_value(entry).map_err(|e| Error::local(e.to_string()))?;
                entries.push(entry);
            }
            Change::Remove(digests) => {
                entries.retain(|e| !digests.iter().any(|d| e["digest"].as_str() == Some(d.as_ref())));
            }
        }
        Ok(())
    }
}

impl Repository {
    /// Makes a change to the list of `subject` and sees to it that it lasts, also when others write at
    /// the same time.
    ///
    /// # Errors
    /// As [`Repository::put_fallback_list`]; Transient when others keep undoing it.
    pub async fn change_list(&self, subject: &Digest, change: &Change) -> Result<()> {
        let (mut writes, mut steady) = (0, 0);
        while steady < STEADY {
            let mut list = read(self, subject).await?;
            let entries = entries_of(&mut list)?;
            if change.holds(entries) {
                steady += 1;
            } else {
                if writes == MAX_WRITES {
                    return Err(Error::transient("others keep changing the list of deltas at the same time"));
                }
                change.apply(entries)?;
                self.put_fallback_list(subject, list.to_string().as_bytes()).await?;
                (writes, steady) = (writes + 1, 0);
            }
            tokio::time::sleep(pause()).await;
        }
        Ok(())
    }
}

async fn read(repository: &Repository, subject: &Digest) -> Result<Value> {
    match repository.fallback_list(subject).await? {
        Some(bytes) => serde_json::from_slice(&bytes)
            .map_err(|e| Error::verification(format!("the list of deltas is no index: {e}")).with_source(e)),
        None => Ok(json!({"schemaVersion": 2, "mediaType": IMAGE_INDEX, "manifests": []})),
    }
}

fn entries_of(list: &mut Value) -> Result<&mut Vec<Value>> {
    list["manifests"].as_array_mut().ok_or_else(|| Error::verification("the list of deltas is no index"))
}

/// Different for each writer and time, so that two do not keep step.
fn pause() -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let noise = (now.subsec_nanos() ^ std::process::id()).wrapping_mul(0x9E37_79B9);
    PAUSE / 4 + PAUSE.mul_f64(0.75 * f64::from(noise) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::digest_of;
    use oci_spec::image::MediaType;

    #[test]
    fn changes_leave_the_rest_alone() {
        let (a, b) = (digest_of(b"a"), digest_of(b"b"));
        let mut list = json!({"manifests": [{"digest": a.to_string(), "unknown": [1]}], "other": 1});
        let entries = entries_of(&mut list).unwrap();
        let add = Change::Add(Box::new(Descriptor::new(MediaType::ImageManifest, 1, b.clone())));
        assert!(!add.holds(entries));
        add.apply(entries).unwrap();
        assert!(add.holds(entries));
        let remove = Change::Remove(vec![b]);
        remove.apply(entries).unwrap();
        assert!(remove.holds(entries));
        assert_eq!(list, json!({"manifests": [{"digest": a.to_string(), "unknown": [1]}], "other": 1}));
    }
}
