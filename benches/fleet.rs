//! Registered nodes as stored: label, status, assignment, and two claims each.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytes::Bytes;
use enlist::model::asked::Asked;
use enlist::model::assignment::{Answer, Bound, Terms};
use enlist::model::claim::{Claim, ClaimKey, ClaimState};
use enlist::model::documents::{parse, to_stored};
use enlist::model::label::Want;
use enlist::model::names::Revision;
use enlist::model::pool::{OnIsolation, Sharing};
use enlist::model::status::{Phase, Status};
use enlist::store::api::{Key, KeyValue, LeaseId};
use enlist::store::keys::{NodePart, Prefix};
use enlist::store::wire::Stored;
use enlist::{Assignment, Label, Variables};

const POOL: &str = "{kind: Pool, name: bench, cidrs: [10.0.0.0/12], ports: 30000-32767}";

pub(crate) fn kv(key: Key, value: impl Into<Bytes>, at: i64) -> KeyValue {
    let revision = Revision(at);
    // Agents put their statuses on leases; on none a node counts as silent.
    let lease = LeaseId(i64::from(key.as_bytes().ends_with(b"/status")));
    KeyValue { key, value: value.into(), create_revision: revision, mod_revision: revision, version: 1, lease }
}

pub(crate) fn variables(n: usize) -> Variables {
    let mut variables = Variables::default();
    for (name, value) in [("zone", format!("eu-{}", n % 3)), ("role", "web".into()), ("tenant", format!("t-{}", n % 1_000))] {
        variables.insert(name, &value).unwrap();
    }
    variables
}

pub(crate) fn label(n: usize) -> Label {
    Label {
        id: format!("node-{n:06}").parse().unwrap(),
        instance: format!("{n:08x}-0001-4000-8000-{n:012x}").parse().unwrap(),
        boot: "00000001-0002-4000-8000-000000000001".parse().unwrap(),
        run: format!("{n:08x}-0003-4000-8000-{n:012x}").parse().unwrap(),
        temporary: SocketAddr::from(([192, 0, 2, 17], 49_311)),
        variables: variables(n),
        description: "video cache".into(),
        since: "2026-01-01T00:00:00Z".into(),
        ports: vec!["main".parse().unwrap()],
        want: Want::default(),
        holding: None,
        ephemeral: false,
        annotations: [("serial".to_owned(), format!("{n:012}"))].into(),
    }
}

fn status(label: &Label, phase: Phase, generation: i64) -> Status {
    Status {
        instance: label.instance.clone(),
        boot: label.boot.clone(),
        run: label.run.clone(),
        phase,
        generation: Revision(generation),
        message: String::new(),
        refused: Vec::new(),
    }
}

/// A node without an answer: two keys.
pub(crate) fn joining(n: usize, at: i64) -> Vec<KeyValue> {
    let (label, prefix) = (label(n), Prefix::default());
    let status = status(&label, Phase::Joining, 0);
    vec![
        kv(prefix.node(&label.id, NodePart::Label), label.encode(), at),
        kv(prefix.node(&label.id, NodePart::Status), status.encode(), at),
    ]
}

/// A registered node: five keys.
pub(crate) fn registered(n: usize, at: i64) -> Vec<KeyValue> {
    let (label, prefix) = (label(n), Prefix::default());
    let ip = IpAddr::from(Ipv4Addr::from(0x0a00_0001 + u32::try_from(n).unwrap()));
    let terms = Terms {
        pool: "bench".parse().unwrap(),
        domain: "default".parse().unwrap(),
        sharing: Sharing::Exclusive,
        hold_s: 600,
        cooldown_s: 60,
        on_isolation: OnIsolation::Keep,
    };
    let claim = Claim { node: label.id.clone(), pool: terms.pool.clone(), state: ClaimState::Bound };
    let address = ClaimKey { domain: terms.domain.clone(), ip, port: None };
    let port = ClaimKey { port: Some(30_000), ..address.clone() };
    let assignment = Assignment {
        node: label.id.clone(),
        instance: label.instance.clone(),
        generation: Revision(at),
        asked: Asked::of(&label, Sharing::Exclusive),
        answer: Answer::Bound(Bound {
            terms,
            addresses: vec![ip],
            ports: label.ports.iter().cloned().map(|name| (name, 30_000)).collect(),
        }),
        leaving: Vec::new(),
        mark: None,
    };
    vec![
        kv(prefix.node(&label.id, NodePart::Label), label.encode(), at),
        kv(prefix.node(&label.id, NodePart::Status), status(&label, Phase::Registered, at).encode(), at),
        kv(prefix.node(&label.id, NodePart::Assignment), assignment.encode(), at),
        kv(prefix.claim(&address), claim.encode(), at),
        kv(prefix.claim(&port), claim.encode(), at),
    ]
}

/// The pool of all these nodes.
pub(crate) fn pool(at: i64) -> KeyValue {
    let document = parse("bench", POOL).unwrap().remove(0);
    kv(Prefix::default().pool(&"bench".parse().unwrap()), to_stored(&document), at)
}
