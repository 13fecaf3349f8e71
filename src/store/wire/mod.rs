//! The stored forms: JSON that makes sense in `etcdctl get`. Apart from the model, so that each can change alone.
//!
//! Every value has `v`, the format's version. Unknown fields are ignored, so that a newer writer of the same version may
//! add some; a newer `v` is said and the key left alone. Times in values are for people: no program compares them.

mod label;
mod status;
mod assignment;
mod claim;
mod hold;
mod manager;
mod role;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

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

#[derive(Deserialize)]
struct OnlyVersion {
    v: u64,
}

/// Parses the JSON of this version.
fn parse<W: DeserializeOwned>(bytes: &[u8]) -> Result<W, Unreadable> {
    // serde would read a list as a struct; no stored value is one.
    if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err(Unreadable::Invalid("not a JSON object with \"v\"".into()));
    }
    // The version first: what a newer one holds may not parse as ours.
    match serde_json::from_slice::<OnlyVersion>(bytes) {
        Ok(OnlyVersion { v: VERSION }) => {}
        Ok(OnlyVersion { v: 0 }) => return Err(Unreadable::Invalid("\"v\" must be 1".into())),
        Ok(OnlyVersion { v }) => return Err(Unreadable::Newer(v)),
        Err(error) => return Err(Unreadable::Invalid(format!("not a JSON object with \"v\": {error}"))),
    }
    serde_json::from_slice(bytes).map_err(|error| Unreadable::Invalid(error.to_string()))
}

fn print<W: Serialize>(wire: &W) -> Bytes {
    // Wire structs hold text, numbers, lists and maps with text keys: serialising them cannot fail.
    Bytes::from(serde_json::to_vec(wire).unwrap_or_default())
}

/// Turns a model's complaint into [`Unreadable::Invalid`], with the field it is about.
fn field<T, E: std::fmt::Display>(name: &str, result: Result<T, E>) -> Result<T, Unreadable> {
    result.map_err(|error| Unreadable::Invalid(format!("{name}: {error}")))
}

#[cfg(test)]
mod tests;
