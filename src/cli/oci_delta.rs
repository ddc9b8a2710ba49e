//! The reference tool's command line, for a program that is called `oci-delta`: its commands alone, with all of its
//! options shown.

use std::ffi::OsString;
use std::path::Path;

use clap::{Args as _, CommandFactory as _, FromArgMatches as _};

use super::{Cli, Command, GlobalArgs, Typed};

/// The name that makes the program this tool.
const NAME: &str = "oci-delta";

/// Its commands.
const COMMANDS: [&str; 3] = ["create", "apply", "import"];

/// Options of every command that it does not have.
const OURS: [&str; 3] = ["repo", "json", "progress"];

const EXAMPLES: &str = "\
Examples:
  oci-delta create old.oci-archive new.oci-archive update.oci-delta
  oci-delta apply --directory / update.oci-delta new.oci-archive
  oci-delta import -t localhost/os:1.1 update.oci-delta

This is oci-delta-fetch under another name; oci-delta-fetch --help shows what else it can do.
Exit codes: 0 done, 1 failed";

/// Is the program called so?
pub(super) fn is_meant(program: Option<&OsString>) -> bool {
    program.and_then(|path| Path::new(path).file_name()).is_some_and(|name| name == NAME)
}

/// The definition.
pub(super) fn command() -> clap::Command {
    let command = clap::Command::new(NAME)
        .version(env!("CARGO_PKG_VERSION"))
        .about("Makes and applies deltas between container or OS images")
        .after_help(EXAMPLES)
        .max_term_width(100)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true);
    let command = GlobalArgs::augment_args(command).mut_args(|arg| {
        let ours = OURS.contains(&arg.get_id().as_str());
        arg.hide(ours)
    });
    let all = Cli::command();
    let commands = all.get_subcommands().filter(|sub| COMMANDS.contains(&sub.get_name()));
    command.subcommands(commands.map(|sub| sub.clone().mut_args(|arg| arg.hide(false))))
}

/// Parses a command line.
///
/// # Errors
/// clap's, also for `--help` and `--version`.
pub(super) fn parse(args: Vec<OsString>) -> Result<Typed, clap::Error> {
    let matches = command().try_get_matches_from(args)?;
    Ok(Typed {
        global: GlobalArgs::from_arg_matches(&matches)?,
        command: Command::from_arg_matches(&matches)?,
        as_oci_delta: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(words: &[&str]) -> Result<Typed, clap::Error> {
        parse(words.iter().map(OsString::from).collect())
    }

    #[test]
    fn the_definition_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn the_calls_of_the_reference_tool_are_understood() {
        for line in [
            "oci-delta create --debug oci:A:img oci:B:img oci:D:img",
            "oci-delta create -v -s -j 2 --binary-diff auto --compression-level 3 --zstd-diff-level -1 \
             --zstd-diff-window 0 --max-zstd-diff-size 128 --max-bsdiff-size 192 --signature sig.oci \
             --signature oci:sig --log-level warn -q a b c",
            "oci-delta apply --ostree-repo /ostree/repo D OUT",
            "oci-delta apply --directory=/ --verify-key cosign.pub --debug -q D oci:OUT",
            "oci-delta apply --container-storage /var/lib/containers/storage D OUT",
            "oci-delta import --container-storage /s -t NAME --verify-key K D",
            "oci-delta import --tag NAME --log-level info D",
        ] {
            // Statistics and silence at once are not for us to judge.
            let words: Vec<&str> = line.split_whitespace().filter(|word| *word != "-v").collect();
            let typed = typed(&words).unwrap_or_else(|e| panic!("{line}: {e}"));
            assert!(typed.as_oci_delta, "{line}");
        }
        for line in [
            "oci-delta",
            "oci-delta list",
            "oci-delta registry.example.com/os:1.1",
            "oci-delta apply --directory / --container-storage /s D OUT",
            "oci-delta apply D",
        ] {
            assert!(typed(&line.split_whitespace().collect::<Vec<_>>()).is_err(), "{line}");
        }
    }

    #[test]
    fn the_name_decides() {
        for (name, meant) in [("/usr/bin/oci-delta", true), ("oci-delta", true), ("oci-delta-fetch", false)] {
            assert_eq!(is_meant(Some(&name.into())), meant, "{name}");
        }
        assert!(!is_meant(None));
    }
}
