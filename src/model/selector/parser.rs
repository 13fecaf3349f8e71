//! Turns tokens into requirements by the grammar of Kubernetes' selectors (`apimachinery/pkg/labels/selector.go`), with
//! its quirks. The parser must reject every text that Kubernetes rejects: a misspelt selector would select other nodes.

use std::collections::BTreeSet;
use std::fmt;

use super::SELECTOR_BYTES_MAX;
use super::lexer::{Kind, Token, tokens};
use super::requirement::{Operator, Requirement};
use crate::model::variables::{check_name, check_value};

/// The reason why a selector was rejected, and its position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at byte {position}: {problem}")]
pub struct SelectorError {
    /// Byte offset of the offending piece, from 0; the text's length if something is missing at its end.
    pub position: usize,
    /// The problem and the allowed form.
    pub problem: Problem,
}

/// The problem of a selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// Longer than [`SELECTOR_BYTES_MAX`].
    TooLong,
    /// A control character that is not white space.
    Control(char),
    /// A token other than the expected ones.
    Unexpected {
        /// The token found (cut at 80 characters); `None` = the text ends.
        found: Option<String>,
        /// The allowed tokens.
        expected: &'static str,
    },
    /// A key that no variable can have.
    Key {
        /// The key (cut at 80 characters).
        key: String,
        /// The rule that the key breaks.
        rule: &'static str,
    },
    /// A value that no variable can have.
    Value {
        /// The value (cut at 80 characters).
        value: String,
        /// The rule that the value breaks.
        rule: &'static str,
    },
    /// `>` and `<` compare integers.
    NotAnInteger {
        /// The value (cut at 80 characters).
        value: String,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::TooLong => write!(f, "the selector is longer than {SELECTOR_BYTES_MAX} bytes"),
            Problem::Control(control) => {
                write!(f, "control character {:?} is not allowed (tab, carriage return and line feed are white space)", control)
            }
            Problem::Unexpected { found: Some(found), expected } => write!(f, "found {found:?}, expected {expected}"),
            Problem::Unexpected { found: None, expected } => write!(f, "the selector ends, expected {expected}"),
            Problem::Key { key, rule } => write!(f, "key {key:?}: {rule}"),
            Problem::Value { value, rule } => write!(f, "value {value:?} {rule}"),
            Problem::NotAnInteger { value } => {
                write!(f, "value {value:?} is not an integer of 64 bits, which '>' and '<' compare")
            }
        }
    }
}

/// Reads a whole selector. The requirements keep the order of the text.
pub(super) fn parse(text: &str) -> Result<Vec<Requirement>, SelectorError> {
    let tokens = tokens(text)?;
    let mut parser = Parser { tokens: &tokens, next: 0, end: text.len() };
    let mut requirements = Vec::new();
    if parser.peek().kind == Kind::End {
        return Ok(requirements);
    }
    loop {
        requirements.push(parser.requirement()?);
        let token = parser.take();
        match token.kind {
            Kind::End => return Ok(requirements),
            Kind::Comma => {}
            _ => return Err(unexpected(token, "',' or the end")),
        }
    }
}

struct Parser<'t> {
    tokens: &'t [Token<'t>],
    next: usize,
    end: usize,
}

impl<'t> Parser<'t> {
    fn peek(&self) -> Token<'t> {
        self.tokens.get(self.next).copied().unwrap_or(Token { kind: Kind::End, text: "", position: self.end })
    }

    fn take(&mut self) -> Token<'t> {
        let token = self.peek();
        self.next += 1;
        token
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let mut token = self.take();
        let negated = token.kind == Kind::Not;
        if negated {
            token = self.take();
        }
        if token.kind != Kind::Word {
            return Err(unexpected(token, if negated { "a key" } else { "a key, or '!' and a key" }));
        }
        let key = token.text;
        check_name(key).map_err(|rule| at(token, Problem::Key { key: cut(key), rule }))?;
        if negated {
            return Ok(Requirement::new(key, Operator::NotExists, BTreeSet::new()));
        }
        if matches!(self.peek().kind, Kind::End | Kind::Comma) {
            return Ok(Requirement::new(key, Operator::Exists, BTreeSet::new()));
        }
        let operator = self.operator()?;
        let values = match operator {
            Operator::In | Operator::NotIn => self.value_list()?,
            _ => self.one_value(operator)?,
        };
        Ok(Requirement::new(key, operator, values))
    }

    fn operator(&mut self) -> Result<Operator, SelectorError> {
        let token = self.take();
        Ok(match (token.kind, token.text) {
            (Kind::Equals, _) => Operator::Equals,
            (Kind::DoubleEquals, _) => Operator::DoubleEquals,
            (Kind::NotEquals, _) => Operator::NotEquals,
            (Kind::Greater, _) => Operator::Greater,
            (Kind::Less, _) => Operator::Less,
            (Kind::Word, "in") => Operator::In,
            (Kind::Word, "notin") => Operator::NotIn,
            _ => return Err(unexpected(token, "one of =, ==, !=, in, notin, >, <, or ','")),
        })
    }

    /// The value of `=`, `!=`, `>`, `<`. A missing value is the empty value.
    fn one_value(&mut self, operator: Operator) -> Result<BTreeSet<String>, SelectorError> {
        let mut token = self.peek();
        match token.kind {
            Kind::End | Kind::Comma => token.text = "",
            Kind::Word => self.next += 1,
            _ => return Err(unexpected(token, "a value")),
        }
        if matches!(operator, Operator::Greater | Operator::Less) && token.text.parse::<i64>().is_err() {
            return Err(at(token, Problem::NotAnInteger { value: cut(token.text) }));
        }
        Ok(BTreeSet::from([value(token)?]))
    }

    /// The values of `in` and `notin`, with their parentheses. A missing value is the empty text, so `()`, `(,)` and
    /// `(,,)` are equal.
    fn value_list(&mut self) -> Result<BTreeSet<String>, SelectorError> {
        let open = self.take();
        if open.kind != Kind::Open {
            return Err(unexpected(open, "'('"));
        }
        let mut values = BTreeSet::new();
        loop {
            let mut token = self.peek();
            match token.kind {
                Kind::Word => self.next += 1,
                Kind::Comma | Kind::Close => token.text = "",
                _ => return Err(unexpected(token, "a value, ',' or ')'")),
            }
            values.insert(value(token)?);
            let after = self.take();
            match after.kind {
                Kind::Comma => {}
                Kind::Close => return Ok(values),
                _ => return Err(unexpected(after, "',' or ')'")),
            }
        }
    }
}

fn value(token: Token<'_>) -> Result<String, SelectorError> {
    check_value(token.text).map_err(|rule| at(token, Problem::Value { value: cut(token.text), rule }))?;
    Ok(token.text.to_owned())
}

fn unexpected(token: Token<'_>, expected: &'static str) -> SelectorError {
    let found = (token.kind != Kind::End).then(|| cut(token.text));
    at(token, Problem::Unexpected { found, expected })
}

fn at(token: Token<'_>, problem: Problem) -> SelectorError {
    SelectorError { position: token.position, problem }
}

/// People read errors and conditions store them: a long piece is cut.
fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}
