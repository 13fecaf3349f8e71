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
    Ok(lines)
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
