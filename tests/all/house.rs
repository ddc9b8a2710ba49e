//! The house rules that a compiler does not check: imports go down the table in `docs/architecture.md`,
//! and files of one folder do not import each other in a circle.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Everything may import it.
const ERROR: &str = "error";

/// A row of the table.
struct Row {
    modules: Vec<String>,
    imports: Imports,
}

enum Imports {
    /// Those in the rows below.
    AllBelow,
    /// Within the row, those to the right.
    ToTheRight,
    These(Vec<String>),
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn table() -> Vec<Row> {
    let text = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let rows = text.lines().skip_while(|line| !line.starts_with("| module |")).skip(2);
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let imports = match cells[3] {
            "all below" => Imports::AllBelow,
            "each other, to the right" => Imports::ToTheRight,
            named => Imports::These(quoted(named)),
        };
        Row { modules: quoted(cells[1]), imports }
    };
    rows.take_while(|line| line.starts_with('|')).map(row).collect()
}

/// The names in back quotes.
fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// What the modules import of each other.
fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let mut imports: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let src = root().join("src");
    for file in rust_files(&src) {
        let path = file.strip_prefix(&src).unwrap().with_extension("");
        let module = path.iter().next().unwrap().to_str().unwrap().to_owned();
        if module == "lib" {
            continue; // only declares the modules
        }
        let text = fs::read_to_string(&file).unwrap();
        assert!(!text.contains("crate::{"), "{}: one line for each module, please", file.display());
        let found = imports.entry(module.clone()).or_default();
        found.extend(named_after("crate::", &text));
        found.remove(&module);
        found.remove(ERROR);
    }
    imports
}

/// The names that follow `prefix`, alone or in braces, in what is no comment.
fn named_after(prefix: &str, text: &str) -> BTreeSet<String> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let text = lines.collect::<Vec<_>>().join(" ");
    let not_of_a_name = |c: char| !c.is_alphanumeric() && c != '_';
    let mut names = BTreeSet::new();
    for (at, _) in text.match_indices(prefix) {
        let rest = &text[at + prefix.len()..];
        let named = match rest.strip_prefix('{') {
            Some(braces) => braces.split('}').next().unwrap_or_default(),
            None => rest.split(not_of_a_name).next().unwrap_or_default(),
        };
        let first = |name: &str| name.trim().split(not_of_a_name).next().map(str::to_owned);
        names.extend(named.split(',').filter_map(first));
    }
    names.remove("");
    names
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let (dirs, files): (Vec<_>, Vec<_>) = paths.partition(|path| path.is_dir());
    let nested = dirs.iter().flat_map(|dir| rust_files(dir));
    files.into_iter().filter(|path| path.extension().is_some_and(|e| e == "rs")).chain(nested).collect()
}

#[test]
fn imports_go_down_the_table_of_the_architecture() {
    let table = table();
    let imports = imports();
    let listed: BTreeSet<&String> = table.iter().flat_map(|row| &row.modules).collect();
    assert_eq!(listed, imports.keys().collect(), "the table lists the modules there are");
    for (i, row) in table.iter().enumerate() {
        let below: BTreeSet<String> = table[i + 1..].iter().flat_map(|row| row.modules.clone()).collect();
        for (position, module) in row.modules.iter().enumerate() {
            let found = &imports[module];
            match &row.imports {
                Imports::AllBelow => assert!(found.is_subset(&below), "{module} imports upwards: {found:?}"),
                Imports::ToTheRight => {
                    let right = row.modules[position + 1..].iter().cloned().collect();
                    assert!(found.is_subset(&right), "{module} imports upwards: {found:?}");
                }
                Imports::These(named) => {
                    let named: BTreeSet<String> = named.iter().cloned().collect();
                    assert!(named.is_subset(&below), "the table lets {module} import upwards: {named:?}");
                    assert_eq!(*found, named, "what {module} imports, and what the table says");
                }
            }
        }
    }
}

#[test]
fn files_of_a_folder_do_not_import_each_other_in_a_circle() {
    let mut folders: BTreeMap<PathBuf, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for file in rust_files(&root().join("src")) {
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        let found = named_after("super::", &fs::read_to_string(&file).unwrap());
        folders.entry(file.parent().unwrap().to_owned()).or_default().insert(name, found);
    }
    for (folder, mut files) in folders {
        // Who imports nobody that is left goes; a circle stays.
        loop {
            let left: BTreeSet<String> = files.keys().cloned().collect();
            files.retain(|name, found| found.iter().any(|other| other != name && left.contains(other)));
            if files.len() == left.len() {
                break;
            }
        }
        assert!(files.is_empty(), "{}: a circle among {:?}", folder.display(), files.keys());
    }
}

/// Files of the program, which has a terminal and options.
const PROGRAM: [&str; 6] = ["main.rs", "cli.rs", "cli", "commands", "terminal.rs", "allocator.rs"];

/// The files of the library, with what is no test of theirs.
fn library() -> Vec<(PathBuf, String)> {
    let src = root().join("src");
    let of_program = |file: &Path| PROGRAM.iter().any(|name| file.starts_with(src.join(name)));
    let files = rust_files(&src).into_iter().filter(|file| !of_program(file));
    let read = |file: PathBuf| {
        let text = fs::read_to_string(&file).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests").next().unwrap().to_owned();
        (file, text)
    };
    files.map(read).collect()
}

#[test]
fn the_library_has_no_terminal_and_no_options() {
    // Of skopeo, which is told what to do, or whose user is.
    let of_skopeo =
        ["command.rs", "inspect.rs", "probe.rs", "push.rs"].map(|file| format!("src/proxy/{file}"));
    let shown = ["skopeo copy --", "docker push "];
    for (file, text) in library() {
        let name = file.strip_prefix(root()).unwrap().to_str().unwrap();
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        for line in code.filter(|line| !line.trim_start().starts_with("#[cfg_attr(feature = \"cli\"")) {
            assert!(!line.contains("clap") && !line.contains("indicatif"), "{name}: {line}");
            let printed = ["println!", "print!", "stdout()", "stderr()"];
            assert!(!printed.iter().any(|word| line.contains(word)), "{name}: {line}");
            let option = line.split_once("--").is_some_and(|(before, after)| {
                before.matches('"').count() % 2 == 1 && after.starts_with(|c: char| c.is_ascii_lowercase())
            });
            let allowed = (of_skopeo.iter().any(|file| file == name) || name == "src/doors/real.rs")
                || shown.iter().any(|words| line.contains(words));
            assert!(!option || allowed, "{name}: a hint names an option of the program: {line}");
        }
    }
}

#[test]
fn commands_touch_no_bytes() {
    let imports = imports();
    let of_bytes =
        ["apply", "tardiff", "base", "region", "patch", "fuse", "rebuild", "fetch", "encoding", "layout"];
    let touched: Vec<&&str> =
        of_bytes.iter().filter(|module| imports["commands"].contains(**module)).collect();
    assert!(touched.is_empty(), "commands parse, call and print: {touched:?}");
}
