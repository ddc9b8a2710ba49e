//! Prints the recipe of a blob, or why there is none: `find BLOB PLAIN [THREADS]`.

use std::fs::File;
use std::io::{self, BufReader, Write};
use std::num::NonZeroUsize;
use std::time::Instant;

use exact_encoders::find::find_or_fix;

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (blob, plain, threads) = match arguments.as_slice() {
        [blob, plain] => (blob, plain, None),
        [blob, plain, threads] => (blob, plain, threads.parse().ok()),
        _ => return Err(io::Error::other("usage: find BLOB PLAIN [THREADS]")),
    };
    let open = |path: &String| File::open(path).map(BufReader::new);
    let start = Instant::now();
    let found = find_or_fix(|| open(blob), || open(plain), threads.unwrap_or(NonZeroUsize::MIN), || false);
    let found = found.map_err(io::Error::other)?;
    writeln!(io::stdout(), "{}", found.recipe)?;
    if let Some(fix) = found.fix {
        writeln!(io::stderr(), "a fix of {} bytes", fix.len())?;
    }
    writeln!(io::stderr(), "{:.1} s", start.elapsed().as_secs_f64())
}
