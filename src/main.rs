//! The `oci-delta-fetch` command: runtime, signals, and how a failure ends.

mod allocator;

use std::error::Error as _;
use std::io::Write;
use std::process::ExitCode;
use std::thread::JoinHandle;
use std::time::Duration;

use allocator::{Allocator, set_up};
use oci_delta_fetch::cancel::Cancel;
use oci_delta_fetch::child::allow_open_files;
use oci_delta_fetch::cli::{Typed, failure};
use oci_delta_fetch::commands;
use oci_delta_fetch::doors;
use oci_delta_fetch::error::{Error, IoContext as _, Kind, Result};
use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// How long the work gets to notice that it is over. What it leaves then, it would leave after a kill, too.
const GRACE: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    set_up();
    let arguments = match doors::arguments(std::env::args_os().collect()) {
        Ok(arguments) => arguments,
        Err(e) => return fail(&e, false),
    };
    allow_open_files();
    let typed = Typed::of(arguments);
    let (verbose, as_oci_delta) = (typed.global.verbose, typed.as_oci_delta);
    match supervised(typed) {
        Ok(()) => ExitCode::SUCCESS,
        // The reference tool knows no other.
        Err(e) if as_oci_delta => {
            fail(&e, verbose);
            ExitCode::FAILURE
        }
        Err(e) => fail(&e, verbose),
    }
}

/// Works on a thread of its own, so that whatever blocks there, this one hears signals and keeps time.
fn supervised(typed: Typed) -> Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build().at("cannot start")?;
    runtime.block_on(async {
        let limit = typed.time_limit();
        // From here on no signal is lost.
        let mut signals = Signals::catch()?;
        let cancel = Cancel::default();
        let is_server = typed.is_server();
        let mut work = Work::start(typed, cancel.clone())?;
        let over = async {
            match limit {
                Some(limit) => sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        let end = tokio::select! {
            biased;
            () = signals.any() => Error::new(Kind::Interrupted, "interrupted")
                .with_hint("run again: a fetch goes on from its finished layers"),
            () = over => Error::transient(format!("not done within {} seconds", limit.unwrap_or_default().as_secs()))
                .with_hint("run again to go on from the finished layers"),
            result = work.result() => return result,
        };
        cancel.cancel();
        tokio::select! {
            biased;
            () = signals.any() => {} // once more: at once
            ended = timeout(GRACE, work.result()) => if is_server && let Ok(ended) = ended {
                return ended;
            },
        }
        Err(end)
    })
}

/// The thread that works.
struct Work {
    thread: Option<JoinHandle<()>>,
    result: oneshot::Receiver<Result<()>>,
}

impl Work {
    fn start(typed: Typed, cancel: Cancel) -> Result<Self> {
        let (tell, result) = oneshot::channel();
        let work = move || {
            // Nobody listens any more when the grace is over.
            let _ = tell.send(commands::run(typed, &cancel));
        };
        let thread = std::thread::Builder::new().name("work".into()).spawn(work).at("cannot start")?;
        Ok(Work { thread: Some(thread), result })
    }

    /// What came of it.
    async fn result(&mut self) -> Result<()> {
        match (&mut self.result).await {
            Ok(result) => result,
            Err(_) => match self.thread.take().map(JoinHandle::join) {
                Some(Err(panic)) => std::panic::resume_unwind(panic),
                _ => Err(Error::local("the work ended without a result")),
            },
        }
    }
}

/// Ctrl-C and SIGTERM.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn catch() -> Result<Self> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt()).at("signals")?,
            terminate: signal(SignalKind::terminate()).at("signals")?,
        })
    }

    /// Ends when one of them arrives.
    async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
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
            let _ = writeln!(err, "hint: {}", failure::hint(hint));
        }
    }
    ExitCode::from(failure::exit_code(error.kind()))
}
