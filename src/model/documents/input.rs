//! A text's documents: YAML with `---`, JSON objects, lists of either, JSON objects one after the other.
//!
//! YAML 1.2 reads JSON, so one parser knows the lines of both. It must never do work out of proportion to the text: aliases
//! are replayed within a bound, nesting is shallow.

use serde_saphyr::{MessageFormatter, NonFiniteFloatPolicy, Options, UserMessageFormatter};

use super::BYTES_MAX;
use super::fields::FieldError;
use super::tree::{Node, Placed, Value};
use crate::model::text::printable;

/// Definitions are three levels deep; a list of them, and some room.
const DEPTH_MAX: usize = 16;
/// Anchors and aliases are for a handful of repeated values, not for bombs.
const REPLAYED_MAX: usize = 100_000;

/// Every document, or what is wrong with the text at that place.
pub(super) fn read(text: &str) -> Vec<Result<Node, Vec<FieldError>>> {
    if text.len() > BYTES_MAX {
        let message = format!("{} bytes, at most {BYTES_MAX} are read", text.len());
        return vec![Err(vec![FieldError::whole(0, message)])];
    }
    let nodes = match yaml(text, 0) {
        Ok(nodes) => nodes,
        Err(error) => match json_stream(text) {
            Some(chunks) => {
                let read = chunks.into_iter().map(|(lines_before, chunk)| yaml(chunk, lines_before));
                match read.collect::<Result<Vec<_>, _>>() {
                    Ok(nodes) => nodes.into_iter().flatten().collect(),
                    Err(error) => return vec![Err(vec![error])],
                }
            }
            None => return vec![Err(vec![error])],
        },
    };
    nodes.into_iter().flat_map(unlisted).map(Ok).collect()
}

/// A list stands for its items.
fn unlisted(node: Node) -> Vec<Node> {
    match node.value {
        Value::List(items) => items,
        value => vec![Node { line: node.line, value }],
    }
}

/// Reads YAML that stands after so many lines.
fn yaml(text: &str, lines_before: u64) -> Result<Vec<Node>, FieldError> {
    match serde_saphyr::from_multiple_with_options::<Placed>(text, options()) {
        Ok(placed) => Ok(placed.into_iter().map(|Placed(node)| shifted(node, lines_before)).collect()),
        Err(error) => {
            let line = error.location().map_or(0, |place| place.line() + lines_before);
            let message = match error.without_snippet() {
                serde_saphyr::Error::DuplicateMappingKey { key: Some(key), .. } => format!("{key:?} stands twice"),
                other => printable(&UserMessageFormatter.format_message(other)),
            };
            Err(FieldError::whole(line, message))
        }
    }
}

fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEPTH_MAX,
            flow_nesting_limit: DEPTH_MAX,
            // The text is short enough; many small documents are as good as few long ones.
            max_documents: BYTES_MAX,
            max_nodes: BYTES_MAX,
            max_events: 4 * BYTES_MAX,
            max_recorded_anchor_events: REPLAYED_MAX,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: REPLAYED_MAX,
        },
        with_snippet: false,
        emit_comments: false,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        reject_unsupported_tags: true,
    }
}

/// The values of a text that is JSON values one after the other, each with the lines before it; `None` = it is not.
fn json_stream(text: &str) -> Option<Vec<(u64, &str)>> {
    if !text.trim_start().starts_with(['{', '[']) {
        return None;
    }
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<serde::de::IgnoredAny>();
    let (mut chunks, mut lines_before, mut start) = (Vec::new(), 0, 0);
    while let Some(value) = stream.next() {
        value.ok()?;
        let chunk = text.get(start..stream.byte_offset())?;
        chunks.push((lines_before, chunk));
        lines_before += chunk.matches('\n').count() as u64;
        start = stream.byte_offset();
    }
    (chunks.len() > 1).then_some(chunks)
}

fn shifted(node: Node, lines: u64) -> Node {
    if lines == 0 {
        return node;
    }
    let value = match node.value {
        Value::List(items) => Value::List(items.into_iter().map(|item| shifted(item, lines)).collect()),
        Value::Map(entries) => {
            Value::Map(entries.into_iter().map(|(key, value)| (shifted(key, lines), shifted(value, lines))).collect())
        }
        value => value,
    };
    Node { line: node.line + lines, value }
}
