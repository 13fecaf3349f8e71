//! Selectors choose nodes by their variables. Syntax and meaning are exactly those of Kubernetes' label selectors.
//!
//! `=` `==` `!=` `in (…)` `notin (…)` `key` `!key` `>` `<`, joined by commas that mean *and*. The surprising rules:
//!
//! * `!=` and `notin` hold for a node that lacks the variable;
//! * `x in ()`, `x=` and `x in (,)` ask for the empty text;
//! * `>` and `<` compare 64-bit integers, and a value that is not one never matches;
//! * nothing is quoted: a value is the text between white space and symbols.
//!
//! `lexer` turns the text into tokens, `parser` turns tokens into requirements, and each [`Requirement`] matches by
//! itself. The test rows in `integration/data/selectors.jsonl`, which Kubernetes' own code answered, verify it. A
//! selector that does not parse must never match all nodes: only [`FromStr`] and the empty default make a [`Selector`].

mod lexer;
mod parser;
mod requirement;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::variables::Variables;

pub use parser::{Problem, SelectorError};
pub use requirement::{Operator, Requirement};

/// The longest selector, in bytes, as written and in canonical form. A thousand values of full length fit; the object
/// that holds it must fit one value of etcd.
pub const SELECTOR_BYTES_MAX: usize = 64 * 1024;

/// A set of requirements on variables, all of which must hold; none = every node.
///
/// `Display` is the canonical form: requirements sorted by key (those of one key in the order given), values sorted.
///
/// ```
/// use enlist::{Selector, Variables};
/// let selector: Selector = "zone in (eu-2, eu-1), role=web".parse().unwrap();
/// assert_eq!(selector.to_string(), "role=web,zone in (eu-1,eu-2)");
///
/// let mut variables = Variables::default();
/// variables.insert("zone", "eu-1").unwrap();
/// assert!(!selector.matches(&variables));
/// variables.insert("role", "web").unwrap();
/// assert!(selector.matches(&variables));
///
/// let error = "zone=eu-1,,role=web".parse::<Selector>().unwrap_err();
/// assert_eq!(error.position, 10);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector {
    requirements: Vec<Requirement>,
}

/// Variables that a selector can be matched with.
pub trait HasVariables {
    /// The value of a variable; `None` = there is none of this name.
    fn value(&self, name: &str) -> Option<&str>;
}

impl HasVariables for Variables {
    fn value(&self, name: &str) -> Option<&str> {
        self.get(name)
    }
}

impl<V: HasVariables> HasVariables for &V {
    fn value(&self, name: &str) -> Option<&str> {
        (**self).value(name)
    }
}

impl HasVariables for BTreeMap<String, String> {
    fn value(&self, name: &str) -> Option<&str> {
        self.get(name).map(String::as_str)
    }
}

/// One requirement, evaluated for the variables of a node: it explains *why* a selector matched or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Term<'a> {
    /// The requirement.
    pub requirement: &'a Requirement,
    /// The value seen; `None` = the node lacks the variable.
    pub seen: Option<&'a str>,
    /// Whether the requirement holds.
    pub holds: bool,
}

impl Selector {
    /// Whether a node with these variables is selected.
    pub fn matches(&self, variables: &impl HasVariables) -> bool {
        self.requirements.iter().all(|requirement| requirement.matches(variables))
    }

    /// Whether the selector has no requirement, so that it selects every node.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// The requirements in canonical order.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Every requirement with the value seen and whether it holds, in canonical order.
    pub fn terms<'a>(&'a self, variables: &'a impl HasVariables) -> Vec<Term<'a>> {
        let term = |requirement: &'a Requirement| {
            let seen = variables.value(requirement.key());
            Term { requirement, seen, holds: requirement.matches_value(seen) }
        };
        self.requirements.iter().map(term).collect()
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        if text.len() > SELECTOR_BYTES_MAX {
            return Err(SelectorError { position: SELECTOR_BYTES_MAX, problem: Problem::TooLong });
        }
        let mut requirements = parser::parse(text)?;
        requirements.sort_by(|a, b| a.key().cmp(b.key()));
        let selector = Selector { requirements };
        // The canonical form puts blanks round `in` that the text may lack, and the stored form must parse again.
        if selector.to_string().len() > SELECTOR_BYTES_MAX {
            return Err(SelectorError { position: text.len(), problem: Problem::TooLong });
        }
        Ok(selector)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            write!(f, "{requirement}")?;
        }
        Ok(())
    }
}
