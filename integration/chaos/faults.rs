//! Does the faults of the plan, and ends them. A fault that finds nothing to break (its process is down already) is not counted.

use std::time::Duration;

use enlist::model::names::Revision;
use enlist::store::api::{KeyRange, Op, StoreError, Txn};
use enlist::store::keys::Role;
use tokio::time::{Instant, sleep, timeout};

use super::etcd::{Cluster, ENLIST};
use super::fleet::{OTHER_POOLS, POOLS};
use super::plan::{Fault, Kind};
use super::world::{Cure, WRITE_LIMIT, Which, World};

/// Longer than a lease, the hold of the pool that withdraws, and its cooling, all of them lengthened by an election or two: what
/// was given is another's by then.
const LONG: Duration = Duration::from_secs(120);
/// What fills the store.
const FILLER: &str = "/filler";
const FILLER_BYTES: usize = 1 << 20;
/// How long the recorder may take to confirm the filler's end, before the space is made.
const CONFIRM_LIMIT: Duration = Duration::from_secs(60);
/// How long space is made again and again: longer than any fault that keeps a member out of reach.
const SPACE_LIMIT: Duration = Duration::from_secs(240);

fn pick<T: Clone>(from: &[T], pick: u64) -> Option<T> {
    let length = u64::try_from(from.len()).unwrap();
    (length > 0).then(|| from[usize::try_from(pick % length).unwrap()].clone())
}

impl World {
    /// Does it.
    pub(crate) async fn fault(&mut self, fault: &Fault) {
        let done = match fault.kind {
            Kind::MemberKilled => self.kill(Which::Member(index(fault.pick, 3)), fault.lasts),
            Kind::LeadingMemberKilled => self.leading_member().await.is_some_and(|which| self.kill(which, fault.lasts)),
            Kind::MemberPaused => self.pause(Which::Member(index(fault.pick, 3)), fault.lasts),
            Kind::LeadingMemberPaused => self.leading_member().await.is_some_and(|which| self.pause(which, fault.lasts)),
            Kind::DestinationKilled => self.kill(Which::Destination, fault.lasts),
            Kind::DestinationPaused => self.pause(Which::Destination, fault.lasts),
            Kind::RoleKilled => self.kill(Which::Instance(index(fault.pick, self.instances.len())), fault.lasts),
            Kind::LeadingRoleKilled => self.leading(fault.pick).await.is_some_and(|which| self.kill(which, fault.lasts)),
            Kind::RolePaused => self.pause(Which::Instance(index(fault.pick, self.instances.len())), fault.lasts),
            Kind::LeadingRolePaused => self.leading(fault.pick).await.is_some_and(|which| self.pause(which, fault.lasts)),
            Kind::AgentsKilled => self.kill(Which::Host(index(fault.pick, self.hosts.len())), fault.lasts),
            Kind::AgentsPaused => self.pause(Which::Host(index(fault.pick, self.hosts.len())), fault.lasts),
            Kind::PairCut | Kind::PairDelayed | Kind::PairReset => self.pair(fault),
            Kind::EndCutOff => {
                let all = self.all();
                pick(&all, fault.pick).is_some_and(|which| self.cut_off(which, fault.lasts))
            }
            Kind::WithdrawingCutOff => {
                let hosts = self.fleet.small_hosts_of("w");
                for host in &hosts {
                    self.cut_off(Which::Host(*host), LONG);
                    self.spared.insert(*host);
                    self.later(LONG, Cure::Spare(*host));
                }
                !hosts.is_empty()
            }
            Kind::Compacted => self.compact(fault.pick.is_multiple_of(2)).await,
            Kind::Defragmented => self.defragment(fault.pick),
            Kind::OutOfSpace => self.fill(fault).await,
            Kind::EtcdRestarted => {
                let etcds: Vec<Which> = self.source.all().into_iter().map(Which::Member).chain([Which::Destination]).collect();
                self.restart(&etcds, fault.lasts)
            }
            Kind::AllRestarted => {
                let all = self.all();
                self.restart(&all, fault.lasts.min(Duration::from_secs(4)))
            }
            Kind::PoolChanged => self.change_pool(fault.pick).await,
            Kind::UsersChanged => self.change_users(fault.pick).await,
            Kind::MemberReplaced => self.replace(index(fault.pick, 3), fault.lasts).await,
            Kind::MemberUpgraded => self.upgrade(fault.pick, fault.lasts),
        };
        if done {
            *self.counts.entry(fault.kind).or_default() += 1;
        }
    }

    /// Another form of a pool, or one of the first forms again.
    async fn change_pool(&mut self, pick: u64) -> bool {
        let first = POOLS.iter().copied().filter(|form| !form.contains("name: w"));
        let forms: Vec<&str> = OTHER_POOLS.iter().copied().chain(first).collect();
        match self::pick(&forms, pick) {
            Some(form) => self.define(form).await,
            None => false,
        }
    }

    /// An operator writes users: whatever it is, every token of every client is old then. The password of enlist's user is set to
    /// what it was, which makes etcd forget all its tokens as well.
    async fn change_users(&self, pick: u64) -> bool {
        let operator = self.cluster(!pick.is_multiple_of(3)).operator();
        let other = format!("other-{pick}:word");
        let permission = format!("/other/{pick}");
        let done = match pick / 3 % 3 {
            0 => operator.output(&["user", "add", &other], "").await,
            1 => operator.output(&["role", "grant-permission", ENLIST.0, "read", &permission], "").await,
            _ => operator.output(&["user", "passwd", "--interactive=false", ENLIST.0], &format!("{}\n", ENLIST.1)).await,
        };
        done.is_some()
    }

    /// A member goes for good, with its disk, and a new one comes in its place.
    async fn replace(&mut self, member: usize, lasts: Duration) -> bool {
        let which = Which::Member(member);
        if self.removed.is_some() || self.process(which).is_down() {
            return false;
        }
        self.kill_process(which);
        let removed = self.source.remove(member).await;
        if removed {
            self.removed = Some(member);
            self.later(lasts, Cure::Add(member));
        } else {
            self.later(Duration::ZERO, Cure::Start(which));
        }
        removed
    }

    /// A member is started again as a 3.5, if there is one that is not.
    fn upgrade(&mut self, pick: u64, lasts: Duration) -> bool {
        let begin = index(pick, 3);
        for member in (0..3).map(|n| (begin + n) % 3) {
            if self.source.members[member].is_up() && self.source.upgrade(member) {
                return self.kill(Which::Member(member), lasts.min(Duration::from_secs(4)));
            }
        }
        false
    }

    fn later(&mut self, lasts: Duration, cure: Cure) {
        self.cures.push((Instant::now() + lasts, cure));
    }

    fn kill(&mut self, which: Which, lasts: Duration) -> bool {
        let spared = matches!(which, Which::Host(host) if self.spared.contains(&host));
        if spared || self.process(which).is_down() {
            return false;
        }
        self.kill_process(which);
        self.later(lasts, Cure::Start(which));
        true
    }

    fn pause(&mut self, which: Which, lasts: Duration) -> bool {
        let process = self.process(which);
        if !process.is_up() {
            return false;
        }
        process.pause();
        self.later(lasts, Cure::Resume(which));
        true
    }

    fn restart(&mut self, which: &[Which], lasts: Duration) -> bool {
        let killed = which.iter().filter(|which| self.kill(**which, lasts)).count();
        killed > 0
    }

    async fn leading_member(&self) -> Option<Which> {
        self.source.leading().await.map(Which::Member)
    }

    async fn leading(&self, pick: u64) -> Option<Which> {
        self.leader(Role::ALL[index(pick, 3)]).await.map(Which::Instance)
    }

    fn pair(&mut self, fault: &Fault) -> bool {
        let Some((a, b)) = pick(&self.net.pairs(), fault.pick) else { return false };
        match fault.kind {
            Kind::PairCut => {
                self.net.cut(&a, &b, true);
                self.later(fault.lasts, Cure::Join(a, b));
            }
            Kind::PairDelayed => {
                self.net.delay(&a, &b, Duration::from_millis(20 + fault.pick % 400));
                self.later(fault.lasts, Cure::Hurry(a, b));
            }
            _ => self.net.reset(&a, &b),
        }
        true
    }

    fn cut_off(&mut self, which: Which, lasts: Duration) -> bool {
        let end = self.process(which).name().to_owned();
        for partner in self.net.partners(&end) {
            self.net.cut(&end, &partner, true);
            self.later(lasts, Cure::Join(end.clone(), partner));
        }
        true
    }

    fn cluster(&self, source: bool) -> &Cluster {
        if source { &self.source } else { &self.destination }
    }

    /// Everything that the recorder has is forgotten by etcd; clients that are behind it must read again.
    async fn compact(&self, source: bool) -> bool {
        let confirmed = self.recorders[usize::from(!source)].progress.confirmed();
        let cluster = self.cluster(source);
        let operator = cluster.operator();
        timeout(WRITE_LIMIT * 2, operator.run(None, &["compact", &confirmed.to_string()])).await.unwrap_or(false)
    }

    fn defragment(&self, pick: u64) -> bool {
        let cluster = self.cluster(!pick.is_multiple_of(4));
        let member = index(pick / 4, cluster.members.len());
        if !cluster.members[member].is_up() {
            return false;
        }
        let operator = cluster.operator();
        tokio::spawn(async move { operator.run(Some(member), &["defrag"]).await });
        true
    }

    /// Fills a store until it takes nothing more. The destination and the source take turns.
    async fn fill(&mut self, fault: &Fault) -> bool {
        let source = self.counts.get(&Kind::OutOfSpace).copied().unwrap_or_default() % 2 == 0;
        let value = vec![b'x'; FILLER_BYTES];
        for _ in 0..100 {
            let write = Txn { then: vec![Op::put(FILLER, value.clone())], ..Txn::default() };
            match timeout(WRITE_LIMIT, self.cluster(source).store.txn(write)).await {
                Ok(Err(StoreError::NoSpace)) => {
                    self.later(fault.lasts.min(Duration::from_secs(8)), Cure::Space(source));
                    return true;
                }
                Ok(Ok(_)) => {}
                _ => break,
            }
        }
        // It was not filled, but it has less space now.
        self.later(Duration::ZERO, Cure::Space(source));
        false
    }

    /// Does a cure.
    pub(super) async fn cure(&mut self, cure: Cure) {
        match cure {
            Cure::Start(which) => self.start_process(which),
            Cure::Resume(which) => self.process(which).resume(),
            Cure::Join(a, b) => self.net.cut(&a, &b, false),
            Cure::Hurry(a, b) => self.net.delay(&a, &b, Duration::ZERO),
            Cure::Spare(host) => drop(self.spared.remove(&host)),
            Cure::Space(source) => drop(tokio::spawn(self.make_space(source))),
            Cure::Add(member) => {
                if self.source.add(member).await {
                    self.removed = None;
                    self.start_process(Which::Member(member));
                    // The snapshot that it is sent is as large as the file of the leader, whatever of it is free.
                    self.later(Duration::from_secs(3), Cure::Space(true));
                } else {
                    self.later(Duration::from_secs(1), Cure::Add(member));
                }
            }
        }
    }

    /// Makes space as an operator would: delete, compact, defragment, disarm; again until it works, because other faults go on.
    pub(super) fn make_space(&self, source: bool) -> impl Future<Output = ()> + use<> {
        let cluster = self.cluster(source);
        let progress = self.recorders[usize::from(!source)].progress.clone();
        let store = cluster.store.clone();
        let operator = cluster.operator();
        async move {
            let deadline = Instant::now() + SPACE_LIMIT;
            while Instant::now() < deadline {
                let delete = Txn { then: vec![Op::Delete(KeyRange::one(FILLER))], ..Txn::default() };
                let Ok(Ok(deleted)) = timeout(WRITE_LIMIT, store.txn(delete)).await else {
                    sleep(Duration::from_millis(200)).await;
                    continue;
                };
                let upto: Revision = deleted.header.revision;
                let limit = Instant::now() + CONFIRM_LIMIT;
                while progress.confirmed() < upto && Instant::now() < limit {
                    sleep(Duration::from_millis(100)).await;
                }
                operator.run(None, &["compact", &progress.confirmed().to_string()]).await;
                // A member that was not reached has no space yet: it would raise the alarm again at the next write.
                let everywhere = operator.run(None, &["defrag"]).await;
                if operator.run(None, &["alarm", "disarm"]).await && everywhere {
                    return;
                }
                sleep(Duration::from_millis(500)).await;
            }
        }
    }
}

fn index(pick: u64, of: usize) -> usize {
    usize::try_from(pick % u64::try_from(of).unwrap()).unwrap()
}
