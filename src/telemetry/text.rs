//! A log line's fields as text for people. Values come from nodes and stores as well: what could lead a terminal or a reader astray is
//! written out ([`super::escape`]), here and nowhere else.

use std::fmt::Write as _;

use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::format::{FormatFields, debug_fn};

use super::escape::Escape;

/// The message as it is, everything else as `name=value`; names in italics where the line may have colours.
pub(super) fn fields() -> impl for<'writer> FormatFields<'writer> + Send + Sync + 'static {
    debug_fn(|to, field, value| {
        if field.name() == "message" {
            return write!(Escape(to), "{value:?}");
        }
        match to.has_ansi_escapes() {
            true => write!(to, "\u{1b}[3m{}\u{1b}[0m\u{1b}[2m=\u{1b}[0m", field.name())?,
            false => write!(to, "{}=", field.name())?,
        }
        write!(Escape(to), "{value:?}")
    })
    .delimited(" ")
}

#[cfg(test)]
mod tests {
    use tracing::{info_span, warn};

    use super::*;
    use crate::telemetry::escape::testing::hostile;
    use crate::telemetry::testing::Lines;

    #[test]
    fn no_field_leads_a_terminal_astray() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).fmt_fields(fields()).with_writer(move || writer.clone()).finish();
        let text: String = hostile().collect();
        tracing::subscriber::with_default(subscriber, || {
            let _role = info_span!("role", role = %text).entered();
            warn!(node = text, error = %text, reason = ?text, "said: {text}");
        });
        let said = lines.text();
        assert_eq!(said.matches('\n').count(), 1, "{said:?}");
        let found = said.trim_end_matches('\n').chars().find(|c| hostile().any(|bad| bad == *c));
        assert_eq!(found, None, "{said:?}");
        assert!(said.contains("WARN role{role=\\u{0}") && said.contains("said: \\u{0}"), "{said:?}");
    }
}
