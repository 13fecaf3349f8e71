//! What must be reached, and whether it was. Told, never a test: the exit code does not depend on it.

use std::fmt;

use serde::Serialize;

/// On which side of the bar it is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Side {
    AtLeast,
    AtMost,
}

/// A figure and its bar.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Goal {
    what: String,
    figure: f64,
    must_be: Side,
    bar: f64,
    reached: bool,
}

impl Goal {
    /// Good when it is the bar or more.
    pub fn at_least(what: impl Into<String>, figure: f64, bar: f64) -> Goal {
        Goal { what: what.into(), figure, must_be: Side::AtLeast, bar, reached: figure >= bar }
    }

    /// Good when it is the bar or less.
    pub fn at_most(what: impl Into<String>, figure: f64, bar: f64) -> Goal {
        Goal { what: what.into(), figure, must_be: Side::AtMost, bar, reached: figure <= bar }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = if self.must_be == Side::AtLeast { "at least" } else { "at most" };
        let word = if self.reached { "reached" } else { "NOT REACHED" };
        write!(f, "{}: {} ({side} {}): {word}", self.what, short(self.figure), short(self.bar))
    }
}

/// Three digits are as many as such figures are worth.
pub fn short(figure: f64) -> String {
    match figure.abs() {
        small if small < 10.0 => format!("{figure:.2}"),
        middle if middle < 100.0 => format!("{figure:.1}"),
        _ => format!("{figure:.0}"),
    }
}

/// One line for each.
pub fn lines(goals: &[Goal]) -> String {
    goals.iter().map(|goal| format!("{goal}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_reached_or_not_and_no_figure_reaches_none() {
        assert_eq!(Goal::at_least("rate", 0.5, 0.5).to_string(), "rate: 0.50 (at least 0.50): reached");
        assert_eq!(Goal::at_most("lag, s", 12.34, 3.0).to_string(), "lag, s: 12.3 (at most 3.00): NOT REACHED");
        assert!(!Goal::at_least("nothing", f64::NAN, 0.0).reached);
        assert!(!Goal::at_most("nothing", f64::NAN, 0.0).reached);
    }
}
