//! A recipe's text, or a fix for one of some recipes, followed with some plain bytes. Errors are fine; panics, blobs larger than
//! the recipe says, and memory without end are bugs.
#![no_main]

use std::io::{self, Write};
use std::num::NonZeroUsize;

use exact_encoders::fix::FixDigest;
use exact_encoders::recipe::{Rebuild, Recipe};
use libfuzzer_sys::fuzz_target;

/// The most bytes of a blob that are taken.
const MOST: u64 = 4 << 20;

/// Counts what comes out.
struct Bounded(u64);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        if self.0 > MOST { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes.len()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Recipes that need a fix: the first byte of the input names one, or none of them.
const RECIPES: [&str; 4] = [
    r#"{"v":1,"size":99999,"wrap":"gzip","head":"1f8b","enc":"tokens","fam":"1","lvl":0,"frame":{"kind":"stream"}"#,
    r#"{"v":1,"size":99999,"wrap":"gzip","head":"1f8b","enc":"go-flate","fam":"1.26","lvl":1,"frame":{"kind":"stream"}"#,
    r#"{"v":1,"size":99999,"wrap":"zstd","enc":"kp-zstd","fam":"1.18.5","lvl":1,"frame":{"kind":"whole","plain":9}"#,
    r#"{"v":1,"size":99999,"wrap":"zstd","enc":"libzstd","fam":"1.5.7","lvl":1,"frame":{"kind":"jobs","sum":1,"job":524288,"overlap":6}"#,
];

fuzz_target!(|data: &[u8]| {
    let plain: Vec<u8> = (0..20_000u32).map(|i| (i % 251 * (i >> 9)) as u8).collect();
    let known = data.split_first().and_then(|(first, rest)| Some((RECIPES.get(usize::from(*first))?, rest)));
    let (text, fix) = match known {
        // What begins a fix is not to be guessed, nor are digests.
        Some((text, rest)) => {
            let fix = [b"odfx1\n", rest].concat();
            (format!(r#"{text},"fix":"{}"}}"#, FixDigest::of(&fix)), Some(fix))
        }
        None => (String::from_utf8_lossy(data).into_owned(), None),
    };
    let Ok(recipe) = text.parse::<Recipe>() else { return };
    assert_eq!(recipe.to_string().parse::<Recipe>().as_ref(), Ok(&recipe));
    let Ok(mut rebuild) = Rebuild::new(&recipe, fix, NonZeroUsize::MIN, Bounded(0)) else { return };
    if plain.chunks(7000).all(|piece| rebuild.write_all(piece).is_ok())
        && let Ok(Bounded(count)) = rebuild.finish()
    {
        assert_eq!(count, recipe.size());
    }
});
