//! libzstd.

use crate::find::Sizes;
use crate::find::zstd::Looks;
use crate::recipe::Method;
use crate::zstd::libzstd::{Checksum, Jobs, Settings, SizeField};

/// The levels, the likeliest first.
const LEVELS: [i32; 19] = [3, 1, 19, 9, 6, 2, 4, 5, 7, 8, 10, 11, 12, 13, 14, 15, 16, 17, 18];

/// The logarithm of a level's window, if the plain bytes are many or not counted.
const fn window_log(level: i32) -> u8 {
    match level {
        ..=1 => 19,
        2 => 20,
        3..=8 => 21,
        9..=16 => 22,
        _ => 23,
    }
}

/// The jobs that the library cuts by itself: four windows, and of the one before the more the better the level searches.
fn usual_jobs(level: i32, window_log: u8) -> Option<Jobs> {
    let overlap = match level {
        ..=7 => 6,
        8..=15 => 7,
        16..=18 => 8,
        _ => 9,
    };
    Jobs::new(1 << (window_log + 2).max(20), overlap)
}

/// Up to here, jobs make no difference.
const BLOCK: u64 = 128 << 10;

/// With jobs and without. The command `zstd`, which writes a checksum, has them unless it is told otherwise.
fn with_jobs(settings: Settings, plain: u64) -> Vec<Settings> {
    let log = settings.window_log.and_then(|log| u8::try_from(log).ok());
    let jobs = usual_jobs(settings.level, log.unwrap_or(window_log(settings.level)));
    let Some(jobs) = jobs.filter(|_| plain > BLOCK) else { return vec![settings] };
    let cut = Settings { jobs: Some(jobs), ..settings };
    if settings.checksum == Checksum::Present && plain >= jobs.size().into() {
        vec![cut, settings]
    } else {
        vec![settings, cut]
    }
}

/// Its ways to make such a frame.
pub(super) fn methods(looks: &Looks, sizes: Sizes) -> Vec<Method> {
    let checksum = if looks.has_checksum { Checksum::Present } else { Checksum::Absent };
    let settings = |level, size, size_field, window_log| Settings {
        level,
        size,
        size_field,
        checksum,
        window_log,
        jobs: None,
    };
    // A window that is no power of two is not of its making.
    let Some(log) = looks.window.map_or(Some(None), |byte| (byte & 7 == 0).then_some(Some((byte >> 3) + 10)))
    else {
        return Vec::new();
    };
    let mut usual = Vec::new();
    let mut rare = Vec::new();
    for level in LEVELS {
        let own = window_log(level);
        match (looks.content, log) {
            // All is in the window.
            (Some(size), None) if size <= 1 << own => {
                usual.push(settings(level, Some(size), SizeField::Written, None));
            }
            (None, None) => {}
            (content, Some(log)) if log == own => {
                usual.push(settings(level, content, SizeField::Written, None));
            }
            // It was told the size, but not to write it.
            (None, Some(log)) if log < own && sizes.plain <= 1 << log => {
                usual.push(settings(level, Some(sizes.plain), SizeField::Omitted, None));
            }
            (content, log) => {
                rare.push(settings(level, content, SizeField::Written, log.map(u32::from)));
            }
        }
    }
    if usual.is_empty() {
        usual = rare;
    }
    let all = usual.into_iter().flat_map(|settings| with_jobs(settings, sizes.plain));
    all.map(|settings| Method::Libzstd { settings }).collect()
}
