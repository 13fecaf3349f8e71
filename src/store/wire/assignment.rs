//! `nodes/<node>/assignment`

use std::net::IpAddr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::label::real_ports;
use super::lineage;
use super::{Stored, VERSION, parse, print, version};
use crate::model::asked::Asked;
use crate::model::assignment::{Answer, Assignment, Bound, Leaving, Reason, Terms, Waiting};
use crate::model::lineage::Mark;
use crate::model::names::{DomainName, InstanceId, NodeId, PoolName, Revision};
use crate::model::pool::{OnIsolation, Sharing};
use crate::model::ports::Ports;
use crate::model::text;
use crate::plan::snapshot::Unreadable;

/// The stored form: the fields of both answers side by side. (serde's own ways to choose between them read a value twice.)
#[derive(Serialize, Deserialize)]
struct Wire {
    #[serde(deserialize_with = "version")]
    v: u64,
    node: NodeId,
    instance: InstanceId,
    state: State,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pool: Option<PoolName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    domain: Option<DomainName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sharing: Option<Word<Sharing>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hold_s: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cooldown_s: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    on_isolation: Option<Word<OnIsolation>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    addresses: Option<Vec<IpAddr>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ports: Option<Ports>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<Word<Reason>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    generation: Revision,
    #[serde(with = "text")]
    asked: Asked,
    #[serde(default)]
    leaving: Vec<WireLeaving>,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "lineage::mark")]
    mark: Option<Mark>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Bound,
    Waiting,
}

/// A word of a closed set.
#[derive(Serialize, Deserialize)]
#[serde(transparent, bound(serialize = "T: std::fmt::Display", deserialize = "T: std::str::FromStr<Err: std::fmt::Display>"))]
struct Word<T>(#[serde(with = "text")] T);

#[derive(Serialize, Deserialize)]
struct WireLeaving {
    generation: Revision,
    pool: PoolName,
    domain: DomainName,
    #[serde(with = "text")]
    sharing: Sharing,
    hold_s: u64,
    cooldown_s: u64,
    #[serde(with = "text")]
    on_isolation: OnIsolation,
    addresses: Vec<IpAddr>,
    #[serde(default)]
    ports: Ports,
}

/// A field that the state needs.
fn needed<T>(name: &str, field: Option<T>) -> Result<T, Unreadable> {
    field.ok_or_else(|| Unreadable::Invalid(format!("missing field `{name}`")))
}

impl Wire {
    fn bound(self) -> Result<Bound, Unreadable> {
        let terms = Terms {
            pool: needed("pool", self.pool)?,
            domain: needed("domain", self.domain)?,
            sharing: needed("sharing", self.sharing)?.0,
            hold_s: needed("hold_s", self.hold_s)?,
            cooldown_s: needed("cooldown_s", self.cooldown_s)?,
            on_isolation: needed("on_isolation", self.on_isolation)?.0,
        };
        let (addresses, ports) = (needed("addresses", self.addresses)?, real_ports(self.ports.unwrap_or_default())?);
        Ok(Bound { terms, addresses, ports })
    }

    fn waiting(self) -> Result<Waiting, Unreadable> {
        Ok(Waiting { reason: needed("reason", self.reason)?.0, message: self.message.unwrap_or_default() })
    }
}

impl WireLeaving {
    fn leaving(self) -> Result<Leaving, Unreadable> {
        let WireLeaving { generation, pool, domain, sharing, hold_s, cooldown_s, on_isolation, addresses, ports } = self;
        let terms = Terms { pool, domain, sharing, hold_s, cooldown_s, on_isolation };
        Ok(Leaving { generation, terms, addresses, ports: real_ports(ports)? })
    }
}

impl From<&Leaving> for WireLeaving {
    fn from(leaving: &Leaving) -> Self {
        let Terms { pool, domain, sharing, hold_s, cooldown_s, on_isolation } = leaving.terms.clone();
        let (generation, addresses, ports) = (leaving.generation, leaving.addresses.clone(), leaving.ports.clone());
        WireLeaving { generation, pool, domain, sharing, hold_s, cooldown_s, on_isolation, addresses, ports }
    }
}

impl Stored for Assignment {
    fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let mut wire: Wire = parse(bytes)?;
        let leaving = std::mem::take(&mut wire.leaving).into_iter().map(WireLeaving::leaving);
        let leaving = leaving.collect::<Result<_, _>>()?;
        let (node, instance, generation, asked) = (wire.node.clone(), wire.instance.clone(), wire.generation, wire.asked);
        let mark = wire.mark;
        let answer = match wire.state {
            State::Bound => Answer::Bound(wire.bound()?),
            State::Waiting => Answer::Waiting(wire.waiting()?),
        };
        Ok(Assignment { node, instance, generation, asked, answer, leaving, mark })
    }

    fn encode(&self) -> Bytes {
        let (bound, waiting) = match &self.answer {
            Answer::Bound(bound) => (Some(bound), None),
            Answer::Waiting(waiting) => (None, Some(waiting)),
        };
        print(&Wire {
            v: VERSION,
            node: self.node.clone(),
            instance: self.instance.clone(),
            state: if bound.is_some() { State::Bound } else { State::Waiting },
            pool: bound.map(|bound| bound.terms.pool.clone()),
            domain: bound.map(|bound| bound.terms.domain.clone()),
            sharing: bound.map(|bound| Word(bound.terms.sharing)),
            hold_s: bound.map(|bound| bound.terms.hold_s),
            cooldown_s: bound.map(|bound| bound.terms.cooldown_s),
            on_isolation: bound.map(|bound| Word(bound.terms.on_isolation)),
            addresses: bound.map(|bound| bound.addresses.clone()),
            ports: bound.map(|bound| bound.ports.clone()),
            reason: waiting.map(|waiting| Word(waiting.reason)),
            message: waiting.map(|waiting| waiting.message.clone()),
            generation: self.generation,
            asked: self.asked,
            leaving: self.leaving.iter().map(WireLeaving::from).collect(),
            mark: self.mark,
        })
    }
}
