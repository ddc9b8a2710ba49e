//! The `oci-delta-fetch` command: runtime, signals, and how a failure ends.

use std::error::Error as _;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use oci_delta_fetch::allocator::{Allocator, set_up};
use oci_delta_fetch::cli::Cli;
use oci_delta_fetch::error::{Error, Kind, Result};
use oci_delta_fetch::{cancel, commands};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// How long workers get to notice that the run is over.
const SHUTDOWN: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    set_up();
    allow_open_files();
    let cli = Cli::from_args();
    let verbose = cli.global.verbose;
    // One thread: skopeo is bound to the life of the thread that starts it.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return fail(&Error::from_io(e, "cannot start"), verbose),
    };
    let cancel = cancel::Cancel::default();
    let result = runtime.block_on(async {
        tokio::select! {
            result = commands::run(cli, cancel.clone()) => result,
            result = interrupted() => {
                cancel.cancel();
                result
            }
        }
    });
    runtime.shutdown_timeout(SHUTDOWN);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => fail(&e, verbose),
    }
}

/// As many open files as this user may have at all: base files are open by the hundred in each layer
/// that is rebuilt, and systems begin with 1,024 only for programs that call `select`.
fn allow_open_files() {
    let limit = getrlimit(Resource::Nofile);
    // Refused, it stays as it is.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// Ends when Ctrl-C or SIGTERM arrives.
async fn interrupted() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| Error::from_io(e, "signals"))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| Error::from_io(e, "signals"))?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Err(Error::new(Kind::Interrupted, "interrupted")
        .with_hint("run again: a fetch goes on from its finished layers"))
}

fn fail(error: &Error, verbose: bool) -> ExitCode {
    if error.kind() != Kind::ClosedPipe {
        let mut err = std::io::stderr().lock();
        let _ = writeln!(err, "error: {error}");
        let mut cause = error.source().filter(|_| verbose);
        while let Some(e) = cause {
            let _ = writeln!(err, "caused by: {e}");
            cause = e.source();
        }
        if let Some(hint) = error.hint() {
            let _ = writeln!(err, "hint: {hint}");
        }
    }
    ExitCode::from(error.kind().exit_code())
}
