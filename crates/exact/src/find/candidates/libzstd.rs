//! libzstd.

use crate::find::Sizes;
use crate::find::zstd::Looks;
use crate::recipe::Method;
use crate::zstd::libzstd::{Checksum, Settings, SizeField};

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

/// Its ways to make such a frame.
pub(super) fn methods(looks: &Looks, sizes: Sizes) -> Vec<Method> {
    let checksum = if looks.has_checksum { Checksum::Present } else { Checksum::Absent };
    let settings =
        |level, size, size_field, window_log| Settings { level, size, size_field, checksum, window_log };
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
    usual.into_iter().map(|settings| Method::Libzstd { settings }).collect()
}
