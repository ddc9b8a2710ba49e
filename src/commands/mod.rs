//! The commands: each wires the parts together; no bytes are worked on here.

mod apply;
mod bundle;
mod create;
mod doctor;
mod export;
mod fetch;
mod files;
mod helper;
mod inspect;
mod publish;
mod report;
mod repository;
mod serve;

use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use tokio::runtime::Builder;

use crate::cancel::Cancel;
use crate::cli::{Command, Typed};
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::progress::Event;
use crate::reference::PodmanPlace;
use crate::session::Session;
use crate::store::StoreRef;
use crate::terminal;

/// How long threads get to notice that a command was stopped, before what they work with is removed.
const SHUTDOWN: Duration = Duration::from_secs(1);

/// The repository of a machine, for those who have no home.
const SYSTEM_REPO: &str = "/var/lib/oci-delta-fetch";

/// What every command gets.
#[derive(Debug)]
struct Context {
    repo: StoreRef,
    json: bool,
    verbose: bool,
    /// Prints what the reference tool prints.
    as_oci_delta: bool,
    session: Session,
}

impl Context {
    fn new(Typed { global, command, as_oci_delta }: &Typed, cancel: Cancel) -> Result<Self> {
        let repo = match &global.repo {
            Some(repo) => repo.clone(),
            // A service may have no home, and then the one of the system.
            None if matches!(command, Command::ImageProxy(_) | Command::Serve(_)) => {
                StoreRef::Layout(default_repo().unwrap_or_else(|_| SYSTEM_REPO.into()))
            }
            None => StoreRef::Layout(default_repo()?),
        };
        let mut session = Session::new(spool_dir());
        session.cancel = cancel;
        session.reporter = terminal::reporter(global.progress, global.quiet);
        session.notes = notes_dir();
        Ok(Context { repo, json: global.json, verbose: global.verbose, as_oci_delta: *as_oci_delta, session })
    }

    /// A line for people, on standard error.
    fn say(&self, line: &str) {
        self.session.reporter.event(Event::Message(line));
    }

    /// The result, on standard output: one JSON object or text.
    fn print<T: Serialize>(&self, result: &T, text: impl FnOnce() -> String) -> Result<()> {
        let shown = if self.json {
            let mut json = serde_json::to_string_pretty(result)
                .map_err(|e| Error::local(format!("report: {e}")).with_source(e))?;
            json.push('\n');
            json
        } else {
            text()
        };
        write_stdout(&shown)
    }
}

/// Runs the command that was typed, on this thread.
///
/// # Errors
/// The command's; its kind picks the exit code.
pub fn run(typed: Typed, cancel: &Cancel) -> Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build().at("cannot start")?;
    let context = Context::new(&typed, cancel.clone())?;
    let is_server = typed.is_server();
    let work = Box::pin(command(typed.command, &context));
    // A server ends what is under way.
    let result = if is_server { runtime.block_on(work) } else { runtime.block_on(cancel.until(work)) };
    // Before the context goes, with the directories of the session.
    runtime.shutdown_timeout(SHUTDOWN);
    result
}

async fn command(command: Command, context: &Context) -> Result<()> {
    match command {
        Command::Fetch(args) => fetch::run(context, &args).await,
        Command::Create(args) => create::run(context, *args).await,
        Command::Export(args) => export::run(context, &args).await,
        Command::Apply(args) => apply::apply(context, &args).await,
        Command::Import(args) => apply::import(context, &args).await,
        Command::Inspect(args) => inspect::run(context, &args).await,
        Command::Push(args) => publish::push(context, &args).await,
        Command::Deltas(args) => publish::deltas(context, &args).await,
        Command::Prune(args) => publish::prune(context, &args).await,
        Command::ImageProxy(args) => helper::run(context, &args),
        Command::Bundle(args) => bundle::bundle(context, &args).await,
        Command::Unbundle(args) => bundle::unbundle(context, &args).await,
        Command::Inventory(args) => bundle::list(context, &args).await,
        Command::Doctor(args) => doctor::run(context, &args).await,
        Command::Serve(args) => serve::run(context, &args).await,
        Command::Init(args) => repository::init(context, &args),
        Command::List => repository::list(context),
        Command::Verify(args) => repository::verify(context, &args),
        Command::Remove(args) => repository::remove(context, &args),
        Command::Gc(args) => repository::gc(context, &args),
    }
}

/// Where large temporary files go: `$TMPDIR`, else `/var/tmp`, which unlike `/tmp` is seldom in memory.
fn spool_dir() -> PathBuf {
    let named = std::env::var_os("TMPDIR").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let usual = || Some(PathBuf::from("/var/tmp")).filter(|dir| dir.is_dir());
    named.or_else(usual).unwrap_or_else(std::env::temp_dir)
}

/// `$XDG_DATA_HOME/oci-delta-fetch`, else below `~/.local/share`.
fn default_repo() -> Result<PathBuf> {
    in_home("XDG_DATA_HOME", ".local/share").ok_or_else(|| {
        Error::usage("no repository: neither XDG_DATA_HOME nor HOME is set").with_hint("give --repo DIR")
    })
}

/// Notes on registries and recipes, below `$XDG_CACHE_HOME` or `~/.cache`; none without either.
fn notes_dir() -> Option<PathBuf> {
    in_home("XDG_CACHE_HOME", ".cache")
}

/// What can be made again, below that.
fn cache_dir(name: &str) -> Option<PathBuf> {
    notes_dir().map(|dir| dir.join(name))
}

/// Our directory in the one that `variable` names, else below the home directory (XDG base directory specification).
fn in_home(variable: &str, usual: &str) -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let dir = absolute(variable).or_else(|| absolute("HOME").map(|home| home.join(usual)))?;
    Some(dir.join("oci-delta-fetch"))
}

/// Podman's storage, for those that look for bases wherever they may be; not beside itself.
fn beside(repository: &StoreRef) -> Option<StoreRef> {
    Some(StoreRef::Podman(PodmanPlace::default())).filter(|storage| storage != repository)
}

fn write_stdout(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|e| match e.kind() {
        ErrorKind::BrokenPipe => Error::new(Kind::ClosedPipe, "standard output was closed"),
        _ => Error::from_io(e, "standard output"),
    })
}
