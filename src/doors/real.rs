//! The real skopeo, where we are called by its name.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FileType, fstat};

use super::SUBCOMMAND;
use crate::child::HELPER;
use crate::error::{Error, Result};

/// Names the real skopeo.
const NAMED: &str = "OCI_DELTA_FETCH_SKOPEO";

/// What [`HELPER`] is for a program that we became, or that we relay to: if that is us again, something is wrong.
const RELAYED: &str = "relayed";

/// The command line for us, where we are called as skopeo to be an image proxy; as anything else that is skopeo we
/// become the real one.
///
/// # Errors
/// When there is none.
pub fn arguments(mut typed: Vec<OsString>) -> Result<Vec<OsString>> {
    let is_skopeo =
        typed.first().is_some_and(|name| Path::new(name).file_name() == Some(OsStr::new("skopeo")));
    if !is_skopeo {
        // What follows is for skopeo, also where we have an option of that name.
        let is_help = |argument: &OsString| argument == "--help" || argument == "-h";
        if typed.get(1).is_some_and(|word| word == SUBCOMMAND) && !typed.get(2).is_some_and(is_help) {
            typed.insert(2, "--".into());
        }
        return Ok(typed);
    }
    let rest = typed.split_off(1);
    if !is_ours(&rest) {
        let error = command()?.args(rest).exec();
        return Err(Error::local(format!("skopeo cannot be run: {error}")));
    }
    typed.extend([SUBCOMMAND.into(), "--".into()]);
    typed.extend(rest);
    Ok(typed)
}

/// Is it an image proxy, whose client waits at standard input? Not for programs that we started ourselves: those get
/// what there is, without deltas.
fn is_ours(arguments: &[OsString]) -> bool {
    let has = |what: &str| arguments.iter().any(|a| a.as_encoded_bytes().starts_with(what.as_bytes()));
    let waits =
        || fstat(std::io::stdin()).is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Socket);
    std::env::var_os(HELPER).is_none() && has(SUBCOMMAND) && !has("--sockfd") && waits()
}

/// The command that is the real skopeo, without arguments.
///
/// # Errors
/// When there is none.
pub(super) fn command() -> Result<Command> {
    if std::env::var_os(HELPER).is_some_and(|state| state == RELAYED) {
        return Err(Error::local("what is found as skopeo leads back to this program")
            .with_hint(format!("name the real one in {NAMED}")));
    }
    let mut command = Command::new(find()?);
    command.env(HELPER, RELAYED);
    Ok(command)
}

/// The one that is named, or the next on the path that is not this program.
///
/// # Errors
/// When there is none.
pub fn find() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os(NAMED).filter(|named| !named.is_empty()) {
        return Ok(named.into());
    }
    let this = fs::metadata("/proc/self/exe").map(|this| (this.dev(), this.ino())).ok();
    let is_another = |path: &Path| {
        fs::metadata(path).is_ok_and(|other| {
            other.is_file() && other.mode() & 0o111 != 0 && this != Some((other.dev(), other.ino()))
        })
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join("skopeo")).find(|path| is_another(path));
    found.ok_or_else(|| {
        Error::local("there is no skopeo on PATH beside this program")
            .with_hint(format!("install skopeo, or name it in {NAMED}"))
    })
}
