//! Measures klauspost's zstd: `zstd-speed LEVEL ROUNDS < FILE` prints the best MB/s of plain bytes; LEVEL is 1 for
//! fastest, 2 for default.

use std::io::{self, Read, Write};
use std::time::Instant;

use exact_encoders::zstd::klauspost::{self, Calls, Family, Level};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut numbers = std::env::args().skip(1).map(|arg| arg.parse::<u32>());
    let mut next = || numbers.next().ok_or("usage: zstd-speed LEVEL ROUNDS < FILE");
    let level = if next()?? == 1 { Level::Fastest } else { Level::Default };
    let rounds = next()??;
    let mut plain = Vec::new();
    io::stdin().read_to_end(&mut plain)?;
    let mut best = 0.0f64;
    for _ in 0..rounds {
        let start = Instant::now();
        let mut encoder = klauspost::encoder(Family::V1_15_9, level, Calls::containers_image());
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
