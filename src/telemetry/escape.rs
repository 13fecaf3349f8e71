//! Text that others wrote, made safe for a terminal and a log: no byte of it moves a cursor, clears a screen, forges a line or
//! turns the reading direction.

use std::borrow::Cow;
use std::fmt::{self, Display, Write};

/// Whether a terminal, or a reader, could be led astray by it: C0, DEL, C1, line separators, and what turns the direction.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text with such characters written out, as `\n`, `\t` or `\u{1b}`.
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    // Writing to a String cannot fail.
    let _ = Escape(&mut safe).write_str(text);
    Cow::Owned(safe)
}

/// A writer that writes such characters out.
pub struct Escape<W>(pub W);

impl<W: Write> Write for Escape<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(is_unsafe) {
            let (safe, found) = rest.split_at(at);
            self.0.write_str(safe)?;
            let mut characters = found.chars();
            if let Some(c) = characters.next() {
                write!(self.0, "{}", c.escape_default())?;
            }
            rest = characters.as_str();
        }
        self.0.write_str(rest)
    }
}

/// A text of lines for people: each is one line, whatever is in it.
#[derive(Debug, Default)]
pub struct Lines(String);

impl Lines {
    /// Adds a line.
    pub fn add(&mut self, line: impl Display) {
        // Writing to a String cannot fail.
        let _ = write!(Escape(&mut self.0), "{line}");
        self.0.push('\n');
    }

    /// All of them.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
pub(crate) mod testing {
    /// Every character that must not reach a terminal as it is.
    pub(crate) fn hostile() -> impl Iterator<Item = char> {
        let controls = ('\0'..='\u{9f}').filter(|c| c.is_control());
        controls
            .chain(['\u{61c}', '\u{200e}', '\u{200f}', '\u{2028}', '\u{2029}'])
            .chain('\u{202a}'..='\u{202e}')
            .chain('\u{2066}'..='\u{2069}')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_characters_are_written_out() {
        for c in testing::hostile() {
            let escaped = escape(&format!("a{c}b")).into_owned();
            assert!(escaped.starts_with("a\\") && escaped.ends_with('b') && !escaped.contains(c), "{escaped:?}");
        }
        assert_eq!(testing::hostile().count(), 65 + 5 + 5 + 4);
        assert_eq!(escape("x\u{1b}[2J\nphase: fake\t"), "x\\u{1b}[2J\\nphase: fake\\t");
    }

    #[test]
    fn other_text_stays_as_it_is() {
        for text in ["", "plain", "naïve Ärger ∞ 日本語 🙂", r#"{"a":"\n\\"}"#] {
            assert_eq!(escape(text), text);
        }
    }

    #[test]
    fn one_line_stays_one_line() {
        let mut lines = Lines::default();
        lines.add("a\nb");
        lines.add("c");
        assert_eq!(lines.as_str(), "a\\nb\nc\n");
    }
}
