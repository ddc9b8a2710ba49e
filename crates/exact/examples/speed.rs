//! Measures the encoder of a recipe: `speed RECIPE THREADS ROUNDS < FILE` prints the best MB/s of plain bytes.

use std::io::{self, Read, Write};
use std::num::NonZeroUsize;
use std::time::Instant;

use exact_encoders::recipe::Recipe;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let mut next = || args.next().ok_or("usage: speed RECIPE THREADS ROUNDS < FILE");
    let recipe: Recipe = next()?.parse()?;
    let threads: NonZeroUsize = next()?.parse()?;
    let rounds: u32 = next()?.parse()?;
    let mut plain = Vec::new();
    io::stdin().read_to_end(&mut plain)?;
    let mut best = 0.0f64;
    for _ in 0..rounds {
        let start = Instant::now();
        let mut encoder =
            recipe.encoder(threads).ok_or("a recipe with corrections has no encoder of its own")?;
        let mut out = Vec::new();
        for piece in plain.chunks(32_768) {
            encoder.push(piece, &mut out);
            out.clear();
        }
        encoder.finish(&mut out);
        best = best.max(plain.len() as f64 / 1e6 / start.elapsed().as_secs_f64());
    }
    writeln!(io::stdout(), "{best:.1}")?;
    Ok(())
}
