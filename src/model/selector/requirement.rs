//! One requirement of a selector: a key, an operator, values. It matches and prints itself.

use std::collections::BTreeSet;
use std::fmt;

use super::HasVariables;

/// The comparison of a requirement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operator {
    /// `key=value`
    Equals,
    /// `key==value`: the same as `=`, but printed as written, as Kubernetes does.
    DoubleEquals,
    /// `key!=value`: holds without the variable too.
    NotEquals,
    /// `key in (a,b)`
    In,
    /// `key notin (a,b)`: holds without the variable too.
    NotIn,
    /// `key`: the variable exists with any value.
    Exists,
    /// `!key`
    NotExists,
    /// `key>7`
    Greater,
    /// `key<7`
    Less,
}

/// One requirement on one variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    key: String,
    operator: Operator,
    /// Sorted, without repeats.
    values: Vec<String>,
}

impl Requirement {
    /// For the parser, which has checked the key, the values and that their count fits the operator.
    pub(super) fn new(key: &str, operator: Operator, values: BTreeSet<String>) -> Self {
        Self { key: key.to_owned(), operator, values: values.into_iter().collect() }
    }

    /// The name of the variable.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The comparison.
    pub fn operator(&self) -> Operator {
        self.operator
    }

    /// The values to compare with: sorted, without repeats; empty for [`Operator::Exists`] and [`Operator::NotExists`],
    /// one for `=`, `==`, `!=`, `>` and `<`, at least one otherwise.
    pub fn values(&self) -> &[String] {
        &self.values
    }

    /// The values of which a node must have one, if that is the whole requirement (`=`, `==`, `in`): an index can file
    /// a selector under these pairs.
    pub fn exact_values(&self) -> Option<&[String]> {
        matches!(self.operator, Operator::Equals | Operator::DoubleEquals | Operator::In).then_some(&*self.values)
    }

    /// Whether only a node that has the variable can match.
    pub fn needs_key(&self) -> bool {
        !matches!(self.operator, Operator::NotEquals | Operator::NotIn | Operator::NotExists)
    }

    /// Whether the requirement holds for these variables.
    pub fn matches(&self, variables: &impl HasVariables) -> bool {
        self.matches_value(variables.value(&self.key))
    }

    /// Whether the requirement holds for this value of the variable (`None` = the node lacks it).
    pub fn matches_value(&self, seen: Option<&str>) -> bool {
        match (self.operator, seen) {
            (Operator::Exists, seen) => seen.is_some(),
            (Operator::NotExists, seen) => seen.is_none(),
            (Operator::Equals | Operator::DoubleEquals | Operator::In, seen) => seen.is_some_and(|v| self.lists(v)),
            (Operator::NotEquals | Operator::NotIn, seen) => !seen.is_some_and(|v| self.lists(v)),
            (Operator::Greater, seen) => self.compares(seen, |seen, bound| seen > bound),
            (Operator::Less, seen) => self.compares(seen, |seen, bound| seen < bound),
        }
    }

    fn lists(&self, value: &str) -> bool {
        self.values.binary_search_by(|listed| listed.as_str().cmp(value)).is_ok()
    }

    /// Go's `strconv.ParseInt(text, 10, 64)` and Rust's `i64::from_str` accept the same texts: an optional sign, decimal
    /// digits, nothing else, within 64 bits.
    fn compares(&self, seen: Option<&str>, holds: fn(i64, i64) -> bool) -> bool {
        let bound = self.values.first().and_then(|bound| bound.parse().ok());
        let seen = seen.and_then(|seen| seen.parse().ok());
        matches!((seen, bound), (Some(seen), Some(bound)) if holds(seen, bound))
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, values) = (&self.key, || self.values.join(","));
        match self.operator {
            Operator::Exists => write!(f, "{key}"),
            Operator::NotExists => write!(f, "!{key}"),
            Operator::Equals => write!(f, "{key}={}", values()),
            Operator::DoubleEquals => write!(f, "{key}=={}", values()),
            Operator::NotEquals => write!(f, "{key}!={}", values()),
            Operator::Greater => write!(f, "{key}>{}", values()),
            Operator::Less => write!(f, "{key}<{}", values()),
            Operator::In => write!(f, "{key} in ({})", values()),
            Operator::NotIn => write!(f, "{key} notin ({})", values()),
        }
    }
}
