//! The README's help and its table of grants are the binary's. `UPDATE_README=1 cargo test --test integration readme` writes it anew.

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

#[test]
fn the_readme_shows_the_help_of_every_command() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = readme.split_once(BEGIN).unwrap();
    let (shown, after) = rest.split_once(END).unwrap();
    let expected = expected();
    if std::env::var_os("UPDATE_README").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{expected}{END}{after}")).unwrap();
        return;
    }
    assert!(shown == expected, "the README's help is old: UPDATE_README=1 cargo test --test integration readme");
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
fn readme_shows_the_grants_that_the_command_makes() {
    const BEGIN: &str = "<!-- grants -->\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = readme.split_once(BEGIN).unwrap();
    let (shown, after) = rest.split_once("<!-- /grants -->").unwrap();
    let expected = grants();
    if std::env::var_os("UPDATE_README").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{expected}<!-- /grants -->{after}")).unwrap();
        return;
    }
    assert!(shown == expected, "the README's grants are old: UPDATE_README=1 cargo test --test integration readme");
}

#[test]
fn every_crate_has_its_reason_in_the_decisions() {
    let read = |file: &str| std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
    let (manifest, decisions) = (read("Cargo.toml"), read("DECISIONS.md"));
    let sections = manifest.split("\n[").filter(|section| section.contains("dependencies]\n"));
    let lines = sections.flat_map(|section| section.lines().skip(1));
    let crates: Vec<&str> = lines.filter_map(|line| Some(line.split_once(" = ")?.0)).collect();
    assert!(crates.len() > 30, "{crates:?}");
    let silent: Vec<&&str> = crates.iter().filter(|name| !decisions.contains(&format!("`{name}`"))).collect();
    assert!(silent.is_empty(), "not a word about {silent:?}");
}
