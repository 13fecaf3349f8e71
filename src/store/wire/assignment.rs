//! `nodes/<node>/assignment`

use std::collections::BTreeMap;
use std::net::IpAddr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::label::{ports_from, ports_to};
use super::{Stored, VERSION, field, parse, print};
use crate::model::assignment::{Answer, Assignment, Bound, Leaving, Terms, Waiting};
use crate::model::names::Revision;
use crate::plan::snapshot::Unreadable;

#[derive(Serialize, Deserialize)]
struct Wire {
    v: u64,
    node: String,
    instance: String,
    #[serde(flatten)]
    answer: WireAnswer,
    generation: Revision,
    asked: String,
    #[serde(default)]
    leaving: Vec<WireLeaving>,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
enum WireAnswer {
    Bound(WireBound),
    Waiting {
        reason: String,
        #[serde(default)]
        message: String,
    },
}

#[derive(Serialize, Deserialize)]
struct WireBound {
    #[serde(flatten)]
    terms: WireTerms,
    addresses: Vec<IpAddr>,
    #[serde(default)]
    ports: BTreeMap<String, u16>,
}

#[derive(Serialize, Deserialize)]
struct WireLeaving {
    generation: Revision,
    #[serde(flatten)]
    terms: WireTerms,
    addresses: Vec<IpAddr>,
    #[serde(default)]
    ports: BTreeMap<String, u16>,
}

#[derive(Serialize, Deserialize)]
struct WireTerms {
    pool: String,
    domain: String,
    sharing: String,
    hold_s: u64,
    cooldown_s: u64,
    on_isolation: String,
}

impl TryFrom<WireTerms> for Terms {
    type Error = Unreadable;
    fn try_from(wire: WireTerms) -> Result<Self, Unreadable> {
        Ok(Terms {
            pool: field("pool", wire.pool.parse())?,
            domain: field("domain", wire.domain.parse())?,
            sharing: field("sharing", wire.sharing.parse())?,
            hold_s: wire.hold_s,
            cooldown_s: wire.cooldown_s,
            on_isolation: field("on_isolation", wire.on_isolation.parse())?,
        })
    }
}

impl From<&Terms> for WireTerms {
    fn from(terms: &Terms) -> Self {
        WireTerms {
            pool: terms.pool.to_string(),
            domain: terms.domain.to_string(),
            sharing: terms.sharing.to_string(),
            hold_s: terms.hold_s,
            cooldown_s: terms.cooldown_s,
            on_isolation: terms.on_isolation.to_string(),
        }
    }
}

impl Stored for Assignment {
    fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let wire: Wire = parse(bytes)?;
        let answer = match wire.answer {
            WireAnswer::Waiting { reason, message } => {
                Answer::Waiting(Waiting { reason: field("reason", reason.parse())?, message })
            }
            WireAnswer::Bound(bound) => Answer::Bound(Bound {
                terms: bound.terms.try_into()?,
                addresses: bound.addresses,
                ports: ports_from(bound.ports)?,
            }),
        };
        let leaving = wire.leaving.into_iter().map(|leaving| {
            Ok(Leaving {
                generation: leaving.generation,
                terms: leaving.terms.try_into()?,
                addresses: leaving.addresses,
                ports: ports_from(leaving.ports)?,
            })
        });
        Ok(Assignment {
            node: field("node", wire.node.parse())?,
            instance: field("instance", wire.instance.parse())?,
            generation: wire.generation,
            asked: field("asked", wire.asked.parse())?,
            answer,
            leaving: leaving.collect::<Result<_, Unreadable>>()?,
        })
    }

    fn encode(&self) -> Bytes {
        print(&Wire {
            v: VERSION,
            node: self.node.to_string(),
            instance: self.instance.to_string(),
            answer: match &self.answer {
                Answer::Waiting(waiting) => {
                    WireAnswer::Waiting { reason: waiting.reason.to_string(), message: waiting.message.clone() }
                }
                Answer::Bound(bound) => WireAnswer::Bound(WireBound {
                    terms: (&bound.terms).into(),
                    addresses: bound.addresses.clone(),
                    ports: ports_to(&bound.ports),
                }),
            },
            generation: self.generation,
            asked: self.asked.to_string(),
            leaving: self
                .leaving
                .iter()
                .map(|leaving| WireLeaving {
                    generation: leaving.generation,
                    terms: (&leaving.terms).into(),
                    addresses: leaving.addresses.clone(),
                    ports: ports_to(&leaving.ports),
                })
                .collect(),
        })
    }
}
