//! Makes a blob by its recipe: `rebuild RECIPE [THREADS [FIX]] < PLAIN > BLOB`.

use std::io;
use std::num::NonZeroUsize;

use exact_encoders::recipe::{Rebuild, Recipe};

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let recipe = arguments.next().and_then(|text| text.parse::<Recipe>().ok());
    let recipe =
        recipe.ok_or_else(|| io::Error::other("usage: rebuild RECIPE [THREADS [FIX]] < PLAIN > BLOB"))?;
    let threads = arguments.next().and_then(|number| number.parse().ok()).unwrap_or(NonZeroUsize::MIN);
    let fix = arguments.next().map(std::fs::read).transpose()?;
    let mut rebuild = Rebuild::new(&recipe, fix, threads, io::stdout().lock())?;
    io::copy(&mut io::BufReader::with_capacity(1 << 18, io::stdin()), &mut rebuild)?;
    rebuild.finish().map(drop)
}
