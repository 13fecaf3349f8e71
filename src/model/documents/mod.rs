//! Pools and groups as operators write them: YAML (several documents) or JSON (objects, lists, one after the other).
//!
//! Reading is strict, because a field that is not understood would change who gets an address: `selctor: zone=eu-1` must
//! never mean *all nodes*. So an unknown field is an error that names the nearest known one, and every document is read to
//! its end, so that all its errors are told at once. What is stored in etcd is the same document as JSON with `"v":1`.
//!
//! `input` finds the documents of a text and their lines, `tree` is what they are made of, `fields` reads one document's
//! fields, `build` makes pools and groups of them, `print` writes them.

mod build;
mod fields;
mod input;
mod print;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::BTreeMap;
use std::fmt;

use super::group::Group;
use super::names::{GroupName, PoolName};
use super::pool::Pool;
use fields::FieldError;

pub use print::{to_json, to_stored, to_yaml};

/// The version of the stored form that this enlist writes, and the newest that it reads.
pub const VERSION: u64 = 1;
/// The longest text that is read, and the longest stored form: one etcd request takes 1.5 MiB.
pub const BYTES_MAX: usize = 1024 * 1024;

/// A definition.
#[derive(Debug, Clone, PartialEq)]
pub enum Document {
    /// `kind: Pool`
    Pool(Pool),
    /// `kind: Group`
    Group(Group),
}

impl Document {
    /// `Pool` or `Group`.
    pub fn kind(&self) -> &'static str {
        match self {
            Document::Pool(_) => "Pool",
            Document::Group(_) => "Group",
        }
    }

    /// The name, unique among those of its kind.
    pub fn name(&self) -> &str {
        match self {
            Document::Pool(pool) => pool.name.as_str(),
            Document::Group(group) => group.name.as_str(),
        }
    }
}

/// What is wrong in a file, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentError {
    /// The file as the caller named it.
    pub file: String,
    /// From 1; 0 = the file as a whole.
    pub line: u64,
    /// Kind and name as far as they are known, e.g. `Pool eu`; may be empty.
    pub object: String,
    /// The field, e.g. `cidrs[1]` or `reserve.edge-7`; empty = the document as a whole.
    pub field: String,
    /// What is wrong and what is allowed.
    pub message: String,
}

impl std::error::Error for DocumentError {}

impl fmt::Display for DocumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        for part in [&self.object, &self.field, &self.message].into_iter().filter(|part| !part.is_empty()) {
            write!(f, ": {part}")?;
        }
        Ok(())
    }
}

/// Where a document stands, for what is found out about it later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    file: String,
    line: u64,
    /// Field → its line.
    fields: BTreeMap<String, u64>,
}

impl Place {
    /// An error about a field, at its line; at the document's if the field was left out.
    pub fn error(&self, document: &Document, field: &str, message: impl Into<String>) -> DocumentError {
        DocumentError {
            file: self.file.clone(),
            line: self.fields.get(field).copied().unwrap_or(self.line),
            object: format!("{} {}", document.kind(), document.name()),
            field: field.into(),
            message: message.into(),
        }
    }
}

/// Reads one file. The order is the file's; an empty file has none.
///
/// ```
/// use enlist::model::documents::{Document, parse};
/// let documents = parse("eu.yaml", "kind: Pool\nname: eu\ncidrs: [10.20.0.0/16]\n").unwrap();
/// assert!(matches!(&documents[..], [Document::Pool(pool)] if pool.name.as_str() == "eu"));
///
/// let errors = parse("eu.yaml", "kind: Pool\nname: eu\ncidrs: [10.20.0.0/16]\nselctor: zone=eu-1\n").unwrap_err();
/// assert!(errors[0].to_string().starts_with("eu.yaml:4: Pool eu: selctor: unknown field, did you mean selector?"));
/// ```
///
/// # Errors
/// Everything that is wrong in any document, in the order of lines (but no endless list).
pub fn parse(file: &str, text: &str) -> Result<Vec<Document>, Vec<DocumentError>> {
    parse_files(&[(file, text)])
}

/// Reads several files, `(name, text)` each, as [`parse`] does. No two documents in all of them may be of one kind and
/// name: which of them counts would be a matter of order.
///
/// # Errors
/// Everything that is wrong in any document of any file.
pub fn parse_files(files: &[(&str, &str)]) -> Result<Vec<Document>, Vec<DocumentError>> {
    parse_placed(files).map(|placed| placed.into_iter().map(|(document, _)| document).collect())
}

/// As [`parse_files`], each with the place where it stands.
///
/// # Errors
/// As [`parse_files`].
pub fn parse_placed(files: &[(&str, &str)]) -> Result<Vec<(Document, Place)>, Vec<DocumentError>> {
    let (mut documents, mut errors) = (Vec::new(), Vec::new());
    let mut places = BTreeMap::new();
    for (file, text) in files {
        for node in input::read(text) {
            let read = node.and_then(|node| {
                let document = build::document(&node)?;
                let place = (*file, node.line);
                match places.insert((document.kind(), document.name().to_owned()), place) {
                    None => Ok((document, Place { file: (*file).to_owned(), line: node.line, fields: fields::lines(&node) })),
                    Some(first) => Err(vec![twice(&document, node.line, first)]),
                }
            });
            match read {
                Ok(document) => documents.push(document),
                Err(found) => errors.extend(found.into_iter().map(|error| error.in_file(file))),
            }
            if errors.len() > fields::ERRORS_MAX {
                return Err(errors);
            }
        }
    }
    if errors.is_empty() { Ok(documents) } else { Err(errors) }
}

fn twice(document: &Document, line: u64, (file, first): (&str, u64)) -> FieldError {
    FieldError {
        object: format!("{} {}", document.kind(), document.name()),
        ..FieldError::whole(line, format!("it is defined at {file}:{first} already"))
    }
}

/// Why a stored definition cannot be used. It is frozen: what it said before still holds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoredError {
    /// Written by a newer enlist: leave the key alone.
    #[error("format v{0} is newer than this enlist reads: upgrade it; the key is left alone")]
    Newer(u64),
    /// It does not parse, or breaks a rule.
    #[error("{0}")]
    Invalid(String),
}

/// Reads the stored form.
///
/// # Errors
/// [`StoredError`]; an unknown field of the current version is one.
pub fn from_stored(bytes: &[u8]) -> Result<Document, StoredError> {
    let invalid = StoredError::Invalid;
    let node: tree::Unplaced =
        serde_json::from_slice(bytes).map_err(|error| invalid(format!("not a document in JSON: {error}")))?;
    // The version first: what a newer one holds may not parse as ours.
    match fields::version(&node.0) {
        Some(Ok(VERSION)) => {}
        Some(Ok(newer)) if newer > VERSION => return Err(StoredError::Newer(newer)),
        Some(_) => return Err(invalid("v: must be 1".into())),
        None => return Err(invalid("not a JSON object with \"v\"".into())),
    }
    build::document(&node.0).map_err(|errors| {
        let words: Vec<String> = errors.iter().take(3).map(FieldError::in_stored).collect();
        let more = if errors.len() > 3 { format!("; and {} more", errors.len() - 3) } else { String::new() };
        invalid(words.join("; ") + &more)
    })
}

/// Reads the value of `pools/<name>`.
///
/// # Errors
/// As [`from_stored`], and when it is no pool or another's.
pub fn stored_pool(name: &PoolName, bytes: &[u8]) -> Result<Pool, StoredError> {
    match from_stored(bytes)? {
        Document::Pool(pool) if pool.name == *name => Ok(pool),
        other => Err(misplaced("Pool", name.as_str(), &other)),
    }
}

/// Reads the value of `groups/<name>`.
///
/// # Errors
/// As [`from_stored`], and when it is no group or another's.
pub fn stored_group(name: &GroupName, bytes: &[u8]) -> Result<Group, StoredError> {
    match from_stored(bytes)? {
        Document::Group(group) if group.name == *name => Ok(group),
        other => Err(misplaced("Group", name.as_str(), &other)),
    }
}

fn misplaced(kind: &str, name: &str, found: &Document) -> StoredError {
    StoredError::Invalid(format!("the key is that of {kind} {name}, the value is {} {}", found.kind(), found.name()))
}
