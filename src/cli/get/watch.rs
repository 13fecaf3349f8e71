//! `get -w`: the listing, then every object that changes, for ever. What goes wrong in between is healed below, in the feed.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::print::{Happened, Line, row};
use super::{Query, Sites, print};
use crate::cli::content::{Content, ranges};
use crate::cli::exit::Exit;
use crate::cli::fit::Fit;
use crate::cli::output::{self, Format, Table};
use crate::cli::show::{Shown, Stores};
use crate::reconcile::Site;
use crate::shutdown::Shutdown;
use crate::store::feed::{Feed, FeedSettings, Scope, Update};

/// One store's content, kept up to date.
struct Side {
    content: Content,
    feed: Feed,
    complete: bool,
}

impl Side {
    fn open(site: &Site, folders: &[&str]) -> Side {
        let scope = Scope { ranges: ranges(&site.prefix, folders) };
        let rng = fastrand::Rng::new();
        let feed = Feed::open(site.store.clone(), scope, FeedSettings::default(), rng);
        Side { content: Content::empty(site.prefix.clone()), feed, complete: false }
    }

    fn take(&mut self, update: Update) {
        self.complete |= matches!(update, Update::Reset { .. });
        self.content.apply(update);
        while let Some(more) = self.feed.try_next() {
            self.content.apply(more);
        }
    }
}

/// The next update of a side that may not be there.
async fn next(side: &mut Option<Side>) -> Update {
    match side {
        Some(side) => side.feed.next().await,
        None => std::future::pending().await,
    }
}

pub(super) async fn run<T: Shown>(sites: Sites, query: Query, format: Format) -> anyhow::Result<Exit> {
    let shutdown = Shutdown::on_signals()?;
    let mut source = sites.source.map(|site| Side::open(&site, T::SOURCE));
    let mut manager = sites.manager.map(|site| Side::open(&site, T::MANAGER));
    let mut shown = Changes::<T>::default();
    let mut printer = Printer { format, terminal: output::width(), fit: None, widths: None };
    loop {
        tokio::select! {
            update = next(&mut source) => if let Some(side) = &mut source { side.take(update) },
            update = next(&mut manager) => if let Some(side) = &mut manager { side.take(update) },
            () = shutdown.orderly.cancelled() => return Ok(Exit::Ok),
        }
        // Half of the picture would show nodes without groups, and then all of them as changed.
        if [&source, &manager].into_iter().flatten().all(|side| side.complete) {
            let stores =
                Stores { source: source.as_ref().map(|side| &side.content), manager: manager.as_ref().map(|side| &side.content) };
            let objects = T::list(stores).into_iter().filter(|object| query.wants(object)).collect();
            let changes = shown.next(objects);
            printer.print(&changes)?;
            shown.keep(changes);
        }
    }
}

/// Finds what changed between two listings.
struct Changes<T> {
    before: BTreeMap<String, T>,
}

impl<T> Default for Changes<T> {
    fn default() -> Self {
        Changes { before: BTreeMap::new() }
    }
}

impl<T: Shown> Changes<T> {
    fn next(&mut self, objects: Vec<T>) -> Vec<(Happened, T)> {
        let mut now: BTreeMap<String, T> = objects.into_iter().map(|object| (object.name(), object)).collect();
        let mut changes = Vec::new();
        for (name, old) in std::mem::take(&mut self.before) {
            match now.remove(&name) {
                None => changes.push((Happened::Deleted, old)),
                Some(new) if new == old => drop(self.before.insert(name, old)),
                Some(new) => changes.push((Happened::Modified, new)),
            }
        }
        changes.extend(now.into_values().map(|object| (Happened::Added, object)));
        changes
    }

    /// Takes back what was printed: it is what the next listing is held against.
    fn keep(&mut self, changes: Vec<(Happened, T)>) {
        let kept = changes.into_iter().filter(|(happened, _)| *happened != Happened::Deleted);
        self.before.extend(kept.map(|(_, object)| (object.name(), object)));
    }
}

/// Prints changes. A table's columns stay as wide as the first listing made them, unless a cell needs more.
struct Printer {
    format: Format,
    /// The columns of the terminal, if it is one.
    terminal: Option<usize>,
    /// What of the table fits it: as the first listing made it.
    fit: Option<Fit>,
    widths: Option<Vec<usize>>,
}

impl Printer {
    fn print<T: Shown>(&mut self, changes: &[(Happened, T)]) -> anyhow::Result<()> {
        match self.format {
            Format::Json => changes.iter().try_for_each(|(happened, object)| {
                output::print(&(serde_json::to_string(&Line { happened: *happened, object })? + "\n"))
            }),
            Format::Yaml => changes.iter().try_for_each(|(happened, object)| {
                output::print(&format!("---\n{}", output::yaml(&Line { happened: *happened, object })?))
            }),
            Format::Name => changes.iter().try_for_each(|(_, object)| output::line(object.name())),
            Format::Table | Format::Wide => output::print(&self.rows(changes)),
        }
    }

    fn rows<T: Shown>(&mut self, changes: &[(Happened, T)]) -> String {
        let (wide, now) = (self.format == Format::Wide, SystemTime::now());
        let first = self.widths.is_none();
        let mut table: Table = print::table::<T>(&[], wide, now);
        table.rows = changes.iter().map(|(happened, object)| changed_row(*happened, object, wide, now)).collect();
        if let Some(width) = self.terminal.filter(|_| !wide) {
            table.rows.iter_mut().for_each(|row| *row = output::safe(row));
            table = self.fit.get_or_insert_with(|| Fit::new(&table, T::NARROW, width)).apply(&table);
        }
        let widths = self.widths.get_or_insert_with(|| table.headings.iter().map(|heading| heading.len()).collect());
        for row in &table.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let heading: Vec<String> = table.headings.iter().map(|heading| (*heading).to_owned()).collect();
        let lines = first.then_some(&heading).into_iter().chain(&table.rows);
        lines.map(|cells| padded(cells, widths)).collect()
    }
}

/// What went is shown as it was last, with a word behind it.
fn changed_row<T: Shown>(happened: Happened, object: &T, wide: bool, now: SystemTime) -> Vec<String> {
    let mut cells = row(object, wide, now);
    if happened == Happened::Deleted {
        cells.push("(deleted)".into());
    }
    output::safe(&cells)
}

fn padded(cells: &[String], widths: &[usize]) -> String {
    let cell = |(cell, width): (&String, &usize)| format!("{cell:<width$}   ");
    let widths = widths.iter().chain(std::iter::repeat(&0));
    let line: String = cells.iter().zip(widths).map(cell).collect();
    line.trim_end().to_owned() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::show::member::MemberObject;

    fn member(node: &str, state: &str) -> MemberObject {
        MemberObject {
            group: "web".into(),
            node: node.into(),
            state: state.into(),
            published: state == "ready",
            addresses: Vec::new(),
            ports: Default::default(),
            revision: 1,
        }
    }

    #[test]
    fn only_what_changed_is_told_and_what_went_is_said() {
        let mut changes = Changes::default();
        let mut step = |objects: Vec<MemberObject>| {
            let changed = changes.next(objects);
            let told = changed.iter().map(|(happened, object)| (*happened, object.node.clone())).collect::<Vec<_>>();
            changes.keep(changed);
            told
        };
        assert_eq!(step(vec![member("a", "joining"), member("b", "ready")]).len(), 2);
        assert_eq!(step(vec![member("a", "ready"), member("b", "ready")]), [(Happened::Modified, "a".into())]);
        assert_eq!(step(vec![member("a", "ready")]), [(Happened::Deleted, "b".into())]);
        assert_eq!(step(vec![member("a", "ready")]), []);
    }

    #[test]
    fn columns_stay_where_they_are() {
        let mut printer = Printer { format: Format::Table, terminal: None, fit: None, widths: None };
        let first = printer.rows(&[(Happened::Added, member("edge-1", "joining"))]);
        assert_eq!(
            first,
            "GROUP   NODE     STATE     PUBLISHED   ADDRESSES   PORTS\nweb     edge-1   joining   no          -           -\n"
        );
        let second = printer.rows(&[(Happened::Deleted, member("b", "ready"))]);
        assert_eq!(second, "web     b        ready     yes         -           -       (deleted)\n");
    }

    #[test]
    fn a_line_of_json_has_type_and_object() {
        let object = member("a", "ready");
        let line = serde_json::to_value(Line { happened: Happened::Added, object: &object }).unwrap_or_default();
        assert_eq!(line["type"], "ADDED");
        assert_eq!(line["object"]["node"], "a");
    }
}
