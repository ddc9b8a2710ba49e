//! `experimental-image-proxy`: skopeo's image proxy, with layers from deltas.

use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use super::{Context, beside};
use crate::cli::ProxyArgs;
use crate::doors::{self, Settings};
use crate::engine::request::{BaseChoice, PlaceOptions};
use crate::error::{IoContext as _, Result};
use crate::progress::Silent;
use crate::proxy::{Credentials, ProxyOptions};
use crate::session::Session;

/// Runs the command.
pub(super) fn run(context: &Context, args: &ProxyArgs) -> Result<()> {
    // What is said to people would be in the way of who counts.
    let mut session = context.session.clone();
    session.reporter = Arc::new(Silent);
    let settings = access(&args.arguments, &session)?.map(|proxy| Settings {
        place: PlaceOptions { proxy, ..PlaceOptions::default() },
        base: BaseChoice {
            repository: beside(&context.repo),
            ostree: args.ostree(),
            ..BaseChoice::default()
        },
        repository: context.repo.clone(),
        session,
        log,
    });
    doors::serve(&args.arguments, settings)
}

/// How skopeo was told to reach registries; `None` where it was told what we do not know: then all is left to it.
fn access(arguments: &[OsString], session: &Session) -> Result<Option<ProxyOptions>> {
    // Whether an image is allowed, skopeo says when the client opens it, by the policy that it was given.
    let mut options = ProxyOptions { insecure_policy: true, ..ProxyOptions::default() };
    let mut rest = arguments.iter().map(|argument| argument.to_str());
    while let Some(argument) = rest.next() {
        let Some(argument) = argument else { return Ok(None) };
        let (name, given) = match argument.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (argument, None),
        };
        let is_true = given.is_none_or(|value| value == "true");
        match name {
            doors::SUBCOMMAND | "--debug" | "--insecure-policy" => {}
            "--tls-verify" => options.tls_verify = is_true,
            "--no-creds" if is_true => options.authfile = Some(nobody(session)?),
            "--authfile"
            | "--cert-dir"
            | "--creds"
            | "--registries-conf"
            | "--policy"
            | "--user-agent-prefix" => {
                let Some(value) = given.or_else(|| rest.next().flatten()) else { return Ok(None) };
                match name {
                    "--authfile" => options.authfile = Some(value.into()),
                    "--cert-dir" => options.cert_dir = Some(value.into()),
                    "--creds" => match Credentials::parse(value) {
                        Ok(creds) => options.creds = Some(creds),
                        Err(_) => return Ok(None),
                    },
                    "--registries-conf" => options.registries_conf = Some(value.into()),
                    _ => {}
                }
            }
            _ => return Ok(None),
        }
    }
    Ok(doors::find().ok().map(|skopeo| ProxyOptions { skopeo, ..options }))
}

/// A file of credentials that has none.
fn nobody(session: &Session) -> Result<PathBuf> {
    let file = session.scratch()?.join("auth.json");
    fs::write(&file, "{}").at(file.display())?;
    Ok(file)
}

/// A line on standard error, for whoever counts what deltas save.
fn log(line: &str) {
    // Nobody who reads it need be there.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_leaves_all_to_skopeo() {
        let session = Session::new(std::env::temp_dir());
        let read = |words: &[&str]| {
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            access(&words, &session).unwrap()
        };
        let known =
            read(&["--policy", "p", "experimental-image-proxy", "--authfile", "a", "--tls-verify=false"]);
        // Where no skopeo is installed, there is nothing to ask with either.
        if let Some(known) = known {
            assert_eq!((known.authfile, known.tls_verify), (Some("a".into()), false));
            let none = read(&["--no-creds"]).unwrap().authfile.unwrap();
            assert_eq!(fs::read_to_string(none).unwrap(), "{}");
        }
        for unknown in [&["--decryption-key", "k"][..], &["--override-arch=arm64"], &["--authfile"]] {
            assert!(read(unknown).is_none(), "{unknown:?}");
        }
    }
}
