//! A log line as one flat JSON object: `timestamp`, `level`, `message`, then the fields of the event and of the spans that it
//! is in. A reader who looks for `node` need not know whether it was said of the line or of all that an agent does; where both
//! say it, the line's own word counts, and of spans the innermost's. No name stands twice.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{JsonFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

/// Writes such lines. Spans' fields must be kept as JSON ([`JsonFields`]).
#[derive(Debug, Clone, Copy)]
pub(super) struct Flat;

impl<S> FormatEvent<S, JsonFields> for Flat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(&self, context: &FmtContext<'_, S, JsonFields>, mut to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        for span in context.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            let extensions = span.extensions();
            let kept = extensions.get::<FormattedFields<JsonFields>>();
            let kept: Option<BTreeMap<String, Value>> = kept.and_then(|kept| serde_json::from_str(&kept.fields).ok());
            fields.0.extend(kept.unwrap_or_default());
        }
        event.record(&mut fields);
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let message = fields.0.remove("message").unwrap_or_else(|| "".into());
        let (time, level) = (Value::from(time), Value::from(event.metadata().level().as_str()));
        write!(to, "{{\"timestamp\":{time},\"level\":{level},\"message\":{message}")?;
        for (name, value) in fields.0.iter().filter(|(name, _)| !["timestamp", "level"].contains(&name.as_str())) {
            write!(to, ",{}:{value}", Value::from(name.as_str()))?;
        }
        writeln!(to, "}}")
    }
}

/// Fields by name.
#[derive(Debug, Default)]
struct Fields(BTreeMap<String, Value>);

impl Fields {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use tracing::{info, info_span, warn};

    use super::*;
    use crate::telemetry::testing::Lines;

    #[test]
    fn spans_and_events_are_one_flat_object_and_the_events_word_counts() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt().json().event_format(Flat).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            let _agent = info_span!("agent", node = %"a", role = "outer").entered();
            let _pass = info_span!("pass", role = "inner", pass = 7).entered();
            info!(changes = 3_u64, error = %"quote \" and\nline", healthy = true, "done");
            warn!(node = "b", "of another");
        });
        let text = lines.text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        let without_time = |line: &str| {
            let (time, rest) = line.split_once("\",").unwrap();
            assert!(time.starts_with("{\"timestamp\":\"20") && time.ends_with('Z'), "{line}");
            rest.to_owned()
        };
        assert_eq!(
            without_time(lines[0]),
            r#""level":"INFO","message":"done","changes":3,"error":"quote \" and\nline","healthy":true,"node":"a","pass":7,"role":"inner"}"#
        );
        assert_eq!(without_time(lines[1]), r#""level":"WARN","message":"of another","node":"b","pass":7,"role":"inner"}"#);
    }
}
