//! Shares blobs out to parts of a bundle: pure.

use crate::error::{Error, Result};

/// Most parts of a bundle: a box of media.
pub const MAX_PARTS: usize = 999;

/// A stretch of a blob in a part: all of it, where that has room for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// The part, counted from 0.
    pub part: usize,
    /// Where the stretch begins in the blob.
    pub offset: u64,
    /// Its bytes.
    pub len: u64,
}

/// Shares blobs of these `sizes`, in their order, out to parts that have `room` bytes each, of which a stretch takes
/// `around` more than it has. Only a blob that is larger than a part is cut.
///
/// # Errors
/// Usage when a part has no room for anything, or there would be too many of them.
pub fn cut(sizes: &[u64], room: Option<u64>, around: u64) -> Result<Vec<Vec<Share>>> {
    let Some(room) = room else {
        return Ok(sizes.iter().map(|len| vec![Share { part: 0, offset: 0, len: *len }]).collect());
    };
    let largest = room.saturating_sub(around);
    if largest == 0 {
        return Err(Error::usage("the parts are too small for anything but their own tables")
            .with_hint("allow larger parts"));
    }
    let (mut part, mut left) = (0, room);
    let mut shares = Vec::with_capacity(sizes.len());
    for &size in sizes {
        let mut of_blob = Vec::new();
        let mut offset = 0;
        loop {
            let rest = size - offset;
            // One that fits into a part by itself stays in one piece.
            let wanted = if size <= largest { rest } else { rest.min(left.saturating_sub(around)).max(1) };
            if wanted + around > left {
                (part, left) = (part + 1, room);
                if part >= MAX_PARTS {
                    return Err(Error::usage(format!("the bundle would have more than {MAX_PARTS} parts"))
                        .with_hint("allow larger parts"));
                }
                continue;
            }
            of_blob.push(Share { part, offset, len: wanted });
            left -= wanted + around;
            offset += wanted;
            if offset >= size {
                break;
            }
        }
        shares.push(of_blob);
    }
    Ok(shares)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn all_bytes_are_in_parts_that_hold_them(
            sizes in proptest::collection::vec(0u64..5000, 0..40), room in 400u64..4000, around in 0u64..10
        ) {
            let shares = cut(&sizes, Some(room), around).unwrap();
            let mut used = vec![0; MAX_PARTS];
            for (size, shares) in sizes.iter().zip(&shares) {
                let mut end = 0;
                for share in shares {
                    prop_assert_eq!(share.offset, end);
                    end += share.len;
                    used[share.part] += share.len + around;
                }
                prop_assert_eq!(end, *size);
                prop_assert!(shares.len() == 1 || size + around > room);
            }
            prop_assert!(used.iter().all(|used| *used <= room));
        }
    }

    #[test]
    fn parts_without_room_are_refused() {
        assert!(cut(&[1], Some(5), 5).is_err());
        assert!(cut(&[1000], Some(1), 0).is_err());
        assert_eq!(cut(&[7, 8], None, 5).unwrap()[1], [Share { part: 0, offset: 0, len: 8 }]);
    }
}
