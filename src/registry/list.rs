//! The list of referrers under the fallback tag, which its writers keep by reading,
//! changing and writing it (distribution specification 1.1, "Referrers Tag Schema").

use std::time::{Duration, SystemTime};

use oci_spec::image::Descriptor;
use serde_json::{Value, json};

use super::{IMAGE_INDEX, MAX_LISTING, RemoteRepository, page};
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
    /// This entry is in it. Entries go without `data` where that would make the list larger than `room` bytes.
    Add {
        /// The entry.
        entry: Box<Descriptor>,
        /// What all readers of the list take.
        room: u64,
    },
    /// None of these is in it.
    Remove(Vec<Digest>),
}

impl Change {
    fn holds(&self, entries: &[Value]) -> bool {
        let lists = |digest: &Digest| entries.iter().any(|e| e["digest"].as_str() == Some(digest.as_ref()));
        match self {
            Change::Add { entry, .. } => lists(entry.digest()),
            Change::Remove(digests) => !digests.iter().any(lists),
        }
    }

    /// Everything else in the list stays as it is.
    fn apply(&self, list: &mut Value) -> Result<()> {
        match self {
            Change::Add { entry, room } => {
                let entry = serde_json::to_value(entry).map_err(|e| Error::local(e.to_string()))?;
                entries_of(list)?.push(entry);
                make_room(list, *room)?;
            }
            Change::Remove(digests) => {
                entries_of(list)?
                    .retain(|e| !digests.iter().any(|d| e["digest"].as_str() == Some(d.as_ref())));
            }
        }
        Ok(())
    }
}

/// Takes the data out of the last entry, and then out of all, if the list is too large: it is a copy.
fn make_room(list: &mut Value, room: u64) -> Result<()> {
    let last = entries_of(list)?.len().saturating_sub(1);
    for first in [last, 0] {
        if list.to_string().len() as u64 > room {
            entries_of(list)?[first..].iter_mut().filter_map(Value::as_object_mut).for_each(|entry| {
                entry.shift_remove("data");
            });
        }
    }
    Ok(())
}

impl RemoteRepository {
    /// Makes a change to the list of `subject` and sees to it that it lasts, also when others write at
    /// the same time.
    ///
    /// # Errors
    /// As [`RemoteRepository::put_fallback_list`]; Transient when others keep undoing it.
    pub async fn change_list(&self, subject: &Digest, change: &Change) -> Result<()> {
        let (mut writes, mut steady) = (0, 0);
        while steady < STEADY {
            let mut list = read(self, subject).await?;
            if change.holds(entries_of(&mut list)?) {
                steady += 1;
            } else {
                if writes == MAX_WRITES {
                    return Err(Error::transient("others keep changing the list of deltas at the same time"));
                }
                change.apply(&mut list)?;
                self.put_fallback_list(subject, list.to_string().as_bytes()).await?;
                (writes, steady) = (writes + 1, 0);
            }
            tokio::time::sleep(pause()).await;
        }
        Ok(())
    }
}

/// What stands there and is no list is no list yet.
async fn read(repository: &RemoteRepository, subject: &Digest) -> Result<Value> {
    let bytes = repository.fallback_list(subject, MAX_LISTING).await?;
    let list = bytes.and_then(|bytes| page::to_change(&bytes));
    Ok(list.unwrap_or_else(|| json!({"schemaVersion": 2, "mediaType": IMAGE_INDEX, "manifests": []})))
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
        let add = add(&b, u64::MAX);
        assert!(!add.holds(entries_of(&mut list).unwrap()));
        add.apply(&mut list).unwrap();
        assert!(add.holds(entries_of(&mut list).unwrap()));
        let remove = Change::Remove(vec![b]);
        remove.apply(&mut list).unwrap();
        assert!(remove.holds(entries_of(&mut list).unwrap()));
        assert_eq!(list, json!({"manifests": [{"digest": a.to_string(), "unknown": [1]}], "other": 1}));
    }

    #[test]
    fn data_stays_out_of_a_list_that_it_would_make_too_large() {
        let carried = |room| {
            let mut list = json!({"manifests": []});
            ["a", "b"].iter().for_each(|x| add(&digest_of(x.as_bytes()), room).apply(&mut list).unwrap());
            let data = [0, 1].map(|at| list["manifests"][at]["data"].as_str().is_some());
            (data, list.to_string().len() as u64)
        };
        let (data, size) = carried(u64::MAX);
        assert_eq!(data, [true, true]);
        assert_eq!(carried(size - 1).0, [true, false]);
        assert_eq!(carried(1).0, [false, false]);
    }

    fn add(digest: &Digest, room: u64) -> Change {
        let mut entry = Descriptor::new(MediaType::ImageManifest, 3, digest.clone());
        entry.set_data(Some("eHh4".to_owned()));
        Change::Add { entry: Box::new(entry), room }
    }
}
