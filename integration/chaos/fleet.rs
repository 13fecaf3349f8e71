//! The agents of a run: which host each is on, what it should be doing, and the seeded story of joins, stops, leaves and
//! changes. What kills them is the faults' affair.

use std::collections::{BTreeMap, BTreeSet};

use super::host::{Ask, Order, What};

/// A large host dies with many agents, a small one with the only one it has.
const SMALL_HOSTS: usize = 20;
const AGENTS_OF_A_LARGE_HOST: usize = 30;

/// The pools of a run. `t` is too small for those who want in; `w` withdraws, and cools longer than any process is paused:
/// that far its promise goes.
pub(crate) const POOLS: [&str; 5] = [
    "{kind: Pool, name: a, cidrs: [10.64.0.0/25], ports: 8000-8031, selector: pool=a, hold: 12s, cooldown: 4s}",
    "{kind: Pool, name: s, cidrs: [10.65.0.0/29, 'fd00:65::/125'], ports: 20000-20063, sharing: shared, selector: pool=s, hold: 10s, cooldown: 3s}",
    "{kind: Pool, name: h, sharing: host, domain: host, ports: 30000-30999, selector: pool=h, hold: 8s, cooldown: 0s}",
    "{kind: Pool, name: w, cidrs: [10.66.0.0/28], ports: 9000-9003, selector: pool=w, hold: 30s, cooldown: 25s, on_isolation: withdraw}",
    "{kind: Pool, name: t, cidrs: [10.67.0.0/29], ports: 9000-9003, selector: pool=t, hold: 8s, cooldown: 2s}",
];

/// Other forms of pools, which come while the fleet runs: what does not fit any more moves, or stays. `w` is not among them: its
/// promise holds with the hold and the cooling that it has.
pub(crate) const OTHER_POOLS: [&str; 8] = [
    "{kind: Pool, name: a, cidrs: [10.64.0.0/25], exclude: [10.64.0.0/27], ports: 8000-8031, selector: pool=a, hold: 12s, cooldown: 4s, on_mismatch: move}",
    "{kind: Pool, name: a, cidrs: [10.64.0.0/25], ports: 8016-8047, selector: pool=a, hold: 9s, cooldown: 5s, on_mismatch: move}",
    "{kind: Pool, name: a, cidrs: [10.64.0.0/25, 10.64.1.0/26], ports: 8000-8031, selector: pool=a, priority: 5, hold: 12s, cooldown: 4s}",
    "{kind: Pool, name: s, cidrs: [10.65.0.0/29, 'fd00:65::/125'], ports: 20032-20095, sharing: shared, selector: pool=s, hold: 6s, cooldown: 3s, on_mismatch: move}",
    "{kind: Pool, name: s, cidrs: [10.65.0.0/29, 'fd00:65::/125'], ports: 20000-20063, sharing: shared, selector: 'pool in (s,t)', hold: 10s, cooldown: 3s}",
    "{kind: Pool, name: h, sharing: host, domain: host, ports: 30500-31499, selector: pool=h, hold: 8s, cooldown: 2s, on_mismatch: move}",
    "{kind: Pool, name: t, cidrs: [10.67.0.0/28], ports: 9000-9003, selector: pool=t, hold: 8s, cooldown: 2s}",
    "{kind: Pool, name: t, cidrs: [10.67.0.0/29], ports: 9002-9005, selector: pool=t, hold: 5s, cooldown: 2s, on_mismatch: move}",
];

/// The groups, each with its other forms.
pub(crate) const GROUPS: [&[&str]; 3] = [
    &["{kind: Group, name: all, selector: ''}", "{kind: Group, name: all, selector: 'pool!=h'}"],
    &["{kind: Group, name: by-pool, selector: pool, keyed_by: [pool], port: main}"],
    &["{kind: Group, name: some, selector: 'n in (1,3,5)'}", "{kind: Group, name: some, selector: 'n>4,pool notin (s)'}"],
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Running,
    Stopped,
    Left,
}

struct Member {
    id: String,
    host: usize,
    wanted: Wanted,
    ask: Ask,
}

/// All agents.
pub(crate) struct Fleet {
    rng: fastrand::Rng,
    members: Vec<Member>,
    /// What was done how often.
    pub(crate) done: BTreeMap<&'static str, u64>,
}

/// How many hosts so many agents need.
pub(crate) fn hosts(agents: usize) -> usize {
    let small = SMALL_HOSTS.min(agents / 4);
    small + (agents - small).div_ceil(AGENTS_OF_A_LARGE_HOST)
}

impl Fleet {
    /// All are to run at first.
    pub(crate) fn new(seed: u64, agents: usize) -> Fleet {
        let mut rng = fastrand::Rng::with_seed(seed ^ 0xf1ee7);
        let small = SMALL_HOSTS.min(agents / 4);
        let member = |n: usize| Member {
            id: format!("n{n}"),
            host: if n < small { n } else { small + (n - small) / AGENTS_OF_A_LARGE_HOST },
            wanted: Wanted::Running,
            ask: ask(&mut rng),
        };
        let members = (0..agents).map(member).collect();
        Fleet { rng, members, done: BTreeMap::new() }
    }

    /// Those that should be there once all is quiet.
    pub(crate) fn running(&self) -> impl Iterator<Item = &str> {
        self.members.iter().filter(|member| member.wanted == Wanted::Running).map(|member| member.id.as_str())
    }

    /// Hosts with a single agent that runs and asks this pool.
    pub(crate) fn small_hosts_of(&self, pool: &str) -> Vec<usize> {
        let of_pool = |member: &&Member| {
            let alone = self.members.iter().filter(|other| other.host == member.host).count() == 1;
            alone && member.wanted == Wanted::Running && member.ask.variables.get("pool").is_some_and(|asked| asked == pool)
        };
        self.members.iter().filter(of_pool).map(|member| member.host).collect()
    }

    /// What a host that was just started is to be told.
    pub(crate) fn orders_of(&self, host: usize) -> Vec<Order> {
        let of_it = self.members.iter().filter(|member| member.host == host && member.wanted == Wanted::Running);
        of_it.map(|member| Order { id: member.id.clone(), what: What::Join(member.ask.clone()) }).collect()
    }

    /// The next thing that happens: orders, for a host that is not spared.
    pub(crate) fn next(&mut self, spared: &BTreeSet<usize>) -> (usize, Vec<Order>) {
        let mut index = self.rng.usize(..self.members.len());
        while spared.contains(&self.members[index].host) {
            index = (index + 1) % self.members.len();
        }
        let roll = self.rng.u8(..100);
        let fresh = ask(&mut self.rng);
        let member = &mut self.members[index];
        let join = |member: &Member| What::Join(member.ask.clone());
        let (word, orders) = match (member.wanted, roll) {
            (Wanted::Stopped | Wanted::Left, _) => {
                member.wanted = Wanted::Running;
                ("join", vec![join(member)])
            }
            (Wanted::Running, 0..25) => {
                member.wanted = Wanted::Stopped;
                ("stop", vec![What::Stop])
            }
            (Wanted::Running, 25..45) => {
                member.wanted = Wanted::Left;
                ("leave", vec![What::Leave])
            }
            (Wanted::Running, 45..75) => {
                member.ask.variables = fresh.variables;
                ("change", vec![What::Say(member.ask.variables.clone())])
            }
            (Wanted::Running, 75..) => {
                member.ask = fresh;
                ("restart", vec![What::Stop, join(member)])
            }
        };
        *self.done.entry(word).or_default() += 1;
        let orders = orders.into_iter().map(|what| Order { id: member.id.clone(), what }).collect();
        (member.host, orders)
    }

    /// Another form of a group, now and then.
    pub(crate) fn group(&mut self) -> Option<&'static str> {
        let forms = GROUPS[self.rng.usize(..GROUPS.len())];
        let form = forms[self.rng.usize(..forms.len())];
        self.rng.u8(..).is_multiple_of(40).then_some(form)
    }
}

fn ask(rng: &mut fastrand::Rng) -> Ask {
    let pool = match rng.u8(..100) {
        0..45 => "a",
        45..65 => "s",
        65..80 => "h",
        80..93 => "w",
        _ => "t",
    };
    let variables = BTreeMap::from([("pool".to_owned(), pool.to_owned()), ("n".to_owned(), rng.u8(1..9).to_string())]);
    let ports = ["main", "extra", "more"][..rng.usize(1..=3)].iter().map(|name| (*name).to_owned()).collect();
    Ask { variables, ports }
}
