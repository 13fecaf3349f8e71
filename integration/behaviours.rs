//! Checks the table of behaviours in `integration/README.md`: each behaviour is there once, and every test that the
//! table names exists. Needs nothing.

use std::collections::BTreeSet;
use std::path::Path;

/// Names of all tests of the library and of this binary, as `cargo test` prints them.
fn tests() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut names = BTreeSet::new();
    for folder in ["src", "integration"] {
        walk(&root.join(folder), &[], &mut names);
    }
    assert!(names.len() > 400, "only {} tests were found", names.len());
    names
}

fn walk(folder: &Path, modules: &[String], names: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let mut inner = modules.to_vec();
        if path.is_dir() {
            inner.push(name);
            walk(&path, &inner, names);
        } else if path.extension().is_some_and(|end| end == "rs") {
            if !matches!(name.as_str(), "mod" | "main" | "lib") {
                inner.push(name);
            }
            let text = std::fs::read_to_string(&path).unwrap();
            names
                .extend(tests_in(&text, inner.contains(&"cases".to_owned())).map(|test| format!("{}::{test}", inner.join("::"))));
        }
    }
}

/// The tests of one file. `cases`: the file belongs to the conformance suite, where every public function that the
/// suite names is a test.
fn tests_in(text: &str, cases: bool) -> impl Iterator<Item = String> {
    const SUITE: &str = include_str!("store/mod.rs");
    let (mut module, mut marked) = (String::new(), false);
    text.lines().filter_map(move |line| {
        if line == "mod tests {" {
            module = "tests::".to_owned();
        }
        let code = line.trim();
        if code.starts_with("#[test]") || code.starts_with("#[tokio::test") {
            marked = true;
            return None;
        }
        if code.starts_with("#[") || code.starts_with("//") {
            return None;
        }
        let is_case = cases && code.starts_with("pub(crate) async fn ");
        let name = code.split_once("fn ").map(|(_, rest)| rest.split(['(', '<']).next().unwrap().to_owned());
        let is_test = std::mem::take(&mut marked);
        let name = name.filter(|name| is_test || (is_case && named_in(SUITE, name)))?;
        Some(format!("{module}{name}"))
    })
}

fn named_in(text: &str, name: &str) -> bool {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|word| word == name)
}

/// Number, behaviour, and the tests for it.
fn rows(table: &str) -> Vec<(&str, &str, &str)> {
    let behaviours = table.split_once("## What is proven where").expect("the table is gone").1;
    behaviours
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| nr "))
        .map(|line| match line.trim_matches('|').split(" | ").collect::<Vec<_>>().as_slice() {
            [number, behaviour, shown] => (number.trim(), behaviour.trim(), shown.trim()),
            _ => panic!("not three cells: {line}"),
        })
        .collect()
}

fn numbers() -> Vec<String> {
    let mut all: Vec<String> = (1..=4).map(|number| format!("S{number}")).collect();
    for number in 1..=84 {
        all.push(number.to_string());
        if number == 44 {
            all.extend(('a'..='i').map(|letter| format!("44{letter}")));
        }
    }
    all
}

/// The names between back-ticks.
fn named(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

#[test]
fn each_behaviour_is_listed_once_and_its_tests_exist() {
    let tests = tests();
    let table = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/README.md")).unwrap();
    let rows = rows(&table);
    let seen: Vec<&str> = rows.iter().map(|(number, ..)| *number).collect();
    assert_eq!(seen, numbers());
    let mut wrong = Vec::new();
    for (number, behaviour, shown) in rows {
        assert!(behaviour.len() > 10, "{number} says nothing");
        if named(shown).next().is_none() && !shown.contains("later: ") {
            wrong.push(format!("{number}: neither a test nor `later: why`"));
        }
        wrong.extend(named(shown).filter(|name| !tests.contains(*name)).map(|name| format!("{number}: there is no test {name}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn reader_of_tests_finds_every_form() {
    let text = "fn helper() {}\n#[test]\nfn plain() {}\n#[tokio::test(start_paused = true)]\n#[expect(x)]\nasync fn later() {}\n\
                mod tests {\n    #[test]\n    fn inner(x in any::<u8>()) {}\n    fn helper() {}\n}\n";
    assert_eq!(tests_in(text, false).collect::<Vec<_>>(), ["plain", "later", "tests::inner"]);
    let case = "pub(crate) async fn limits_and_counts(subject: &Subject) {}\npub(crate) async fn not_run() {}\n";
    assert_eq!(tests_in(case, true).collect::<Vec<_>>(), ["limits_and_counts"]);
    assert_eq!(tests_in(case, false).count(), 0);
}
