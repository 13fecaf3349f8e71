//! On which line of a settings file a setting stands. The crate that layers settings forgets it; the parser below it knows.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

/// What is wrong with the text as such.
#[derive(Debug)]
pub(super) struct Fault {
    line: Option<usize>,
    pub(super) message: String,
}

impl Fault {
    /// `file:line`, as far as it is known.
    pub(super) fn place(&self, file: &str) -> String {
        self.line.map_or_else(|| file.to_owned(), |line| format!("{file}:{line}"))
    }
}

/// Key → its line, from 1, for `section`, `section.key` and `section.key.entry`.
pub(super) fn lines(text: &str) -> Result<BTreeMap<String, usize>, Fault> {
    let table = DeTable::parse(text).map_err(|error| Fault {
        line: error.span().map(|span| line(text, span.start)),
        message: error.message().replace('\n', ", "),
    })?;
    let mut lines = BTreeMap::new();
    collect(text, "", table.get_ref(), &mut lines);
    check_variables(text, table.get_ref())?;
    Ok(lines)
}

/// A variable is a text. A number is taken for one only if it prints as it is written: `1.10` would become `1.1`.
fn check_variables(text: &str, table: &DeTable<'_>) -> Result<(), Fault> {
    let Some(variables) = below(table, "agent").and_then(|agent| below(agent, "variables")) else { return Ok(()) };
    for (name, value) in variables {
        let written = text.get(value.span()).unwrap_or_default();
        let prints_as = match value.get_ref() {
            DeValue::Integer(_) => written.parse::<i64>().ok().map(|number| number.to_string()),
            DeValue::Float(_) => written.parse::<f64>().ok().map(|number| number.to_string()),
            DeValue::Datetime(_) => None,
            _ => continue,
        };
        if prints_as.as_deref() != Some(written) {
            let message =
                format!("variable `{}`: a number or time does not keep what is written; quote it: \"{written}\"", name.get_ref());
            return Err(Fault { line: Some(line(text, value.span().start)), message });
        }
    }
    Ok(())
}

fn below<'t, 'i>(table: &'t DeTable<'i>, name: &str) -> Option<&'t DeTable<'i>> {
    match table.get(name)?.get_ref() {
        DeValue::Table(below) => Some(below),
        _ => None,
    }
}

fn collect(text: &str, above: &str, table: &DeTable<'_>, lines: &mut BTreeMap<String, usize>) {
    for (key, value) in table {
        let name = format!("{above}{}", key.get_ref());
        if let DeValue::Table(below) = value.get_ref() {
            collect(text, &format!("{name}."), below, lines);
        }
        lines.insert(name, line(text, key.span().start));
    }
}

fn line(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::lines;

    #[test]
    fn a_variable_is_taken_as_written_or_refused_with_its_line() {
        for (value, good) in [
            ("2", true),
            ("-7", true),
            ("1.5", true),
            ("true", true),
            ("\"1.10\"", true),
            ("1.10", false),
            ("1_000", false),
            ("0x10", false),
            ("+5", false),
            ("1e3", false),
            ("99999999999999999999", false),
            ("2026-01-01", false),
        ] {
            let fault = lines(&format!("[agent.variables]\nzone = \"eu-1\"\nv = {value}\n")).err();
            assert_eq!(fault.is_none(), good, "{value}");
            if let Some(fault) = fault {
                assert_eq!(fault.place("f"), "f:3", "{value}");
                assert!(fault.message.contains("quote it") || value.len() > 15, "{}", fault.message);
            }
        }
    }
}
