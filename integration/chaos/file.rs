//! A cluster's history as a file: one line of JSON for each revision, in order, with every event of it. Written by the
//! recorder, read by the proof; it holds all that the proof needs.
//!
//! Values of foreign keys are left out: they are only there to fill the store.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use enlist::model::names::Revision;
use enlist::store::api::{Event, Key, KeyValue, LeaseId};
use enlist::store::keys::Prefix;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Line {
    revision: i64,
    /// Milliseconds since the run began at which the recorder saw it.
    ms: u64,
    events: Vec<LineEvent>,
}

#[derive(Serialize, Deserialize)]
struct LineEvent {
    key: String,
    /// Absent = deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(default)]
    created: i64,
    #[serde(default)]
    version: i64,
    #[serde(default)]
    lease: i64,
}

/// One revision of a recorded history.
#[derive(Debug, Clone)]
pub(crate) struct Recorded {
    pub(crate) revision: Revision,
    pub(crate) ms: u64,
    pub(crate) events: Vec<Event>,
}

/// Appends to a history.
pub(crate) struct Writer {
    file: File,
    prefix: Prefix,
}

impl Writer {
    /// A new history.
    pub(crate) fn create(path: &Path) -> Writer {
        Writer { file: File::create(path).unwrap(), prefix: Prefix::default() }
    }

    /// Adds revisions; when it returns they are in the file, whatever becomes of this process.
    pub(crate) fn append(&mut self, recorded: &[Recorded]) {
        let ours = self.prefix.range();
        let event = |event: &Event| match event {
            Event::Put(kv) => LineEvent {
                key: kv.key.to_string(),
                value: Some(if ours.contains(&kv.key) { text(&kv.value) } else { String::new() }),
                created: kv.create_revision.0,
                version: kv.version,
                lease: kv.lease.0,
            },
            Event::Delete { key, .. } => LineEvent { key: key.to_string(), value: None, created: 0, version: 0, lease: 0 },
        };
        let mut lines = Vec::new();
        for Recorded { revision, ms, events } in recorded {
            let line = Line { revision: revision.0, ms: *ms, events: events.iter().map(event).collect() };
            serde_json::to_writer(&mut lines, &line).unwrap();
            lines.push(b'\n');
        }
        self.file.write_all(&lines).unwrap();
    }
}

fn text(value: &Bytes) -> String {
    String::from_utf8(value.to_vec()).expect("everything that enlist writes is text")
}

/// A recorded history, from its first revision on.
pub(crate) fn read(path: &PathBuf) -> impl Iterator<Item = Recorded> + use<> {
    let reader = BufReader::new(File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())));
    reader.lines().map(|line| {
        let Line { revision, ms, events } = serde_json::from_str(&line.unwrap()).unwrap();
        let revision = Revision(revision);
        let event = |event: LineEvent| {
            let key = Key::from(event.key);
            match event.value {
                None => Event::Delete { key, mod_revision: revision },
                Some(value) => Event::Put(KeyValue {
                    key,
                    value: value.into(),
                    create_revision: Revision(event.created),
                    mod_revision: revision,
                    version: event.version,
                    lease: LeaseId(event.lease),
                }),
            }
        };
        Recorded { revision, ms, events: events.into_iter().map(event).collect() }
    })
}
