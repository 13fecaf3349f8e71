//! The stored forms: JSON that makes sense in `etcdctl get`. Apart from the model, so that each can change alone.
//!
//! Every value has `v`, the format's version. Unknown fields are ignored, so that a newer writer of the same version may
//! add some; a newer `v` is said and the key left alone. Times in values are for people: no program compares them.

mod label;
mod status;
mod assignment;
mod claim;
mod hold;
mod lineage;
mod manager;
mod role;

use std::ops::Deref;

use bytes::Bytes;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};

pub use manager::{Checkpoint, Condition, Partial, Summary};
pub use role::RoleReport;

use crate::plan::snapshot::Unreadable;

/// The format's version that this enlist writes, and the newest that it reads.
pub const VERSION: u64 = 1;

/// A value with a stored form.
///
/// ```
/// use enlist::store::wire::Stored;
/// use enlist::model::hold::Hold;
/// let hold = Hold::decode(br#"{"v":1,"state":"held","extended":false,"hold_s":600,"since":"","later":"ignored"}"#).unwrap();
/// assert_eq!(hold.seconds, 600);
/// assert_eq!(Hold::decode(&hold.encode()).unwrap(), hold);
/// ```
pub trait Stored: Sized {
    /// Reads the stored form.
    ///
    /// # Errors
    /// [`Unreadable`] with what is wrong in words.
    fn decode(bytes: &[u8]) -> Result<Self, Unreadable>;
    /// The stored form. Equal values have equal forms.
    fn encode(&self) -> Bytes;
}

/// A value beside its stored form: for what is compared with what stands there over and over, and changes rarely.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded<T> {
    value: T,
    bytes: Bytes,
}

impl<T: Stored> Encoded<T> {
    /// Encodes it.
    pub fn new(value: T) -> Self {
        Encoded { bytes: value.encode(), value }
    }
}

impl<T> Encoded<T> {
    /// The stored form.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl<T> Deref for Encoded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

#[derive(Deserialize)]
struct OnlyVersion {
    v: u64,
}

/// Parses the JSON of this version. `W` takes its `v` by [`version`].
fn parse<W: DeserializeOwned>(bytes: &[u8]) -> Result<W, Unreadable> {
    // serde would read a list as a struct; no stored value is one.
    if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err(Unreadable::Invalid("not a JSON object with \"v\"".into()));
    }
    serde_json::from_slice(bytes).map_err(|error| unreadable(bytes, &error))
}

/// Why a value did not parse: what a newer version holds need not parse as ours, so that is told first.
fn unreadable(bytes: &[u8], error: &serde_json::Error) -> Unreadable {
    match serde_json::from_slice::<OnlyVersion>(bytes) {
        Ok(OnlyVersion { v: VERSION }) => Unreadable::Invalid(error.to_string()),
        Ok(OnlyVersion { v: 0 }) => Unreadable::Invalid("\"v\" must be 1".into()),
        Ok(OnlyVersion { v }) => Unreadable::Newer(v),
        Err(error) => Unreadable::Invalid(format!("not a JSON object with \"v\": {error}")),
    }
}

/// Takes this version only.
fn version<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    match u64::deserialize(deserializer)? {
        VERSION => Ok(VERSION),
        other => Err(D::Error::custom(format_args!("version {other}"))),
    }
}

fn print<W: Serialize>(wire: &W) -> Bytes {
    // Wire structs hold text, numbers, lists and maps with text keys: serialising them cannot fail.
    Bytes::from(serde_json::to_vec(wire).unwrap_or_default())
}

#[cfg(test)]
mod tests;
