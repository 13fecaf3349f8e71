//! Splits a text into tokens with byte positions. The lexer knows no grammar; it must never drop a byte that it does
//! not know.
//!
//! Kubernetes' lexer stops silently at a NUL, so that `zone=eu-1\0,role=db` means `zone=eu-1` there. Here every control
//! byte but tab, CR and LF (white space) is an error.

use super::parser::{Problem, SelectorError};

/// The kind of a token. `in` and `notin` are words; the parser decides whether one is an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Word,
    Open,
    Close,
    Comma,
    Not,
    Equals,
    DoubleEquals,
    NotEquals,
    Greater,
    Less,
    End,
}

/// A piece of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind,
    pub(super) text: &'a str,
    /// Byte offset of its first byte; the text's length for [`Kind::End`].
    pub(super) position: usize,
}

/// All tokens, the last of kind [`Kind::End`].
pub(super) fn tokens(text: &str) -> Result<Vec<Token<'_>>, SelectorError> {
    if let Some((position, control)) = text.char_indices().find(|(_, c)| c.is_ascii_control() && !is_white(*c)) {
        return Err(SelectorError { position, problem: Problem::Control(control) });
    }
    let mut found = Vec::new();
    let mut position = 0;
    while let Some(rest) = text.get(position..)
        && let Some(first) = rest.chars().next()
    {
        if is_white(first) {
            position += 1;
            continue;
        }
        let (kind, length) = symbol(rest).unwrap_or_else(|| (Kind::Word, word_length(rest)));
        let token = rest.get(..length).unwrap_or(rest);
        found.push(Token { kind, text: token, position });
        position += length;
    }
    found.push(Token { kind: Kind::End, text: "", position: text.len() });
    Ok(found)
}

/// The longest symbol at the start, with its length.
fn symbol(rest: &str) -> Option<(Kind, usize)> {
    let bytes = rest.as_bytes();
    let second_is_equals = bytes.get(1) == Some(&b'=');
    let kind = match bytes.first()? {
        b'=' if second_is_equals => return Some((Kind::DoubleEquals, 2)),
        b'!' if second_is_equals => return Some((Kind::NotEquals, 2)),
        b'=' => Kind::Equals,
        b'!' => Kind::Not,
        b'(' => Kind::Open,
        b')' => Kind::Close,
        b',' => Kind::Comma,
        b'>' => Kind::Greater,
        b'<' => Kind::Less,
        _ => return None,
    };
    Some((kind, 1))
}

/// Bytes up to the next white space or symbol.
fn word_length(rest: &str) -> usize {
    rest.find(|c| is_white(c) || matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<')).unwrap_or(rest.len())
}

fn is_white(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}
