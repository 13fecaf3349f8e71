//! Validated names and numbers. The edge parses them once; every later use may trust them.
//!
//! Ids and names are lower-case RFC 1123 subdomains (the rule of Kubernetes object names), so that each is one etcd path
//! segment and one DNS name. They are cheap to clone.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::recent;
use super::text::FromText;

/// The reason why a name was rejected. `Display` gives the allowed form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {given:?} is not valid: {rule}")]
pub struct NameError {
    /// The kind of name, e.g. `node id`.
    pub kind: &'static str,
    /// The text that was given (cut at 80 characters).
    pub given: String,
    /// The rule that the name breaks, which gives the allowed form.
    pub rule: &'static str,
}

impl NameError {
    fn new(kind: &'static str, given: &str, rule: &'static str) -> Self {
        Self { kind, given: given.chars().take(80).collect(), rule }
    }
}

/// RFC 1123 subdomain as in Kubernetes: labels of `[a-z0-9]([-a-z0-9]*[a-z0-9])?` joined by dots, at most 253 bytes.
pub(crate) fn is_rfc1123_subdomain(text: &str) -> bool {
    !text.is_empty() && text.len() <= 253 && text.split('.').all(is_rfc1123_label)
}

fn is_rfc1123_label(label: &str) -> bool {
    let bytes = label.as_bytes();
    !bytes.is_empty()
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
        && bytes.first() != Some(&b'-')
        && bytes.last() != Some(&b'-')
}

/// RFC 6335 service name, as Kubernetes' named ports use it.
fn is_service_name(text: &str) -> bool {
    text.len() <= 15 && is_rfc1123_label(text) && !text.contains("--") && text.bytes().any(|b| b.is_ascii_lowercase())
}

/// An opaque token (instance, run, boot): it is compared and printed, never parsed.
fn is_token(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:literal, $check:ident, $rule:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Arc<str>);

        impl $type {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                if $check(text) { Ok(Self(recent::shared(text))) } else { Err(NameError::new($kind, text, $rule)) }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(FromText::default())
            }
        }
    };
}

const SUBDOMAIN_RULE: &str = "lower-case letters, digits, '-' and '.', each part starting and ending with a letter or digit, at most 253 characters (RFC 1123)";

macro_rules! subdomain {
    ($(#[$doc:meta])* $type:ident, $kind:literal) => {
        name!($(#[$doc])* $type, $kind, is_rfc1123_subdomain, "lower-case letters, digits, '-' and '.', each part starting and ending with a letter or digit, at most 253 characters (RFC 1123)");
    };
}

subdomain!(/** A node's id: the name under which it registers, e.g. `edge-7`. */ NodeId, "node id");
subdomain!(/** A pool's name. */ PoolName, "pool name");
subdomain!(/** A group's name (of the definition; a keyed group adds its values, see [`crate::model::group`]). */ GroupName, "group name");
subdomain!(/** A set of documents that are applied together (`enlist apply --set`). */ SetName, "set");
subdomain!(/** A routing domain: the same address may exist once in each. */ DomainName, "domain");
name!(/** The name of a port a node asks for, e.g. `http`: a service name of RFC 6335. */
    PortName, "port name", is_service_name,
    "at most 15 lower-case letters, digits and single '-', with at least one letter, not starting or ending with '-' (RFC 6335)");
name!(/** The installation of a node: random and kept in the state directory, or configured for containers that are recreated. */
    InstanceId, "instance", is_token, "1 to 128 letters, digits, '.', '_' and '-'");
name!(/** The process of the agent: random for each start. */
    RunId, "run", is_token, "1 to 128 letters, digits, '.', '_' and '-'");
name!(/** The boot of the host (`/proc/sys/kernel/random/boot_id`). */
    BootId, "boot id", is_token, "1 to 128 letters, digits, '.', '_' and '-'");

/// The rule of ids and names, for messages.
pub const NAME_RULE: &str = SUBDOMAIN_RULE;

/// A revision of the store: a 64-bit counter that every change of any key raises. 0 = none (an absent key's mod_revision).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub i64);

impl Revision {
    /// The `mod_revision` of an absent key in a compare.
    pub const NONE: Revision = Revision(0);

    /// The revision after this one.
    #[must_use]
    pub fn next(self) -> Revision {
        Revision(self.0.saturating_add(1))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn names_are_rfc_1123() {
        let long = "a".repeat(253);
        for good in ["edge-7", "a", "7", "rack.eu-1.example.com", long.as_str()] {
            assert!(good.parse::<NodeId>().is_ok(), "{good}");
        }
        let too_long = "a".repeat(254);
        for bad in ["", "Edge", "-a", "a-", "a..b", ".a", "a/b", "a_b", "ä", "a b", too_long.as_str()] {
            assert!(bad.parse::<NodeId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn port_names_are_service_names() {
        for good in ["http", "a1", "metrics-2"] {
            assert!(good.parse::<PortName>().is_ok(), "{good}");
        }
        for bad in ["", "80", "a--b", "abcdefghijklmnop", "-a", "HTTP"] {
            assert!(bad.parse::<PortName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn error_names_the_kind_the_value_and_the_rule() {
        let error = "Edge 7".parse::<NodeId>().unwrap_err();
        assert_eq!(error.to_string(), format!("node id \"Edge 7\" is not valid: {NAME_RULE}"));
    }
}
