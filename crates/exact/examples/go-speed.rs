//! Measures an encoder: `go-speed LEVEL THREADS ROUNDS < FILE` prints the best MB/s of plain bytes.

use std::io::{self, Read, Write};
use std::num::NonZeroUsize;
use std::time::Instant;

use exact_encoders::deflate::go::{self, Level};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut numbers = std::env::args().skip(1).map(|arg| arg.parse::<i32>());
    let mut next = || numbers.next().ok_or("usage: go-speed LEVEL THREADS ROUNDS < FILE");
    let (level, threads, rounds) = (Level::new(next()??)?, next()??, next()??);
    let threads = NonZeroUsize::new(usize::try_from(threads)?).ok_or("threads: at least 1")?;
    let mut plain = Vec::new();
    io::stdin().read_to_end(&mut plain)?;
    let mut best = 0.0f64;
    for _ in 0..rounds {
        let start = Instant::now();
        let mut encoder = go::encoder(level, threads);
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
