//! The documents cannot rot: the help in docs/cli.md and the grants in docs/operating.md are those of the binary, every link leads
//! somewhere, and the first pages stay short. `UPDATE_DOCS=1 cargo test --test integration documents::` writes the generated parts.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

const BEGIN: &str = "<!-- help -->\n";
const END: &str = "<!-- /help -->";
const COMMANDS: [&str; 16] = [
    "dev", "agent", "run", "apply", "diff", "get", "describe", "explain", "delete", "leave", "reload", "check", "brake",
    "grants", "purge", "bench",
];

fn help(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_enlist"))
        .args(arguments)
        .arg("-h")
        .env("COLUMNS", "120")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// Without the options that every command has: they are shown once.
fn own_part(text: &str) -> String {
    let before = text.split("\nStore:\n").next().unwrap_or(text);
    let after = text.split("\nGeneral:\n").nth(1).and_then(|general| general.split_once("\n\n")).map(|(_, after)| after);
    let mut own = before.trim_end().to_owned();
    if let Some(after) = after {
        own.push_str("\n\n");
        own.push_str(after.trim_end());
    }
    own
}

fn expected() -> String {
    let mut text = String::new();
    let top = help(&[]);
    writeln!(text, "```console\n$ enlist -h\n{}\n```\n", top.trim_end()).unwrap();
    for command in COMMANDS {
        let own = own_part(&help(&[command]));
        writeln!(text, "<details><summary><code>enlist {command}</code></summary>\n\n```console\n$ enlist {command} -h\n{own}\n```\n\n</details>\n").unwrap();
    }
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.join("\n") + "\n"
}

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Compares what stands between two marks of a document with what it must be, or writes it.
fn holds(file: &str, (begin, end): (&str, &str), expected: &str) {
    let text = read(file);
    let (before, rest) = text.split_once(begin).unwrap();
    let (shown, after) = rest.split_once(end).unwrap();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        std::fs::write(path, format!("{before}{begin}{expected}{end}{after}")).unwrap();
        return;
    }
    assert!(shown == expected, "{file} is old: UPDATE_DOCS=1 cargo test --test integration documents::");
}

#[test]
fn help_of_every_command_is_shown() {
    holds("docs/cli.md", (BEGIN, END), &expected());
}

/// What `enlist grants` shows of every user and one node.
fn grants() -> String {
    let arguments = ["grants", "allocator", "relay", "manager", "roles", "viewer", "operator", "--node", "edge-7"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_enlist"));
    let output = command.args(arguments).env_clear().stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    format!("```console\n$ enlist {}\n{}\n```\n", arguments.join(" "), text.trim_end())
}

#[test]
fn grants_are_those_that_the_command_makes() {
    holds("docs/operating.md", ("<!-- grants -->\n", "<!-- /grants -->"), &grants());
}

#[test]
fn every_crate_has_its_reason_in_the_decisions() {
    let (manifest, decisions) = (read("Cargo.toml"), read("DECISIONS.md"));
    let sections = manifest.split("\n[").filter(|section| section.contains("dependencies]\n"));
    let lines = sections.flat_map(|section| section.lines().skip(1));
    let crates: Vec<&str> = lines.filter_map(|line| Some(line.split_once(" = ")?.0)).collect();
    assert!(crates.len() > 30, "{crates:?}");
    let silent: Vec<&&str> = crates.iter().filter(|name| !decisions.contains(&format!("`{name}`"))).collect();
    assert!(silent.is_empty(), "not a word about {silent:?}");
}

/// Every document that a reader starts from.
fn documents() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let first = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "DECISIONS.md", "benches/README.md", "integration/README.md"];
    let pages = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let pages = pages.filter(|name| name.ends_with(".md")).map(|name| format!("docs/{name}"));
    first.into_iter().map(str::to_owned).chain(pages).collect()
}

/// The targets of links, without those to other sites. A link in a code block is none.
fn links(text: &str) -> Vec<String> {
    let mut is_code = false;
    let mut found = Vec::new();
    for line in text.lines() {
        is_code ^= line.trim_start().starts_with("```");
        if is_code {
            continue;
        }
        for rest in line.split("](").skip(1) {
            let target = rest.split([')', ' ']).next().unwrap_or_default();
            if !target.contains("://") && !target.is_empty() {
                found.push(target.to_owned());
            }
        }
    }
    found
}

/// The anchors of headings, as GitHub makes them.
fn anchors(text: &str) -> Vec<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = title.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

#[test]
fn every_link_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut dead = Vec::new();
    let mut seen = 0;
    for document in documents() {
        let folder = root.join(&document).parent().unwrap().to_owned();
        for link in links(&read(&document)) {
            seen += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() { root.join(&document) } else { folder.join(file) };
            let is_there = target.exists()
                && (anchor.is_empty() || anchors(&std::fs::read_to_string(&target).unwrap()).iter().any(|of| of == anchor));
            if !is_there {
                dead.push(format!("{document}: {link}"));
            }
        }
    }
    assert!(seen > 30, "only {seen} links were found");
    assert!(dead.is_empty(), "{}", dead.join("\n"));
}

#[test]
fn first_pages_are_short() {
    for (file, lines_max) in [("README.md", 250), ("ARCHITECTURE.md", 150)] {
        let lines = read(file).lines().count();
        assert!(lines <= lines_max, "{file} has {lines} lines: move what is not for a first reader to docs/");
    }
}
