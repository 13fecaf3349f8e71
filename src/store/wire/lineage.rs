//! `lineage`

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Stored, VERSION, parse, print, version};
use crate::model::lineage::{Chain, EPOCHS_MAX, Mark};
use crate::model::text::FromText;
use crate::plan::snapshot::Unreadable;

#[derive(Serialize, Deserialize)]
struct Wire {
    #[serde(deserialize_with = "version")]
    v: u64,
    /// Newest first.
    epochs: Vec<WireMark>,
}

/// A mark by its spelling.
struct WireMark(Mark);

impl Serialize for WireMark {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for WireMark {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(FromText::default()).map(WireMark)
    }
}

impl Stored for Chain {
    fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let wire: Wire = parse(bytes)?;
        if wire.epochs.len() > EPOCHS_MAX {
            return Err(Unreadable::Invalid(format!("{} epochs, a lineage has at most {EPOCHS_MAX}", wire.epochs.len())));
        }
        Chain::new(wire.epochs.into_iter().map(|mark| mark.0).collect()).map_err(Unreadable::Invalid)
    }

    fn encode(&self) -> Bytes {
        print(&Wire { v: VERSION, epochs: self.epochs().iter().copied().map(WireMark).collect() })
    }
}

/// A mark in another value. One that this enlist cannot read counts as absent: it proves nothing, and spoils nothing.
pub(super) mod mark {
    use super::Mark;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(in crate::store::wire) fn serialize<S: Serializer>(mark: &Option<Mark>, serializer: S) -> Result<S::Ok, S::Error> {
        match mark {
            Some(mark) => serializer.collect_str(mark),
            None => serializer.serialize_none(),
        }
    }

    pub(in crate::store::wire) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Mark>, D::Error> {
        let value = Option::<serde_json::Value>::deserialize(deserializer)?;
        Ok(value.and_then(|value| value.as_str()?.parse().ok()))
    }
}
