//! `enlist purge`: removes every trace below the prefix, after showing what it is.
//!
//! It never touches anything beside the prefix (`/enlist` does not mean `/enlist-dev`), and nothing below it that is not
//! enlist's, unless that is said in so many words.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, IsTerminal};

use anyhow::Context as _;

use super::args::{Common, FlagSettings};
use super::exit::{Exit, Fault};
use super::output::{self, Table};
use super::{content, site};
use crate::model::names::Revision;
use crate::reconcile::Site;
use crate::store::api::{Key, KeyRange, LeaseId, Op, OpResult, RangeRequest, StoreError, Txn};
use crate::store::keys::{NodePart, ParsedKey, Prefix};
use crate::telemetry;

/// Remove every trace of enlist below the prefix
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Remove nothing; list what is there
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    /// Also while agents or roles run: they write most of it again
    #[arg(long)]
    force: bool,
    /// Also keys below the prefix that are not enlist's
    #[arg(long)]
    foreign: bool,
}

/// Prefixes of other programs: a slip of the pen here would end a cluster.
const OTHERS: [&str; 8] =
    ["/registry", "/kubernetes.io", "/openshift.io", "/calico", "/cilium", "/coreos.com", "/apisix", "/service"];
/// One request deletes at most so many keys: more would hold up everybody else on that etcd.
const PAGE: i64 = 10_000;

/// etcd takes 128 operations in a transaction unless it is told otherwise.
const OPS_MAX: usize = 100;

/// Does it.
pub async fn run(common: Common, args: Args) -> anyhow::Result<Exit> {
    let loaded = common.settings(FlagSettings::default())?;
    telemetry::start(loaded.settings.log.format, common.level(&loaded, false), None);
    let (source, manager) = (loaded.source()?, loaded.manager()?);
    let mut sites = vec![site::connect(source.clone()).await?];
    if manager != source {
        sites.push(site::connect(manager).await.context("the manager's store")?);
    }
    let mut found = Vec::new();
    for site in &sites {
        refuse_others(&site.prefix)?;
        let traces = traces(site).await?;
        traces.show()?;
        if traces.foreign > 0 && !args.foreign && !args.dry_run {
            return Err(Fault::Usage(format!(
                "{} below {}/ that enlist did not make (e.g. {}): nothing was removed; --foreign removes them too",
                output::counted(traces.foreign, "key"),
                site.prefix,
                traces.example
            ))
            .into());
        }
        found.push(traces);
    }
    let count = found.iter().map(Traces::count).sum();
    if count == 0 {
        output::say("nothing to remove");
        return Ok(Exit::Ok);
    }
    if args.dry_run {
        return Ok(Exit::Ok);
    }
    if let Some(running) = in_use(&found).filter(|_| !args.force) {
        return Err(Fault::Conflict(format!(
            "{running}: nothing was removed; stop them first (--force removes all the same, and what runs writes its keys again)"
        ))
        .into());
    }
    if !args.yes && !confirmed(count)? {
        return Err(Fault::Usage("nothing was removed: --yes removes it".into()).into());
    }
    for (site, traces) in sites.iter().zip(&found) {
        let removed = remove(site).await?;
        let more = match removed.checked_sub(traces.count()) {
            None | Some(0) => String::new(),
            Some(more) => format!(" ({more} of them were written meanwhile: something still runs)"),
        };
        output::line(format_args!("{} below {}/ removed{more}", output::counted(removed, "key"), site.prefix))?;
        revoke(site, &traces.clocks).await;
    }
    output::say("agents' state directories and sockets are on their hosts: remove them there");
    Ok(Exit::Ok)
}

/// What runs, in words; `None` = nothing.
fn in_use(found: &[Traces]) -> Option<String> {
    let (live, leaders) = found.iter().fold((0, 0), |(live, leaders), traces| (live + traces.live, leaders + traces.leaders));
    let agents = (live > 0).then(|| output::counted(live, "agent"));
    let leaders = (leaders > 0).then(|| output::counted(leaders, "role instance"));
    let running: Vec<String> = agents.into_iter().chain(leaders).collect();
    (!running.is_empty()).then(|| format!("still running: {}", running.join(", ")))
}

/// Gives back the leases of holds and coolings whose keys are gone: they would run for up to thirty days. Leases of agents and
/// roles are left to their short ends, because they may carry keys of another prefix.
async fn revoke(site: &Site, clocks: &BTreeSet<LeaseId>) {
    for lease in clocks {
        match site.store.revoke(*lease).await {
            Ok(()) | Err(StoreError::NoLease) => {}
            Err(error) => {
                output::say(format_args!("failed to revoke lease {:x}, which carries no key any more: {error}", lease.0))
            }
        }
    }
}

fn refuse_others(prefix: &Prefix) -> Result<(), Fault> {
    let text = prefix.as_str();
    let is_others = |other: &&str| text.strip_prefix(other).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    match OTHERS.into_iter().find(is_others) {
        Some(other) => Err(Fault::Usage(format!("{other} is another program's prefix: enlist removes nothing there"))),
        None => Ok(()),
    }
}

/// What is below a prefix.
#[derive(Debug, Default)]
struct Traces {
    prefix: String,
    /// Keys by their first folder.
    folders: BTreeMap<String, u64>,
    /// Statuses on a lease: their agents run, or ran a moment ago.
    live: u64,
    leaders: u64,
    /// Leases of holds and coolings.
    clocks: BTreeSet<LeaseId>,
    foreign: u64,
    example: String,
}

impl Traces {
    fn count(&self) -> u64 {
        self.folders.values().sum()
    }

    fn add(&mut self, prefix: &Prefix, key: &Key, lease: LeaseId) {
        let relative = prefix.relative(key);
        let leased = lease != LeaseId::NONE;
        match prefix.parse(key) {
            ParsedKey::Foreign => {
                self.foreign += 1;
                if self.example.is_empty() {
                    self.example = key.to_string();
                }
            }
            // `stopped` and `left` are statuses too, but on no lease.
            ParsedKey::Node(_, NodePart::Status) => self.live += u64::from(leased),
            ParsedKey::Leader(..) => self.leaders += u64::from(leased),
            ParsedKey::Node(_, NodePart::Clock) | ParsedKey::Claim(_) if leased => drop(self.clocks.insert(lease)),
            _ => {}
        }
        let folder = relative.split('/').next().unwrap_or_default().to_owned();
        *self.folders.entry(folder).or_default() += 1;
    }

    fn show(&self) -> anyhow::Result<()> {
        let row = |(folder, keys): (&String, &u64)| vec![format!("{}/{folder}/", self.prefix), keys.to_string()];
        let table = Table { headings: vec!["KEYS BELOW", "COUNT"], rows: self.folders.iter().map(row).collect() };
        if !self.folders.is_empty() {
            output::print(&table.render())?;
        }
        Ok(())
    }
}

async fn traces(site: &Site) -> anyhow::Result<Traces> {
    let mut traces = Traces { prefix: site.prefix.to_string(), ..Traces::default() };
    let mut range = site.prefix.range();
    let mut revision = None;
    loop {
        let request = RangeRequest { limit: PAGE, keys_only: true, revision, ..RangeRequest::all(range.clone()) };
        let page = site.store.range(request).await.with_context(|| format!("failed to list {}/", site.prefix))?;
        page.kvs.iter().for_each(|kv| traces.add(&site.prefix, &kv.key, kv.lease));
        revision = revision.or(Some(page.header.revision)).filter(|revision| *revision != Revision::NONE);
        let Some(last) = page.kvs.last().filter(|_| page.more) else { return Ok(traces) };
        range.start = last.key.successor();
    }
}

fn confirmed(found: u64) -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Ok(false);
    }
    output::say(format_args!("Remove {}? [y/N]", output::counted(found, "key")));
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Deletes page by page, in the order of keys, once through: what is written behind it stays.
pub async fn remove(site: &Site) -> anyhow::Result<u64> {
    let mut removed = 0;
    let mut rest = site.prefix.range();
    loop {
        let request = RangeRequest { limit: PAGE, keys_only: true, ..RangeRequest::all(rest.clone()) };
        let page = site.store.range(request).await.with_context(|| format!("failed to list {}/", site.prefix))?;
        let (Some(first), Some(last)) = (page.kvs.first(), page.kvs.last()) else { return Ok(removed) };
        let range = KeyRange::between(first.key.clone(), last.key.successor());
        let txn = Txn { then: vec![Op::Delete(range)], ..Txn::default() };
        let answer = site.store.txn(txn).await.with_context(|| format!("failed to remove keys below {}/", site.prefix))?;
        removed += answer.results.iter().map(deleted).sum::<u64>();
        rest.start = last.key.successor();
    }
}

fn deleted(result: &OpResult) -> u64 {
    match result {
        OpResult::Deleted(count) => u64::try_from(*count).unwrap_or_default(),
        _ => 0,
    }
}

/// Deletes what was made after a revision: all that a demonstration wrote, and nothing that was there before.
pub async fn remove_newer(site: &Site, than: Revision) -> anyhow::Result<u64> {
    let whole = content::read_all(site).await?;
    let newer: Vec<Op> = whole.kvs.into_iter().filter(|kv| kv.create_revision > than).map(|kv| Op::delete(kv.key)).collect();
    for page in newer.chunks(OPS_MAX) {
        let txn = Txn { then: page.to_vec(), ..Txn::default() };
        site.store.txn(txn).await.with_context(|| format!("failed to remove keys below {}/", site.prefix))?;
    }
    Ok(newer.len() as u64)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn other_programs_prefixes_are_refused() {
        for refused in ["/registry", "/registry/enlist", "/calico"] {
            assert!(refuse_others(&refused.parse().unwrap()).is_err(), "{refused}");
        }
        for fine in ["/enlist", "/registry-of-nodes", "/a/registry"] {
            assert!(refuse_others(&fine.parse().unwrap()).is_ok(), "{fine}");
        }
    }

    #[test]
    fn what_is_below_is_counted_by_folder() {
        let prefix = Prefix::default();
        let mut traces = Traces::default();
        let none = LeaseId::NONE;
        for (key, lease) in [
            ("/enlist/nodes/a/label", none),
            ("/enlist/nodes/a/status", LeaseId(7)),
            ("/enlist/nodes/b/status", none),
            ("/enlist/nodes/c/hold/clock", LeaseId(8)),
            ("/enlist/claims/default/10.0.0.1", LeaseId(9)),
            ("/enlist/claims/default/10.0.0.2", none),
            ("/enlist/leaders/manager/1", LeaseId(5)),
            ("/enlist/notes", none),
        ] {
            traces.add(&prefix, &key.into(), lease);
        }
        assert_eq!((traces.count(), traces.live, traces.leaders, traces.foreign), (8, 1, 1, 1));
        assert_eq!(traces.clocks, [LeaseId(8), LeaseId(9)].into(), "leases of agents and roles may carry keys of another prefix");
        assert_eq!(in_use(&[traces]).as_deref(), Some("still running: 1 agent, 1 role instance"));
        assert_eq!(in_use(&[Traces::default()]), None);
        let mut traces = Traces::default();
        traces.add(&prefix, &"/enlist/notes".into(), none);
        assert_eq!(traces.example, "/enlist/notes");
        assert_eq!(traces.folders["notes"], 1);
    }
}
