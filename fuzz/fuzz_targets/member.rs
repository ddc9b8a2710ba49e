//! A file with members, or the recipe of one. Errors are fine; panics, more bytes than were allowed, members that overlap, and
//! memory without end are bugs.
#![no_main]

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use oci_delta_fetch::cancel::Cancel;
use oci_delta_fetch::member::{Coding, Encoder, Limits, Recipe, Sizes, find, open};
use oci_delta_fetch::region::Region;

/// The most bytes of what is in a member.
const MAX: u64 = 1 << 20;

/// Takes so many bytes.
struct Bounded(u64);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len() as u64).expect("more than was allowed");
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn look_into(content: &[u8]) {
    let region = Region::of(Arc::new(Box::<[u8]>::from(content)), content.len() as u64);
    let limits = Limits { packed: 1 << 16, plain: MAX, members: 16 };
    let mut end = 0;
    for member in find(&region, &limits, &Cancel::default()).unwrap() {
        let range = member.range;
        assert!(end <= range.start && range.start < range.end && range.end <= region.len());
        end = range.end;
        let stretch = region.slice(range.start, range.end - range.start);
        let _ = open(&stretch, member.coding, &mut Bounded(MAX), MAX);
    }
}

fn follow(text: &str) {
    let Ok(recipe) = text.parse::<Recipe>() else { return };
    assert_eq!(recipe.to_string().parse().as_ref(), Ok(&recipe));
    let plain: Vec<u8> = (0..20_000u32).map(|i| (i % 251 * (i >> 9)) as u8).collect();
    let sizes = Sizes { packed: 30_000, plain: plain.len() as u64 };
    // What large settings take is true, and slow.
    if recipe.memory(sizes) > 24 << 20 {
        return;
    }
    let Ok(mut encoder) = Encoder::new(&recipe, sizes, NonZeroUsize::MIN, Bounded(sizes.packed)) else {
        return;
    };
    if plain.chunks(7000).all(|piece| encoder.write_all(piece).is_ok()) {
        let _ = encoder.finish();
    }
}

fuzz_target!(|data: &[u8]| {
    // The first byte tells what it is: a bare stream of some coding, a recipe, or a file.
    match data.split_first() {
        Some((number @ 1..=5, stream)) => {
            let region = Region::of(Arc::new(Box::<[u8]>::from(stream)), stream.len() as u64);
            let coding = Coding::from_number(*number).unwrap();
            let _ = open(&region, coding, &mut Bounded(MAX), MAX);
        }
        // Names and punctuation are not to be guessed.
        Some((b'x', [check, preset, props, filters @ ..])) => {
            let filters: String = filters.iter().map(|byte| format!("{byte:02x}")).collect();
            follow(&format!(
                r#"{{"v":1,"wrap":"xz","check":{check},"preset":"{preset}","props":{props},"filters":"{filters}"}}"#
            ));
        }
        Some((b'r', text)) => follow(&String::from_utf8_lossy(text)),
        _ => look_into(data),
    }
});
