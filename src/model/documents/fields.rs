//! One document's fields: found by name, read into types, with every error kept and placed.
//!
//! A reader of a field returns `None` when it is absent *or* wrong; wrong was noted in `errors`, so that reading goes on and
//! all errors of a document are told at once. A field without a value (`selector:`) is absent, as in Kubernetes.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use super::DocumentError;
use super::tree::{Node, Value};
use crate::model::text::printable;

/// More errors than this are not told: a document so wrong is the wrong document.
pub(super) const ERRORS_MAX: usize = 100;
/// A document has fewer fields than this.
const FIELDS_MAX: usize = 100;

/// An error before its file is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FieldError {
    pub(super) line: u64,
    pub(super) object: String,
    pub(super) field: String,
    pub(super) message: String,
}

impl FieldError {
    /// About a whole document or text.
    pub(super) fn whole(line: u64, message: impl Into<String>) -> Self {
        Self { line, object: String::new(), field: String::new(), message: message.into() }
    }

    pub(super) fn in_file(self, file: &str) -> DocumentError {
        let FieldError { line, object, field, message } = self;
        DocumentError { file: file.to_owned(), line, object, field, message }
    }

    /// Its words where key and line say nothing.
    pub(super) fn in_stored(&self) -> String {
        if self.field.is_empty() { self.message.clone() } else { format!("{}: {}", self.field, self.message) }
    }
}

/// The fields of one document that is being read.
pub(super) struct Fields<'t> {
    line: u64,
    entries: Vec<(&'t str, u64, &'t Node)>,
    errors: Vec<FieldError>,
}

impl<'t> Fields<'t> {
    /// Opens a document. Keys that are no text and keys that stand twice are errors already.
    pub(super) fn open(node: &'t Node) -> Result<Self, Vec<FieldError>> {
        let Value::Map(map) = &node.value else {
            let message = format!("a document is a map with kind and name, this is {}", node.describe());
            return Err(vec![FieldError::whole(node.line, message)]);
        };
        if map.len() > FIELDS_MAX {
            let message = format!("{} fields, a document has at most {FIELDS_MAX}", map.len());
            return Err(vec![FieldError::whole(node.line, message)]);
        }
        let mut fields = Fields { line: node.line, entries: Vec::new(), errors: Vec::new() };
        for (key, value) in map {
            let Value::Text(name) = &key.value else {
                fields.error(key.line, "", format!("the name of a field is {}, it must be text", key.describe()));
                continue;
            };
            if fields.entries.iter().any(|(seen, ..)| seen == name) {
                fields.error(key.line, name, "it stands twice");
            } else {
                fields.entries.push((name, key.line, value));
            }
        }
        Ok(fields)
    }

    /// Notes an error at a line.
    pub(super) fn error(&mut self, line: u64, field: impl Into<String>, message: impl Into<String>) {
        // What a file holds may be written by anybody, and is printed on a terminal.
        let field = printable(&field.into());
        if self.errors.len() < ERRORS_MAX {
            self.errors.push(FieldError { line, object: String::new(), field, message: message.into() });
        }
    }

    /// Whether nothing was wrong so far.
    pub(super) fn is_clean(&self) -> bool {
        self.errors.is_empty()
    }

    /// All errors in the order of lines, with what they are about.
    pub(super) fn into_errors(mut self) -> Vec<FieldError> {
        let word = |field: &str| match self.find(field).map(|node| &node.value) {
            Some(Value::Text(text)) => printable(&text.chars().take(80).collect::<String>()),
            _ => String::new(),
        };
        let object = format!("{} {}", word("kind"), word("name")).trim().to_owned();
        self.errors.iter_mut().for_each(|error| error.object.clone_from(&object));
        self.errors.sort_by_key(|error| error.line);
        self.errors
    }

    /// Notes an error about a field, at its line or the document's.
    pub(super) fn error_about(&mut self, field: &str, message: impl Into<String>) {
        let line = self.entries.iter().find(|(name, ..)| *name == field).map_or(self.line, |(_, line, _)| *line);
        self.error(line, field, message);
    }

    /// Notes every field that is not among `known`, with the nearest one that is.
    pub(super) fn refuse_unknown(&mut self, known: &[&str]) {
        let unknown: Vec<_> = self.entries.iter().filter(|(name, ..)| !known.contains(name)).copied().collect();
        for (name, line, _) in unknown {
            let hint = nearest(name, known).map_or(String::new(), |near| format!(", did you mean {near}?"));
            let name: String = name.chars().take(80).collect();
            self.error(line, name, format!("unknown field{hint} (known are {})", known.join(", ")));
        }
    }

    fn find(&self, field: &str) -> Option<&'t Node> {
        let (_, _, node) = self.entries.iter().find(|(name, ..)| *name == field)?;
        (node.value != Value::Null).then_some(node)
    }

    /// A field read by `read`.
    pub(super) fn with<T>(&mut self, field: &str, read: impl FnOnce(&Node) -> Result<T, String>) -> Option<T> {
        let node = self.find(field)?;
        read(node).map_err(|message| self.error(node.line, field, message)).ok()
    }

    /// A field of text that parses into `T`.
    pub(super) fn text<T: FromStr<Err: Display>>(&mut self, field: &str) -> Option<T> {
        self.with(field, parsed)
    }

    /// As [`Fields::text`]; it is an error if it is absent.
    pub(super) fn required<T: FromStr<Err: Display>>(&mut self, field: &str) -> Option<T> {
        if self.find(field).is_none() {
            self.error(self.line, field, "it is missing");
        }
        self.text(field)
    }

    /// A list whose items are read by `read`.
    pub(super) fn list<T>(&mut self, field: &str, read: impl Fn(&Node) -> Result<T, String>) -> Option<Vec<T>> {
        let node = self.find(field)?;
        let Value::List(items) = &node.value else {
            let message = format!("it must be a list, e.g. {field}: [ … ], this is {}", node.describe());
            self.error(node.line, field, message);
            return None;
        };
        let mut list = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            match read(item) {
                Ok(item) => list.push(item),
                Err(message) => self.error(item.line, format!("{field}[{index}]"), message),
            }
        }
        Some(list)
    }

    /// A map's entries, keys as text.
    pub(super) fn map(&mut self, field: &str) -> Vec<(&'t Node, &'t str, &'t Node)> {
        let Some(node) = self.find(field) else { return Vec::new() };
        let Value::Map(map) = &node.value else {
            let message = format!("it must be a map, e.g. {field}: {{ … }}, this is {}", node.describe());
            self.error(node.line, field, message);
            return Vec::new();
        };
        let mut entries: Vec<(&Node, &str, &Node)> = Vec::with_capacity(map.len());
        for (key, value) in map {
            match &key.value {
                Value::Text(name) => entries.push((key, name, value)),
                _ => self.error(key.line, field, format!("a key is {}, it must be text: put quotes round it", key.describe())),
            }
        }
        entries
    }
}

/// A node's text, parsed.
pub(super) fn parsed<T: FromStr<Err: Display>>(node: &Node) -> Result<T, String> {
    text(node)?.parse().map_err(|error: T::Err| error.to_string())
}

/// A node's text.
pub(super) fn text(node: &Node) -> Result<&str, String> {
    match &node.value {
        Value::Text(text) => Ok(text),
        Value::Integer(_) | Value::Float(_) | Value::Bool(_) => {
            Err(format!("it must be text, this is {}: put quotes round it", node.describe()))
        }
        _ => Err(format!("it must be text, this is {}", node.describe())),
    }
}

/// The fields of a document, each with its line.
pub(super) fn lines(node: &Node) -> BTreeMap<String, u64> {
    let Value::Map(map) = &node.value else { return BTreeMap::new() };
    let line = |(key, _): &(Node, Node)| match &key.value {
        Value::Text(name) => Some((name.clone(), key.line)),
        _ => None,
    };
    map.iter().filter_map(line).collect()
}

/// The version that a document names: `None` = none.
pub(super) fn version(node: &Node) -> Option<Result<u64, ()>> {
    let Value::Map(map) = &node.value else { return None };
    let (_, version) = map.iter().find(|(key, _)| key.value == Value::Text("v".into()))?;
    match version.value {
        Value::Integer(v) => Some(u64::try_from(v).map_err(|_| ())),
        _ => Some(Err(())),
    }
}

/// The known word that was probably meant.
pub(super) fn nearest<'k>(given: &str, known: &[&'k str]) -> Option<&'k str> {
    // Distances grow with the product of lengths, and no field has so long a name.
    let given: String = given.chars().take(80).flat_map(char::to_lowercase).collect();
    let distance = |word: &str| strsim::damerau_levenshtein(&given, &word.to_lowercase());
    let (distance, near) = known.iter().map(|word| (distance(word), *word)).min()?;
    (distance <= near.len().div_ceil(3)).then_some(near)
}
