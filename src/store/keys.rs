//! The layout of the keys. Only this module builds keys and parses them.
//!
//! Every key is below one prefix (default `/enlist`). A key without a known form is *foreign*: enlist leaves it alone.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::model::claim::ClaimKey;
use crate::model::names::{DomainName, GroupName, NodeId, PoolName, SetName};
use crate::plan::change::Subject;
use crate::store::api::{Key, KeyRange};

/// The prefix of enlist's keys, e.g. `/enlist`: no `/` at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix(String);

/// The reason why a prefix was rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "prefix {given:?} is not valid{}: it must begin with '/', not end with '/', and have 2 to 200 printable characters without \
     spaces or '//'",
    .meant.as_ref().map(|meant| format!(" (did you mean {meant}?)")).unwrap_or_default()
)]
pub struct PrefixError {
    given: String,
    /// What is valid, and was probably meant.
    meant: Option<String>,
}

impl FromStr for Prefix {
    type Err = PrefixError;
    fn from_str(text: &str) -> Result<Self, PrefixError> {
        if is_prefix(text) {
            return Ok(Prefix(text.to_owned()));
        }
        let meant = format!("/{}", text.trim_matches('/'));
        Err(PrefixError { given: text.chars().take(80).collect(), meant: Some(meant).filter(|meant| is_prefix(meant)) })
    }
}

fn is_prefix(text: &str) -> bool {
    (2..=200).contains(&text.len())
        && text.starts_with('/')
        && !text.ends_with('/')
        && !text.contains("//")
        && text.bytes().all(|b| b.is_ascii_graphic())
}

impl Default for Prefix {
    fn default() -> Self {
        Prefix("/enlist".into())
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The roles that elect a leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Assigns addresses and ports.
    Allocator,
    /// Copies labels to the manager prefix.
    Relay,
    /// Writes groups.
    Manager,
}

impl Role {
    /// All roles, in the order of the data flow.
    pub const ALL: [Role; 3] = [Role::Allocator, Role::Relay, Role::Manager];

    /// The word in keys and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Allocator => "allocator",
            Role::Relay => "relay",
            Role::Manager => "manager",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Role {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Role::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| format!("role {text:?} is not one of allocator, relay, manager"))
    }
}

/// The parts of a node's sub-tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodePart {
    /// `assignment`
    Assignment,
    /// `hold`
    Hold,
    /// `hold/clock`
    Clock,
    /// `label`
    Label,
    /// `status`
    Status,
}

impl NodePart {
    /// The parts that the relay copies.
    pub const COPIED: [NodePart; 3] = [NodePart::Assignment, NodePart::Label, NodePart::Status];

    /// The end of the key.
    pub fn as_str(self) -> &'static str {
        match self {
            NodePart::Assignment => "assignment",
            NodePart::Hold => "hold",
            NodePart::Clock => "hold/clock",
            NodePart::Label => "label",
            NodePart::Status => "status",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [NodePart::Assignment, NodePart::Hold, NodePart::Clock, NodePart::Label, NodePart::Status]
            .into_iter()
            .find(|part| part.as_str() == text)
    }
}

/// What operators define.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Defined {
    /// Pools.
    Pools,
    /// Groups.
    Groups,
}

impl Defined {
    /// The folder that they are in.
    pub fn as_str(self) -> &'static str {
        match self {
            Defined::Pools => "pools",
            Defined::Groups => "groups",
        }
    }
}

/// A key of ours, taken apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ParsedKey {
    /// `pools/<pool>`
    Pool(PoolName),
    /// `groups/<group>`
    Group(GroupName),
    /// `brakes/<role>`
    Brake(Role),
    /// `applied/<set>/{pools,groups}`
    Applied(SetName, Defined),
    /// `nodes/<node>/…`
    Node(NodeId, NodePart),
    /// `claims/<domain>/<ip>[/<port>]`
    Claim(ClaimKey),
    /// `lineage`
    Lineage,
    /// `manager/nodes/<node>/…`
    Copy(NodeId, NodePart),
    /// `manager/checkpoint`
    Checkpoint,
    /// `manager/groups/<segment>`: the segment as stored
    Summary(String),
    /// `manager/groups/<segment>/members/<node>`
    Member(String, NodeId),
    /// `leaders/<role>/<lease>`
    Leader(Role, String),
    /// `roles/<role>`
    Role(Role),
    /// Not a key of enlist.
    Foreign,
}

impl Prefix {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A key below the prefix.
    pub fn key(&self, rest: impl fmt::Display) -> Key {
        Key::from(format!("{}/{rest}", self.0))
    }

    /// Everything below the prefix.
    pub fn range(&self) -> KeyRange {
        KeyRange::prefix(format!("{}/", self.0))
    }

    /// Everything below a folder, e.g. `nodes`.
    pub fn folder(&self, folder: impl fmt::Display) -> KeyRange {
        KeyRange::prefix(format!("{}/{folder}/", self.0))
    }

    /// `pools/<pool>`
    pub fn pool(&self, pool: &PoolName) -> Key {
        self.key(format_args!("pools/{pool}"))
    }

    /// `groups/<group>`
    pub fn group(&self, group: &GroupName) -> Key {
        self.key(format_args!("groups/{group}"))
    }

    /// `brakes/<role>`
    pub fn brake(&self, role: Role) -> Key {
        self.key(format_args!("brakes/{role}"))
    }

    /// `applied/<set>/{pools,groups}`
    pub fn applied(&self, set: &SetName, kind: Defined) -> Key {
        self.key(format_args!("applied/{set}/{}", kind.as_str()))
    }

    /// `nodes/<node>/<part>`
    pub fn node(&self, node: &NodeId, part: NodePart) -> Key {
        self.key(format_args!("nodes/{node}/{}", part.as_str()))
    }

    /// A node's whole sub-tree.
    pub fn node_range(&self, node: &NodeId) -> KeyRange {
        self.folder(format_args!("nodes/{node}"))
    }

    /// `claims/<domain>/<ip>[/<port>]`
    pub fn claim(&self, claim: &ClaimKey) -> Key {
        self.key(format_args!("claims/{claim}"))
    }

    /// The ports claimed on an address.
    pub fn claims_under(&self, domain: &DomainName, ip: IpAddr) -> KeyRange {
        self.folder(format_args!("claims/{domain}/{ip}"))
    }

    /// `lineage`
    pub fn lineage(&self) -> Key {
        self.key("lineage")
    }

    /// `manager/nodes/<node>/<part>`
    pub fn copy(&self, node: &NodeId, part: NodePart) -> Key {
        self.key(format_args!("manager/nodes/{node}/{}", part.as_str()))
    }

    /// `manager/checkpoint`
    pub fn checkpoint(&self) -> Key {
        self.key("manager/checkpoint")
    }

    /// `manager/groups/<segment>`
    pub fn summary(&self, segment: &str) -> Key {
        self.key(format_args!("manager/groups/{segment}"))
    }

    /// `manager/groups/<segment>/members/<node>`
    pub fn member(&self, segment: &str, node: &NodeId) -> Key {
        self.key(format_args!("manager/groups/{segment}/members/{node}"))
    }

    /// `leaders/<role>/`
    pub fn leaders(&self, role: Role) -> KeyRange {
        self.folder(format_args!("leaders/{role}"))
    }

    /// `roles/<role>`
    pub fn role(&self, role: Role) -> Key {
        self.key(format_args!("roles/{role}"))
    }

    /// The key of a plan's subject.
    pub fn subject(&self, subject: &Subject) -> Key {
        match subject {
            Subject::Label(node) => self.node(node, NodePart::Label),
            Subject::Status(node) => self.node(node, NodePart::Status),
            Subject::Assignment(node) => self.node(node, NodePart::Assignment),
            Subject::Hold(node) => self.node(node, NodePart::Hold),
            Subject::Clock(node) => self.node(node, NodePart::Clock),
            Subject::Claim(claim) => self.claim(claim),
        }
    }

    /// The key without the prefix, for messages; the whole key if it is not below the prefix.
    pub fn relative(&self, key: &Key) -> String {
        let text = key.to_string();
        text.strip_prefix(&self.0).and_then(|rest| rest.strip_prefix('/')).unwrap_or(&text).to_owned()
    }

    /// The address above a key that is not the claim of a port: such a key is [`ParsedKey::Foreign`], but inside the
    /// range of [`Prefix::claims_under`].
    pub fn stray_under(&self, key: &Key) -> Option<ClaimKey> {
        let relative = self.relative(key);
        let (domain, rest) = relative.strip_prefix("claims/")?.split_once('/')?;
        let (ip, _) = rest.split_once('/')?;
        match parse_relative(&relative) {
            Some(_) => None,
            None => parse_claim(&format!("{domain}/{ip}")),
        }
    }

    /// Parses a key. A key without a known form is [`ParsedKey::Foreign`].
    pub fn parse(&self, key: &Key) -> ParsedKey {
        key.as_str()
            .and_then(|text| text.strip_prefix(&self.0))
            .and_then(|rest| rest.strip_prefix('/'))
            .and_then(parse_relative)
            .unwrap_or(ParsedKey::Foreign)
    }
}

fn parse_relative(text: &str) -> Option<ParsedKey> {
    if text == "lineage" {
        return Some(ParsedKey::Lineage);
    }
    let (folder, rest) = text.split_once('/')?;
    match folder {
        "nodes" => parse_node(rest).map(|(node, part)| ParsedKey::Node(node, part)),
        "claims" => parse_claim(rest).map(ParsedKey::Claim),
        "pools" => rest.parse().ok().map(ParsedKey::Pool),
        "groups" => rest.parse().ok().map(ParsedKey::Group),
        "brakes" => rest.parse().ok().map(ParsedKey::Brake),
        "roles" => rest.parse().ok().map(ParsedKey::Role),
        "applied" => {
            let (set, kind) = rest.split_once('/')?;
            let kind = [Defined::Pools, Defined::Groups].into_iter().find(|known| known.as_str() == kind)?;
            Some(ParsedKey::Applied(set.parse().ok()?, kind))
        }
        "leaders" => {
            let (role, lease) = rest.split_once('/')?;
            Some(ParsedKey::Leader(role.parse().ok()?, lease.to_owned()))
        }
        "manager" => parse_manager(rest),
        _ => None,
    }
}

fn parse_manager(text: &str) -> Option<ParsedKey> {
    if text == "checkpoint" {
        return Some(ParsedKey::Checkpoint);
    }
    let (folder, rest) = text.split_once('/')?;
    match folder {
        "nodes" => parse_node(rest).map(|(node, part)| ParsedKey::Copy(node, part)),
        "groups" => match rest.split_once('/') {
            None => (!rest.is_empty()).then(|| ParsedKey::Summary(rest.to_owned())),
            Some((segment, member)) => {
                let node = member.strip_prefix("members/")?.parse().ok()?;
                Some(ParsedKey::Member(segment.to_owned(), node))
            }
        },
        _ => None,
    }
}

fn parse_node(text: &str) -> Option<(NodeId, NodePart)> {
    let (node, part) = text.split_once('/')?;
    Some((node.parse().ok()?, NodePart::parse(part)?))
}

/// Only canonical spellings are claims: another spelling of an address would be a second key for it.
fn parse_claim(text: &str) -> Option<ClaimKey> {
    let mut parts = text.split('/');
    let domain = parts.next()?.parse().ok()?;
    let ip_text = parts.next()?;
    let ip: IpAddr = ip_text.parse().ok()?;
    let port_text = parts.next();
    let port = match port_text {
        None => None,
        Some(text) => Some(text.parse::<u16>().ok().filter(|port| *port > 0 && port.to_string() == text)?),
    };
    (parts.next().is_none() && ip.to_string() == ip_text).then_some(ClaimKey { domain, ip, port })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn parse(text: &str) -> ParsedKey {
        Prefix::default().parse(&Key::from(text))
    }

    #[test]
    fn built_keys_parse_back() {
        let prefix = Prefix::default();
        let node: NodeId = "edge-7".parse().unwrap();
        let claim = ClaimKey { domain: "default".parse().unwrap(), ip: "fd00::1".parse().unwrap(), port: Some(80) };
        for part in [NodePart::Assignment, NodePart::Hold, NodePart::Clock, NodePart::Label, NodePart::Status] {
            assert_eq!(prefix.parse(&prefix.node(&node, part)), ParsedKey::Node(node.clone(), part));
            assert_eq!(prefix.parse(&prefix.copy(&node, part)), ParsedKey::Copy(node.clone(), part));
        }
        assert_eq!(prefix.claim(&claim).to_string(), "/enlist/claims/default/fd00::1/80");
        assert_eq!(prefix.parse(&prefix.claim(&claim)), ParsedKey::Claim(claim));
        assert_eq!(prefix.parse(&prefix.checkpoint()), ParsedKey::Checkpoint);
        assert_eq!(prefix.parse(&prefix.lineage()), ParsedKey::Lineage);
        assert_eq!(prefix.parse(&prefix.member("web%2Fzone%3Da", &node)), ParsedKey::Member("web%2Fzone%3Da".into(), node));
        let set: SetName = "site-a".parse().unwrap();
        for kind in [Defined::Pools, Defined::Groups] {
            assert_eq!(prefix.parse(&prefix.applied(&set, kind)), ParsedKey::Applied(set.clone(), kind));
        }
        for role in Role::ALL {
            assert_eq!(prefix.parse(&prefix.role(role)), ParsedKey::Role(role));
            assert_eq!(prefix.parse(&prefix.brake(role)), ParsedKey::Brake(role));
        }
    }

    #[test]
    fn stray_key_under_an_address_reports_the_address() {
        let stray = |text: &[u8]| Prefix::default().stray_under(&Key::from(text.to_vec())).map(|key| key.to_string());
        for text in ["x", "080", "0", "", "65536", "80/x", "\u{e4}"] {
            let key = format!("/enlist/claims/default/fd00::1/{text}");
            assert_eq!(stray(key.as_bytes()).as_deref(), Some("default/fd00::1"), "{text}");
        }
        assert_eq!(stray(b"/enlist/claims/default/10.0.0.1/\xff").as_deref(), Some("default/10.0.0.1"));
        for text in ["default/10.0.0.1/80", "default/10.0.0.1", "default/FD00::1/x", "Default/10.0.0.1/x", "x"] {
            assert_eq!(stray(format!("/enlist/claims/{text}").as_bytes()), None, "{text}");
        }
        assert_eq!(stray(b"/other/claims/default/10.0.0.1/x"), None);
    }

    #[test]
    fn unknown_key_forms_are_foreign() {
        for text in [
            "/enlist",
            "/enlist/",
            "/enlistx/nodes/a/label",
            "/enlist/nodes/A/label",
            "/enlist/nodes/a/labels",
            "/enlist/nodes/a",
            "/enlist/claims/default/010.0.0.1",
            "/enlist/claims/default/10.0.0.1/080",
            "/enlist/claims/default/10.0.0.1/0",
            "/enlist/claims/default/FD00::1",
            "/enlist/claims/default/10.0.0.1/80/x",
            "/enlist/pools/",
            "/enlist/x/y",
        ] {
            assert_eq!(parse(text), ParsedKey::Foreign, "{text}");
        }
        assert_eq!(Prefix::default().parse(&Key::from(vec![0xff, 0xfe])), ParsedKey::Foreign);
    }
}
