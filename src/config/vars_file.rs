//! Files of variables (`--vars-file`): `K=V` lines, or a flat map in YAML or JSON. A value is what is written, never what a number or a
//! truth value of it would print as: `1.10`, `010` and `no` stay so.

use std::path::Path;

use serde_saphyr::Spanned;

use crate::model::variables::{check_name, check_value};

/// Names and values, in the order of the file.
pub(super) type Pairs = Vec<(String, String)>;

/// One that was read, with its line.
struct Entry {
    line: u64,
    name: String,
    value: String,
}

/// Reads one. The file's name says which form it has.
///
/// # Errors
/// What is wrong, with the line.
pub(super) fn parse(path: &Path, text: &str) -> Result<Pairs, String> {
    // Editors of some systems put it before everything.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let is_map = matches!(path.extension().and_then(|end| end.to_str()), Some("json" | "yaml" | "yml"));
    let entries = if is_map { map(text)? } else { lines(text)? };
    let mut pairs = Pairs::new();
    let mut seen = std::collections::BTreeMap::new();
    for Entry { line, name, value } in entries {
        let fault = |rule| format!("line {line}: variable `{name}`: {rule}");
        check_name(&name).map_err(fault)?;
        check_value(&value).map_err(fault)?;
        if let Some(before) = seen.insert(name.clone(), line) {
            return Err(format!("line {line}: variable `{name}` is on line {before} already"));
        }
        pairs.push((name, value));
    }
    Ok(pairs)
}

/// `K=V` lines as `docker --env-file` and Compose read them: empty lines and those that begin with `#` say nothing, `export ` before a name
/// and a pair of quotes around a value are dropped, and so is ` # …` after a value. A name without `=` is an error.
fn lines(text: &str) -> Result<Vec<Entry>, String> {
    let lines = (1_u64..).zip(text.lines().map(str::trim));
    lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')).map(|(at, line)| entry(at, line)).collect()
}

fn entry(at: u64, line: &str) -> Result<Entry, String> {
    let said = line.strip_prefix("export").filter(|rest| rest.starts_with([' ', '\t'])).map_or(line, str::trim_start);
    let (name, value) = said.split_once('=').ok_or_else(|| format!("line {at}: `{line}` is not K=V"))?;
    let value =
        unquoted(value.trim()).ok_or_else(|| format!("line {at}: the value's quotes do not end, or something follows them"))?;
    Ok(Entry { line: at, name: name.trim().to_owned(), value: value.to_owned() })
}

/// The value without quotes and comment; `None` = a quote that opens does not close at its end.
fn unquoted(value: &str) -> Option<&str> {
    match value.chars().next() {
        Some(quote @ ('"' | '\'')) => {
            let (inner, rest) = value.get(1..)?.split_once(quote)?;
            let is_comment = rest.is_empty() || (rest.starts_with([' ', '\t']) && rest.trim_start().starts_with('#'));
            is_comment.then_some(inner)
        }
        _ => Some(value.find([' ', '\t']).map_or(value, |space| {
            let (before, after) = value.split_at(space);
            if after.trim_start().starts_with('#') { before } else { value }
        })),
    }
}

/// A flat map in JSON or YAML.
fn map(text: &str) -> Result<Vec<Entry>, String> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let map: std::collections::BTreeMap<String, Spanned<String>> = serde_saphyr::from_str(text).map_err(|error| {
        let line = error.location().map(|at| format!("line {}: ", at.line())).unwrap_or_default();
        match error.without_snippet() {
            serde_saphyr::Error::NullIntoString { .. } => format!("{line}a variable has no value; write \"\" for the empty one"),
            other => format!("{line}{}", other.to_string().lines().next().unwrap_or_default()),
        }
    })?;
    let entry = |(name, value): (String, Spanned<String>)| Entry { line: value.referenced.line(), name, value: value.value };
    Ok(map.into_iter().map(entry).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(file: &str, text: &str, expected: Result<&[(&str, &str)], &str>) {
        let got = parse(Path::new(file), text);
        match (&got, expected) {
            (Ok(pairs), Ok(expected)) => {
                let pairs: Vec<_> = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                assert_eq!(pairs, expected, "{file}: {text:?}");
            }
            (Err(error), Err(expected)) => assert!(error.contains(expected), "{file}: {text:?}: {error}"),
            _ => panic!("{file}: {text:?}: {got:?} is not {expected:?}"),
        }
    }

    #[test]
    fn a_value_is_what_is_written() {
        for value in
            ["no", "yes", "on", "true", "False", "1.10", "1.0", "010", "0x10", "0o17", "1e3", "1_000", "2026-01-01", ".5", "null"]
        {
            // Kubernetes' rules: a value begins with a letter or digit; YAML's null is no text.
            let expected = match value {
                ".5" => Err("line 1"),
                _ => Ok(&[("v", value)][..]),
            };
            check("vars", &format!("v={value}\n"), expected);
            let expected = if value == "null" { Err("line 1: a variable has no value") } else { expected };
            check("vars.yaml", &format!("v: {value}\n"), expected);
        }
        for (value, expected) in
            [("1.10", "1.10"), ("12345678901234567890123", "12345678901234567890123"), ("true", "true"), ("\"007\"", "007")]
        {
            check("vars.json", &format!("{{\"v\": {value}}}"), Ok(&[("v", expected)]));
        }
    }

    #[test]
    fn lines_are_read_as_by_docker_and_compose() {
        for (text, expected) in [
            ("\u{feff}zone=eu-1\r\nrack=r1\r\n", Ok(&[("zone", "eu-1"), ("rack", "r1")][..])),
            ("# of this host\n\n  # more\nzone = eu-1 \n", Ok(&[("zone", "eu-1")])),
            ("export zone=eu-1\nexport\track=r1\nexporter=x\n", Ok(&[("zone", "eu-1"), ("rack", "r1"), ("exporter", "x")])),
            ("a=\"eu-1\"\nb='eu-2'\nc=\"\"\nd=\n", Ok(&[("a", "eu-1"), ("b", "eu-2"), ("c", ""), ("d", "")])),
            ("a=eu-1 # here\nb=\"eu-2\" # there\n", Ok(&[("a", "eu-1"), ("b", "eu-2")])),
            ("", Ok(&[])),
            ("a=1\nzone\n", Err("line 2: `zone` is not K=V")),
            ("a=1\na=1\n", Err("line 2: variable `a` is on line 1 already")),
            ("a=\"eu-1\n", Err("line 1: the value's quotes")),
            ("a=\"eu\"-1\n", Err("line 1: the value's quotes")),
            ("a=1\n\nb=x y\n", Err("line 3: variable `b`")),
            ("a=eu#1\n", Err("line 1: variable `a`")),
            ("=x\n", Err("line 1: variable ``")),
        ] {
            check("vars.env", text, expected);
        }
    }

    #[test]
    fn maps_are_flat_and_have_each_name_once() {
        for (file, text, expected) in [
            ("v.yaml", "gpu: 2\nzone: eu-1 # here\n", Ok(&[("gpu", "2"), ("zone", "eu-1")][..])),
            ("v.yml", "zone: \"no\"\nempty: ''\n", Ok(&[("empty", ""), ("zone", "no")])),
            ("v.json", "\u{feff}{\"zone\": \"eu-1\"}", Ok(&[("zone", "eu-1")])),
            ("v.yaml", "", Ok(&[])),
            ("v.yaml", "a: 1\na: 2\n", Err("line 2")),
            ("v.json", "{\"a\": 1,\n\"a\": 2}", Err("line 2")),
            ("v.yaml", "a: 1\nzone:\n", Err("line 2: a variable has no value")),
            ("v.yaml", "a: 1\nzone: [x]\n", Err("line 2")),
            ("v.yaml", "a: 1\nzone: {x: y}\n", Err("line 2")),
            ("v.yaml", "a: 1\nzone: x y\n", Err("line 2: variable `zone`")),
            ("v.yaml", "- a\n", Err("line 1")),
        ] {
            check(file, text, expected);
        }
    }
}
