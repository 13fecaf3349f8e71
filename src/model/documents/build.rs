//! Pools and groups out of a document's fields. Defaults are here and nowhere else.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::fields::{FieldError, Fields, nearest, parsed, text, version};
use super::tree::{Node, Value};
use super::{BYTES_MAX, Document, VERSION, to_stored};
use crate::model::duration;
use crate::model::fault::Fault;
use crate::model::group::Group;
use crate::model::names::NodeId;
use crate::model::pool::{AtOnce, Pool, PortRange};

/// The domain of a pool that names none.
const DOMAIN_DEFAULT: &str = "default";

const KINDS: [&str; 2] = ["Pool", "Group"];
const POOL_FIELDS: [&str; 16] = [
    "kind",
    "name",
    "domain",
    "cidrs",
    "exclude",
    "ports",
    "sharing",
    "selector",
    "priority",
    "reserve",
    "hold",
    "cooldown",
    "on_mismatch",
    "move_at_once",
    "on_isolation",
    "v",
];
const GROUP_FIELDS: [&str; 6] = ["kind", "name", "selector", "keyed_by", "port", "v"];

/// Reads one document whole.
pub(super) fn document(node: &Node) -> Result<Document, Vec<FieldError>> {
    let mut fields = Fields::open(node)?;
    match version(node) {
        None | Some(Ok(VERSION)) => {}
        Some(Ok(newer)) if newer > VERSION => {
            fields.error_about("v", format!("format v{newer} is newer than this enlist reads, which is v{VERSION}"));
            return Err(fields.into_errors());
        }
        Some(_) => fields.error_about("v", format!("it must be {VERSION}, or left out")),
    }
    let kind: Option<String> = fields.required("kind");
    let built = match kind.as_deref() {
        Some("Pool") => pool(&mut fields).map(Document::Pool),
        Some("Group") => group(&mut fields).map(Document::Group),
        Some(other) => {
            let hint = nearest(other, &KINDS).map_or(String::new(), |near| format!(", did you mean {near}?"));
            let other: String = other.chars().take(80).collect();
            fields.error_about("kind", format!("{other:?} is not one of {}{hint}", KINDS.join(", ")));
            None
        }
        None => None,
    };
    let length = built.as_ref().filter(|_| fields.is_clean()).map_or(0, |document| to_stored(document).len());
    if length > BYTES_MAX {
        fields.error_about("", format!("{length} bytes as JSON, at most {BYTES_MAX} fit a value of etcd"));
    }
    match built {
        Some(document) if fields.is_clean() => Ok(document),
        _ => Err(fields.into_errors()),
    }
}

fn pool(fields: &mut Fields<'_>) -> Option<Pool> {
    fields.refuse_unknown(&POOL_FIELDS);
    let name = fields.required("name");
    let domain = fields.text("domain").or_else(|| DOMAIN_DEFAULT.parse().ok());
    let cidrs = fields.list("cidrs", cidr);
    let exclude = fields.list("exclude", cidr_or_address);
    let ports = fields.with("ports", ports);
    let sharing = fields.text("sharing");
    let selector = fields.text("selector");
    let priority = fields.with("priority", priority);
    let reserve = reserve(fields);
    let (hold, cooldown) = (fields.with("hold", term), fields.with("cooldown", term));
    let move_at_once = fields.with("move_at_once", at_once);
    let (on_mismatch, on_isolation) = (fields.text("on_mismatch"), fields.text("on_isolation"));

    let base = Pool::named(name?, domain?);
    let pool = Pool {
        cidrs: cidrs.unwrap_or_default(),
        exclude: exclude.unwrap_or_default(),
        ports: ports.unwrap_or(base.ports),
        sharing: sharing.unwrap_or(base.sharing),
        selector: selector.unwrap_or_default(),
        priority: priority.unwrap_or(base.priority),
        reserve,
        hold: hold.unwrap_or(base.hold),
        cooldown: cooldown.unwrap_or(base.cooldown),
        on_mismatch: on_mismatch.unwrap_or(base.on_mismatch),
        move_at_once: move_at_once.unwrap_or(base.move_at_once),
        on_isolation: on_isolation.unwrap_or(base.on_isolation),
        ..base
    };
    note_faults(fields, |pool| pool.faults(), pool)
}

fn group(fields: &mut Fields<'_>) -> Option<Group> {
    fields.refuse_unknown(&GROUP_FIELDS);
    let name = fields.required("name");
    let selector = fields.text("selector").unwrap_or_default();
    let keyed_by = fields.list("keyed_by", |node| text(node).map(str::to_owned)).unwrap_or_default();
    let port = fields.text("port");
    note_faults(fields, |group| group.faults(), Group { name: name?, selector, keyed_by, port })
}

/// Faults are looked for when every field could be read: what was left out for its error would cause others.
fn note_faults<T>(fields: &mut Fields<'_>, faults: fn(&T) -> Vec<Fault>, built: T) -> Option<T> {
    if fields.is_clean() {
        faults(&built).into_iter().for_each(|fault| fields.error_about(fault.field, fault.message));
    }
    Some(built)
}

fn reserve(fields: &mut Fields<'_>) -> BTreeMap<NodeId, Vec<IpAddr>> {
    let mut reserve = BTreeMap::new();
    for (key, name, value) in fields.map("reserve") {
        let node: NodeId = match name.parse() {
            Ok(node) => node,
            Err(error) => {
                fields.error(key.line, "reserve", format!("{error}"));
                continue;
            }
        };
        let one = std::slice::from_ref(value);
        let items = if let Value::List(items) = &value.value { items } else { one };
        let mut addresses = Vec::with_capacity(items.len());
        for item in items {
            match text(item).and_then(address) {
                Ok(ip) => addresses.push(ip),
                Err(message) => fields.error(item.line, format!("reserve.{node}"), message),
            }
        }
        if reserve.insert(node, addresses).is_some() {
            fields.error(key.line, "reserve", format!("{name} stands twice"));
        }
    }
    reserve
}

fn cidr(node: &Node) -> Result<IpNet, String> {
    let text = text(node)?;
    text.parse().map_err(|_| match text.parse::<IpAddr>() {
        Ok(ip) => format!("{ip} has no prefix length: {} is one address", IpNet::from(ip)),
        Err(_) => format!("{:?} is not ADDRESS/PREFIX, e.g. 10.20.0.0/16 or fd00:20::/64", short(text)),
    })
}

fn cidr_or_address(node: &Node) -> Result<IpNet, String> {
    let text = text(node)?;
    text.parse::<IpAddr>()
        .map(IpNet::from)
        .or_else(|_| text.parse())
        .map_err(|_| format!("{:?} is neither ADDRESS nor ADDRESS/PREFIX, e.g. 10.20.1.5 or 10.20.0.0/24", short(text)))
}

fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("{:?} is not an address, e.g. 10.20.9.9 or fd00:20::9", short(text)))
}

fn ports(node: &Node) -> Result<PortRange, String> {
    match &node.value {
        Value::Integer(port) => port.to_string().parse(),
        _ => parsed(node),
    }
}

fn at_once(node: &Node) -> Result<AtOnce, String> {
    match &node.value {
        Value::Integer(count) => count.to_string().parse(),
        _ => parsed(node),
    }
}

fn priority(node: &Node) -> Result<i32, String> {
    match &node.value {
        Value::Integer(priority) => i32::try_from(*priority).ok(),
        _ => None,
    }
    .ok_or_else(|| format!("it must be a whole number from {} to {}", i32::MIN, i32::MAX))
}

fn term(node: &Node) -> Result<Duration, String> {
    match &node.value {
        Value::Integer(number) => duration::parse(&number.to_string()),
        _ => duration::parse(text(node)?),
    }
}

fn short(text: &str) -> String {
    text.chars().take(80).collect()
}
