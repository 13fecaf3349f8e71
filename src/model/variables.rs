//! Variables: the selectable name → value pairs of a node (patent: 变量信息). They obey Kubernetes' label rules.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::names::is_rfc1123_subdomain;
use super::{recent, text};

/// The longest value, and the longest name without its prefix, in characters.
pub const VALUE_MAX: usize = 63;

/// Validated variables, ordered by name. They are cheap to clone and small: a view of a large fleet holds one set per
/// node.
///
/// A name is `[prefix/]name`: the prefix a lower-case RFC 1123 subdomain, the name 1 to 63 characters of
/// `[A-Za-z0-9._-]` that begin and end with a letter or digit. A value is empty or obeys the rule of names. (Kubernetes,
/// `apimachinery/pkg/util/validation`.)
///
/// ```
/// use enlist::Variables;
/// let mut variables = Variables::default();
/// variables.insert("zone", "eu-1").unwrap();
/// assert!(variables.insert("zone", "a b").is_err());
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Variables(Arc<[(Arc<str>, Arc<str>)]>);

/// The reason why a variable was rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("variable {name:?}: {rule}")]
pub struct VariableError {
    /// The name as given (cut at 80 characters).
    pub name: String,
    /// The problem and the allowed form.
    pub rule: String,
}

impl Variables {
    /// Adds or replaces one variable.
    ///
    /// # Errors
    /// When the name or the value breaks Kubernetes' rules; nothing changes then.
    pub fn insert(&mut self, name: &str, value: &str) -> Result<(), VariableError> {
        check(name, value)?;
        let pair = (recent::shared(name), recent::shared(value));
        let mut pairs = self.0.to_vec();
        match self.place(name) {
            Ok(place) => pairs[place] = pair,
            Err(place) => pairs.insert(place, pair),
        }
        self.0 = pairs.into();
        Ok(())
    }

    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.place(name).ok().and_then(|place| self.0.get(place)).map(|(_, value)| &**value)
    }

    /// Iterates in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Returns a plain map.
    pub fn to_map(&self) -> BTreeMap<String, String> {
        self.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    /// The index at which a name is, or would be inserted.
    fn place(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(other, _)| (**other).cmp(name))
    }
}

impl TryFrom<BTreeMap<String, String>> for Variables {
    type Error = VariableError;
    fn try_from(map: BTreeMap<String, String>) -> Result<Self, VariableError> {
        map.iter().try_for_each(|(name, value)| check(name, value))?;
        Ok(Variables(map.iter().map(|(name, value)| (recent::shared(name), recent::shared(value))).collect()))
    }
}

impl Serialize for Variables {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Variables {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Sorts the names; if a name occurs twice, the last value counts.
        let pairs = BTreeMap::<Shared, Shared>::deserialize(deserializer)?;
        pairs.iter().try_for_each(|(name, value)| check(&name.0, &value.0)).map_err(D::Error::custom)?;
        Ok(Variables(pairs.into_iter().map(|(name, value)| (name.0, value.0)).collect()))
    }
}

/// A text that shares its copy with a recent equal one.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Shared(Arc<str>);

impl FromStr for Shared {
    type Err = Infallible;
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Shared(recent::shared(text)))
    }
}

impl<'de> Deserialize<'de> for Shared {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::deserialize(deserializer)
    }
}

fn check(name: &str, value: &str) -> Result<(), VariableError> {
    let fault = |rule: String| VariableError { name: name.chars().take(80).collect(), rule };
    check_name(name).map_err(|rule| fault(rule.into()))?;
    check_value(value).map_err(|rule| fault(format!("value {:?} {rule}", value.chars().take(80).collect::<String>())))
}

/// Checks a variable's name against Kubernetes' rule for label keys.
///
/// # Errors
/// The rule that it breaks.
pub fn check_name(name: &str) -> Result<(), &'static str> {
    let (prefix, local) = match name.split_once('/') {
        Some((prefix, local)) => (Some(prefix), local),
        None => (None, name),
    };
    if let Some(prefix) = prefix
        && !is_rfc1123_subdomain(prefix)
    {
        return Err("the part before '/' must be a lower-case DNS name of at most 253 characters");
    }
    if local.is_empty() || local.len() > VALUE_MAX {
        return Err("the name must have 1 to 63 characters (after an optional prefix and '/')");
    }
    if !is_qualified(local) {
        return Err("the name must be letters, digits, '-', '_' and '.', and begin and end with a letter or digit");
    }
    Ok(())
}

/// Checks a variable's value against Kubernetes' rule for label values.
///
/// # Errors
/// The rule that it breaks.
pub fn check_value(value: &str) -> Result<(), &'static str> {
    if value.len() > VALUE_MAX {
        return Err("must have at most 63 characters");
    }
    if !value.is_empty() && !is_qualified(value) {
        return Err("must be letters, digits, '-', '_' and '.', and begin and end with a letter or digit");
    }
    Ok(())
}

/// Makes a valid value from a fact of the host: each byte that is not allowed becomes `-`, both ends are trimmed to a
/// letter or digit, and the value is cut at 63 characters.
///
/// ```
/// use enlist::model::variables::sanitize_value;
/// assert_eq!(sanitize_value("6.1.0-18-amd64 #1 SMP (Debian)"), "6.1.0-18-amd64--1-SMP--Debian");
/// assert_eq!(sanitize_value("(none)"), "none");
/// ```
pub fn sanitize_value(text: &str) -> String {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let replaced: String = text.bytes().map(|byte| if allowed(byte) { char::from(byte) } else { '-' }).collect();
    let trim = |text: &str| text.trim_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned();
    let mut value = trim(&replaced);
    value.truncate(VALUE_MAX);
    trim(&value)
}

fn is_qualified(text: &str) -> bool {
    let bytes = text.as_bytes();
    let ends = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    ends(bytes.first())
        && ends(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_obey_the_rule_of_kubernetes_label_keys() {
        let (name63, prefix253) = ("n".repeat(63), format!("{}/x", "a.".repeat(126) + "b"));
        for good in ["a", "A", "1a", "x_y.Z-9", "host/os", "example.com/rack-id", &name63, &prefix253] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        let (name64, prefix254) = ("n".repeat(64), format!("{}/x", "a.".repeat(126) + "bc"));
        for bad in ["", "/", "a/", "/a", "a/b/c", "-a", "a-", "_a", "a b", "é", "Host/os", "a..b/c", &name64, &prefix254] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn values_obey_the_rule_of_kubernetes_label_values() {
        let value63 = "v".repeat(63);
        for good in ["", "0", "eu-1", "a_b.C", &value63] {
            assert_eq!(check_value(good), Ok(()), "{good}");
        }
        let value64 = "v".repeat(64);
        for bad in [" ", "-", "-a", "a.", "a/b", "a b", "é", "a\n", &value64] {
            assert!(check_value(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn rejected_variable_changes_nothing() {
        let mut variables = Variables::default();
        variables.insert("zone", "eu-1").unwrap();
        let error = variables.insert("zone", "a b").unwrap_err();
        let rule = "must be letters, digits, '-', '_' and '.', and begin and end with a letter or digit";
        assert_eq!(error.to_string(), format!("variable \"zone\": value \"a b\" {rule}"));
        assert_eq!(variables.get("zone"), Some("eu-1"));
        variables.insert("zone", "eu-2").unwrap();
        assert_eq!(variables.iter().collect::<Vec<_>>(), [("zone", "eu-2")]);
    }

    #[test]
    fn host_facts_become_valid_values() {
        for (fact, value) in [
            ("x86_64", "x86_64"),
            ("6.1.0-18-amd64", "6.1.0-18-amd64"),
            ("björn's host", "bj--rn-s-host"),
            ("_edge_", "edge"),
            ("", ""),
            ("---", ""),
            ("\n4\n", "4"),
        ] {
            assert_eq!(sanitize_value(fact), value, "{fact}");
        }
        assert_eq!(sanitize_value(&format!("-{}-b", "a".repeat(62))), "a".repeat(62));
    }

    proptest! {
        #[test]
        fn sanitized_value_is_valid_and_stable(text in any::<String>()) {
            let value = sanitize_value(&text);
            prop_assert_eq!(check_value(&value), Ok(()));
            prop_assert_eq!(sanitize_value(&value), value);
        }
    }
}
