//! The name of one group, keyed or not: as people read and type it, and as one segment of an etcd key.
//!
//! `web/zone=eu-1,rack=r2`: the definition's name, then variables with their values in the definition's order. Variable
//! names may hold `/`, so within a part everything outside `[A-Za-z0-9._-]` is percent-encoded, and the segment is the
//! whole text encoded once more. Two different keys must never look the same, in either form.

use std::collections::BTreeSet;
use std::fmt::{self, Write};
use std::str::FromStr;

use crate::model::names::GroupName;
use crate::model::variables::{check_name, check_value};

/// The name of one group: the name of the definition and, for a keyed group, the values that its members have.
///
/// ```
/// use enlist::model::group::GroupKey;
/// let key: GroupKey = "web/zone=eu-1,example.com%2Frack=r2".parse().unwrap();
/// assert_eq!(key.name().as_str(), "web");
/// assert_eq!(key.values()[1], ("example.com/rack".to_string(), "r2".to_string()));
/// assert_eq!(key.segment(), "web%2Fzone%3Deu-1%2Cexample.com%252Frack%3Dr2");
/// assert_eq!(GroupKey::from_segment(&key.segment()).unwrap(), key);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupKey {
    name: GroupName,
    values: Vec<(String, String)>,
}

/// The reason why a text is not the name of a group.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("group {given:?} is not valid: {rule}; it is NAME or NAME/VARIABLE=VALUE,…, e.g. web/zone=eu-1,rack=r2")]
pub struct GroupKeyError {
    /// The text as given (cut at 80 characters).
    pub given: String,
    /// The rule that it breaks.
    pub rule: String,
}

impl GroupKey {
    /// The group of a definition that is not keyed.
    pub fn plain(name: GroupName) -> Self {
        Self { name, values: Vec::new() }
    }

    /// One group of a keyed definition.
    ///
    /// # Errors
    /// When the name or value of a variable breaks the rules of [`crate::Variables`], or a variable is named twice.
    pub fn keyed(name: GroupName, values: Vec<(String, String)>) -> Result<Self, GroupKeyError> {
        let key = Self { name, values };
        match fault(&key.values) {
            Some(rule) => Err(GroupKeyError { given: key.to_string().chars().take(80).collect(), rule }),
            None => Ok(key),
        }
    }

    /// For a caller that took names and values out of validated types.
    pub(super) fn of_valid(name: GroupName, values: Vec<(String, String)>) -> Self {
        Self { name, values }
    }

    /// The definition's name.
    pub fn name(&self) -> &GroupName {
        &self.name
    }

    /// Variables and values in the definition's order; empty = not keyed.
    pub fn values(&self) -> &[(String, String)] {
        &self.values
    }

    /// The segment of an etcd key that encodes this name.
    pub fn segment(&self) -> String {
        encode(&self.to_string())
    }

    /// Reads only the output of [`GroupKey::segment`]: a segment with needless escapes is foreign.
    ///
    /// # Errors
    /// The rule that the segment breaks.
    pub fn from_segment(segment: &str) -> Result<Self, GroupKeyError> {
        let error = |rule: String| GroupKeyError { given: segment.chars().take(80).collect(), rule };
        let text = decode(segment).map_err(|rule| error(rule.into()))?;
        let key: GroupKey = text.parse()?;
        if key.segment() == segment { Ok(key) } else { Err(error("it is not in canonical form".into())) }
    }
}

impl fmt::Display for GroupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.name.to_string();
        for (index, (name, value)) in self.values.iter().enumerate() {
            let before = if index == 0 { '/' } else { ',' };
            write!(text, "{before}{}={}", encode(name), encode(value))?;
        }
        f.pad(&text)
    }
}

impl FromStr for GroupKey {
    type Err = GroupKeyError;

    /// The `/` in the name of a variable may be typed as it is: `web/example.com/rack=r2`.
    fn from_str(text: &str) -> Result<Self, GroupKeyError> {
        let error = |rule: String| GroupKeyError { given: text.chars().take(80).collect(), rule };
        let (name, rest) = match text.split_once('/') {
            Some((name, rest)) => (name, Some(rest)),
            None => (text, None),
        };
        let name = name.parse().map_err(|_| error(format!("its name must be {}", crate::model::names::NAME_RULE)))?;
        let mut values = Vec::new();
        for part in rest.into_iter().flat_map(|rest| rest.split(',')) {
            let (variable, value) = part.split_once('=').ok_or_else(|| error("a '=' is missing".into()))?;
            let decoded = |text| decode(text).map_err(|rule| error(rule.into()));
            values.push((decoded(variable)?, decoded(value)?));
        }
        match fault(&values) {
            Some(rule) => Err(error(rule)),
            None => Ok(Self { name, values }),
        }
    }
}

fn fault(values: &[(String, String)]) -> Option<String> {
    if values.len() > super::KEYED_BY_MAX {
        return Some(format!("more than {} variables", super::KEYED_BY_MAX));
    }
    let mut seen = BTreeSet::new();
    values.iter().find_map(|(name, value)| match (check_name(name), check_value(value)) {
        (Err(rule), _) => Some(format!("variable {name:?}: {rule}")),
        (_, Err(rule)) => Some(format!("variable {name}: value {value:?} {rule}")),
        _ => (!seen.insert(name)).then(|| format!("variable {name} is named twice")),
    })
}

fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-') {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

fn decode(text: &str) -> Result<String, &'static str> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|digit| char::from(digit).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err("'%' must be followed by two hexadecimal digits");
        };
        decoded.push((high * 16 + low) as u8);
    }
    String::from_utf8(decoded).map_err(|_| "the percent-encoded bytes are not UTF-8")
}
