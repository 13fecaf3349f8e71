//! A table that fits a terminal: columns that do not fit are left to `-o wide`, and cells that are still too long are cut. A line that
//! wraps is read as two. Pure. What is no terminal gets the whole table: scripts read that.

use super::output::Table;

/// Between columns, as `Table::render` puts them.
const GAP: usize = 3;
/// No cell is cut below this: of less nobody can tell what it was.
const CELL_MIN: usize = 8;

/// Which columns of a table are shown, and how wide each may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fit(Vec<(usize, usize)>);

impl Fit {
    /// For a terminal of this width. `order` = the headings that can go, the first one first.
    pub fn new(table: &Table, order: &[&str], width: usize) -> Fit {
        let widths = widths(table);
        let mut kept: Vec<(usize, usize)> = widths.into_iter().enumerate().collect();
        for heading in order {
            if total(&kept) <= width {
                break;
            }
            kept.retain(|(column, _)| table.headings.get(*column) != Some(heading));
        }
        while total(&kept) > width {
            let longest = kept.iter_mut().max_by_key(|(_, width)| *width);
            let Some((_, longest)) = longest.filter(|(_, width)| *width > CELL_MIN) else { break };
            *longest -= 1;
        }
        Fit(kept)
    }

    /// The table as it fits.
    pub fn apply(&self, table: &Table) -> Table {
        let columns = || self.0.iter().copied();
        let headings = columns().filter_map(|(column, _)| table.headings.get(column).copied()).collect();
        // What lies beyond the headings (a word about the row) stays.
        let cut_row = |row: &Vec<String>| {
            let shown = columns().filter_map(|(column, width)| row.get(column).map(|cell| cut(cell, width)));
            shown.chain(row.iter().skip(table.headings.len()).cloned()).collect()
        };
        Table { headings, rows: table.rows.iter().map(cut_row).collect() }
    }
}

fn widths(table: &Table) -> Vec<usize> {
    let of = |column: usize| table.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let headings = table.headings.iter().enumerate();
    headings.map(|(column, heading)| of(column).unwrap_or_default().max(heading.len())).collect()
}

fn total(kept: &[(usize, usize)]) -> usize {
    kept.iter().map(|(_, width)| width + GAP).sum::<usize>().saturating_sub(GAP)
}

fn cut(cell: &str, width: usize) -> String {
    if cell.chars().count() <= width {
        return cell.to_owned();
    }
    let shown: String = cell.chars().take(width.saturating_sub(1)).collect();
    shown + "…"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        Table {
            headings: vec!["POOL", "CIDRS", "TOTAL", "FREE"],
            rows: vec![vec!["eu".into(), "10.20.0.0/24,10.21.0.0/24".into(), "508".into(), "3".into()]],
        }
    }

    #[test]
    fn wide_terminals_get_the_whole_table() {
        let whole = Fit::new(&table(), &["TOTAL"], 80).apply(&table());
        assert_eq!(whole, table());
    }

    #[test]
    fn columns_go_in_order_and_no_further_than_needed() {
        let shown = |width: usize| Fit::new(&table(), &["TOTAL", "POOL"], width).apply(&table()).headings;
        assert_eq!(shown(47), ["POOL", "CIDRS", "TOTAL", "FREE"]);
        assert_eq!(shown(46), ["POOL", "CIDRS", "FREE"]);
        assert_eq!(shown(35), ["CIDRS", "FREE"]);
    }

    #[test]
    fn long_cells_are_cut_when_no_column_can_go() {
        let shown = Fit::new(&table(), &[], 30).apply(&table());
        assert_eq!(shown.rows[0], ["eu", "10.20.0…", "508", "3"]);
        let lines: Vec<usize> = shown.render().lines().map(|line| line.chars().count()).collect();
        assert!(lines.iter().all(|line| *line <= 30), "{lines:?}");
    }

    #[test]
    fn word_behind_a_row_stays() {
        let mut table = table();
        table.rows[0].push("(deleted)".into());
        let shown = Fit::new(&table, &["TOTAL"], 42).apply(&table);
        assert_eq!(shown.rows[0].last().map(String::as_str), Some("(deleted)"));
        assert_eq!(shown.rows[0].len(), 4);
    }
}
