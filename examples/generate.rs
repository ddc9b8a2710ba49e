//! Writes what comes from the CLI definition: man pages, shell completions, `docs/cli.md`.
//! With `--check`, says what is out of date instead.
#![allow(clippy::print_stderr)]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use clap::{Command, CommandFactory};
use clap_complete::{Shell, generate};
use oci_delta_fetch::cli::Cli;

const INTRO: &str = "docs/cli.intro.md";

fn main() -> ExitCode {
    let check = std::env::args().any(|a| a == "--check");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut stale = 0;
    for (path, content) in files(root) {
        let path = root.join(path);
        if fs::read(&path).is_ok_and(|old| old == content) {
            continue;
        }
        if check {
            eprintln!("out of date, run `make docs-generate`: {}", path.display());
            stale += 1;
        } else {
            fs::create_dir_all(path.parent().expect("a file has a folder")).expect("make the folder");
            fs::write(&path, content).expect("write the file");
        }
    }
    if stale == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn files(root: &Path) -> Vec<(String, Vec<u8>)> {
    let mut command = Cli::command();
    command.build();
    let mut files = Vec::new();
    for (shell, name) in [
        (Shell::Bash, "oci-delta-fetch.bash"),
        (Shell::Zsh, "_oci-delta-fetch"),
        (Shell::Fish, "oci-delta-fetch.fish"),
    ] {
        let mut out = Vec::new();
        generate(shell, &mut Cli::command(), "oci-delta-fetch", &mut out);
        files.push((format!("contrib/completions/{name}"), out));
    }
    files.push(man(Cli::command(), "oci-delta-fetch"));
    for sub in Cli::command().get_subcommands() {
        let name = format!("oci-delta-fetch-{}", sub.get_name());
        files.push(man(sub.clone(), &name));
    }
    let intro = fs::read_to_string(root.join(INTRO)).unwrap_or_default();
    files.push(("docs/cli.md".into(), reference(&command, intro).into_bytes()));
    files
}

fn man(command: Command, name: &str) -> (String, Vec<u8>) {
    let name: &'static str = Box::leak(name.to_owned().into_boxed_str());
    let mut page = Vec::new();
    clap_mangen::Man::new(command.name(name)).render(&mut page).expect("render into memory");
    (format!("contrib/man/{name}.1"), page)
}

fn reference(command: &Command, intro: String) -> String {
    let mut out = intro;
    let sections =
        std::iter::once(command).chain(command.get_subcommands().filter(|s| s.get_name() != "help"));
    for section in sections {
        let title = if section.get_name() == "oci-delta-fetch" {
            "oci-delta-fetch".to_owned()
        } else {
            format!("oci-delta-fetch {}", section.get_name())
        };
        let help = section.clone().term_width(100).render_long_help().to_string();
        let _ = write!(out, "\n## {title}\n\n```text\n{}\n```\n", help.trim_end());
    }
    out.lines().map(str::trim_end).collect::<Vec<_>>().join("\n") + "\n"
}
