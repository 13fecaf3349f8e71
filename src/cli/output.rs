//! The only door to stdout: data goes out here, line by line, and a reader that went away is an error, not a panic.
//!
//! Nodes and whoever writes to a store choose much of what is shown. In everything for people (tables, lines, talk) what could
//! lead a terminal astray is written out here ([`crate::telemetry::escape`]); JSON and YAML stay exact.

use std::io::{IsTerminal, Write};

use serde::Serialize;

use super::exit::Fault;
pub use crate::telemetry::escape::Lines;
use crate::telemetry::escape::escape;

/// How data is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Columns for people
    #[default]
    Table,
    /// More columns
    Wide,
    /// JSON with stable names
    Json,
    /// The same as YAML
    Yaml,
    /// Names alone, one a line
    Name,
}

/// Writes text as it is and flushes it: JSON and YAML, a table, [`Lines`].
///
/// # Errors
/// What stdout answered.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()?;
    Ok(())
}

/// Writes one line for people.
///
/// # Errors
/// What stdout answered.
pub fn line(text: impl std::fmt::Display) -> anyhow::Result<()> {
    print(&format!("{}\n", escape(&text.to_string())))
}

/// Talk: what people should know, and no program should read. Never fails: nobody is there to be told then.
pub fn say(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr().lock(), "{}", escape(&text.to_string()));
}

/// The columns of the terminal that stdout is; `None` = it is no terminal.
pub fn width() -> Option<usize> {
    let table = comfy_table::Table::new();
    table.width().filter(|_| std::io::stdout().is_terminal()).map(usize::from)
}

/// Pretty JSON with a line feed.
///
/// # Errors
/// When the value cannot be written as JSON.
pub fn json(value: &impl Serialize) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

/// YAML with a line feed.
///
/// # Errors
/// When the value cannot be written as YAML.
pub fn yaml(value: &impl Serialize) -> anyhow::Result<String> {
    let text = serde_saphyr::to_string(value).map_err(|error| Fault::Usage(format!("failed to write YAML: {error}")))?;
    Ok(if text.ends_with('\n') { text } else { text + "\n" })
}

/// Rows under headings, as kubectl shows them: no lines, three spaces between columns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// One word in capitals for each column.
    pub headings: Vec<&'static str>,
    /// Rows of as many cells.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// The table as text; only the headings when there is no row.
    pub fn render(&self) -> String {
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::NOTHING).set_content_arrangement(comfy_table::ContentArrangement::Disabled);
        table.set_header(self.headings.iter().copied());
        for row in &self.rows {
            table.add_row(safe(row));
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 3));
        }
        let lines = table.lines().map(|line| line.trim_end().to_owned() + "\n");
        lines.collect()
    }
}

/// The cells of a row as a terminal may have them.
pub fn safe(row: &[String]) -> Vec<String> {
    row.iter().map(|cell| if cell.is_empty() { "-".to_owned() } else { escape(cell).into_owned() }).collect()
}

/// `1 key`, `2 keys`.
pub fn counted(count: u64, word: &str) -> String {
    format!("{count} {word}{}", if count == 1 { "" } else { "s" })
}

/// A length of time for a table: the two largest units at most, `5d3h`, `4m10s`, `12s`.
pub fn age(seconds: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let Some(at) = UNITS.iter().position(|(unit, _)| seconds >= *unit) else { return "0s".into() };
    let mut rest = seconds;
    let mut text = String::new();
    for (unit, letter) in UNITS.iter().skip(at).take(2) {
        let count = rest / unit;
        rest %= unit;
        if count > 0 {
            text.push_str(&format!("{count}{letter}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_columns_and_no_lines() {
        let table = Table {
            headings: vec!["NODE", "PHASE"],
            rows: vec![vec!["edge-7".into(), "registered".into()], vec!["b".into(), String::new()]],
        };
        assert_eq!(table.render(), "NODE     PHASE\nedge-7   registered\nb        -\n");
        assert_eq!(Table { rows: Vec::new(), ..table }.render(), "NODE   PHASE\n");
    }

    #[test]
    fn one_is_not_many() {
        assert_eq!([0, 1, 2].map(|count| counted(count, "key")), ["0 keys", "1 key", "2 keys"]);
    }

    #[test]
    fn ages_are_short() {
        for (seconds, text) in
            [(0, "0s"), (59, "59s"), (60, "1m"), (250, "4m10s"), (3_600, "1h"), (90_061, "1d1h"), (86_400 * 400, "400d")]
        {
            assert_eq!(age(seconds), text);
        }
    }
}
