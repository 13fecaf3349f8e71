//! Objects → text, in each format. Pure, except for the time that ages are counted from.

use std::time::SystemTime;

use serde::Serialize;

use crate::cli::fit::Fit;
use crate::cli::output::{self, Format, Table, json, yaml};
use crate::cli::show::Shown;
use crate::model::documents::{Document, to_yaml};

/// A whole listing. JSON and YAML are always a list.
pub fn all<T: Shown>(objects: &[T], format: Format) -> anyhow::Result<String> {
    match format {
        Format::Json => json(&objects),
        Format::Yaml => yaml(&objects),
        Format::Name => Ok(objects.iter().map(|object| object.name() + "\n").collect()),
        Format::Wide => Ok(table(objects, true, SystemTime::now()).render()),
        Format::Table => Ok(fitted(objects, SystemTime::now()).render()),
    }
}

/// A listing as a table that fits the terminal, if stdout is one.
pub fn fitted<T: Shown>(objects: &[T], now: SystemTime) -> Table {
    let mut table = table(objects, false, now);
    // Escaped first: a cell that is measured must not grow afterwards. (To escape it once more changes nothing.)
    table.rows.iter_mut().for_each(|row| *row = output::safe(row));
    match output::width() {
        Some(width) => Fit::new(&table, T::NARROW, width).apply(&table),
        None => table,
    }
}

/// Documents as `apply` takes them. One that cannot be read is a comment.
pub fn documents(documents: &[(String, Result<Document, String>)]) -> String {
    let text = |(name, document): &(String, Result<Document, String>)| match document {
        Ok(document) => to_yaml(document).trim_end().to_owned(),
        Err(fault) => format!("# {name} cannot be read: {}", fault.escape_debug()),
    };
    let texts: Vec<String> = documents.iter().map(text).collect();
    if texts.is_empty() { String::new() } else { texts.join("\n---\n") + "\n" }
}

/// Whether a name on the command line means a document: its own, or that of a group which it is keyed into.
pub fn is_of(document: &str, asked: &str) -> bool {
    asked.split('/').next() == Some(document)
}

/// A listing as a table.
pub fn table<T: Shown>(objects: &[T], wide: bool, now: SystemTime) -> Table {
    let mut headings = T::HEADINGS.to_vec();
    if wide {
        headings.extend(T::WIDE);
    }
    Table { headings, rows: objects.iter().map(|object| row(object, wide, now)).collect() }
}

pub(super) fn row<T: Shown>(object: &T, wide: bool, now: SystemTime) -> Vec<String> {
    let mut cells = object.cells(now);
    if wide {
        cells.extend(object.wide_cells());
    }
    cells
}

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Happened {
    Added,
    Modified,
    Deleted,
}

/// One line of `-w -o json`.
#[derive(Debug, Serialize)]
pub(super) struct Line<'a, T> {
    #[serde(rename = "type")]
    pub(super) happened: Happened,
    pub(super) object: &'a T,
}
