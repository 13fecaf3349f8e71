//! Checks the layers: reads the source and looks for names that a layer must not use. Needs nothing.

use std::fs;
use std::path::{Path, PathBuf};

/// From the bottom to the top; a layer may name those before it. The modules of one line must not name each other.
const LAYERS: [&[&str]; 7] = [
    &["model"],
    &["plan"],
    &["store"],
    &["reconcile"],
    &["agent", "allocator", "relay", "manager"],
    &["telemetry", "shutdown"],
    &["config"],
];

struct Source {
    /// Relative to `src/`.
    path: String,
    /// Line number and text, without comments and without the tests at the end of a file.
    lines: Vec<(usize, String)>,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &mut found);
    found.sort();
    let sources: Vec<Source> = found.iter().map(|file| source(&root, file)).collect();
    assert!(sources.len() > 50, "the source was not found");
    sources
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
}

fn source(root: &Path, file: &Path) -> Source {
    let text = fs::read_to_string(file).unwrap();
    let lines = text.lines().enumerate().take_while(|(_, line)| *line != "mod tests {");
    let code = |line: &str| line.split("//").next().unwrap_or_default().to_owned();
    Source {
        path: file.strip_prefix(root).unwrap().to_str().unwrap().to_owned(),
        lines: lines.map(|(at, line)| (at + 1, code(line))).filter(|(_, line)| !line.trim().is_empty()).collect(),
    }
}

impl Source {
    /// The first folder of the path, or the name of a file beside the folders.
    fn module(&self) -> &str {
        self.path.split('/').next().unwrap_or_default().trim_end_matches(".rs")
    }

    fn is_test(&self) -> bool {
        self.path.split('/').any(|part| matches!(part.trim_end_matches(".rs"), "tests" | "testing" | "fixtures"))
    }

    /// The lines that contain a text.
    fn places(&self, text: &str) -> Vec<String> {
        let hits = self.lines.iter().filter(|(_, line)| line.contains(text));
        hits.map(|(at, line)| format!("src/{}:{at}: {}", self.path, line.trim())).collect()
    }
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// The modules that a line names as `crate::…` (also within a `use crate::{…}` of one line).
fn named(line: &str) -> Vec<&str> {
    let ends = |text: &'_ str| text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    let mut names = Vec::new();
    for rest in line.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            Some(list) => {
                let list = list.split('}').next().unwrap_or_default();
                names.extend(list.split(',').map(str::trim).map(|item| &item[..ends(item)]));
            }
            None => names.push(&rest[..ends(rest)]),
        }
    }
    names
}

#[test]
fn each_layer_names_only_lower_layers() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        let Some(own) = layer(source.module()) else { continue };
        for (at, line) in &source.lines {
            for name in named(line) {
                let bad = match layer(name) {
                    Some(other) => other > own || (other == own && name != source.module()),
                    None => matches!(name, "cli" | "main"),
                };
                if bad {
                    wrong.push(format!("src/{}:{at}: {} must not name {name}", source.path, source.module()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Returns the lines with a text outside the allowed folders.
fn only_in(text: &str, allowed: &[&str]) -> Vec<String> {
    let elsewhere = |source: &&Source| !source.is_test() && !allowed.iter().any(|folder| source.path.starts_with(folder));
    sources().iter().filter(elsewhere).flat_map(|source| source.places(text)).collect()
}

#[test]
fn client_crate_is_named_in_one_folder() {
    for name in ["etcd_client", "tonic::"] {
        assert_eq!(only_in(name, &["store/etcd/"]), Vec::<String>::new());
    }
}

#[test]
fn only_the_cli_writes_stdout_and_only_main_exits() {
    for text in ["println!", "print!(", "stdout()"] {
        let wrong: Vec<String> = only_in(text, &["cli/"]).into_iter().filter(|place| !place.contains("eprint")).collect();
        assert_eq!(wrong, Vec::<String>::new());
    }
    assert_eq!(only_in("eprintln!", &["main.rs"]), Vec::<String>::new());
    assert_eq!(only_in("process::exit", &["main.rs"]), Vec::<String>::new());
}

/// Pure: no async, clock, randomness, environment or IO.
#[test]
fn pure_layers_are_pure() {
    let pure = |source: &&Source| {
        let path = source.path.as_str();
        let is_pure = ["model/", "plan/", "store/wire/", "store/keys", "cli/show/", "agent/decide/"];
        !source.is_test() && is_pure.iter().any(|start| path.starts_with(start))
    };
    let words = ["async ", "tokio", "Instant", "SystemTime::now", "fastrand", "std::env", "std::fs", "std::net::Tcp", "thread::"];
    let mut wrong = Vec::new();
    for source in sources().iter().filter(pure) {
        wrong.extend(words.iter().flat_map(|word| source.places(word)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn reader_of_use_lines_finds_names() {
    assert_eq!(named("use crate::model::names::NodeId;"), ["model"]);
    assert_eq!(named("use crate::{allocator, manager::ManagerSettings};"), ["allocator", "manager"]);
    assert_eq!(named("let x = crate::plan::plan(&crate::store::api::Store);"), ["plan", "store"]);
    assert_eq!(named("pub(crate) fn f() {}"), Vec::<&str>::new());
}
