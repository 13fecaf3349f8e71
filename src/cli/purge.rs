//! `enlist purge`: removes every trace below the prefix, after showing what it is.
//!
//! It never touches anything beside the prefix (`/enlist` does not mean `/enlist-dev`), and nothing below it that is not
//! enlist's, unless that is said in so many words.

use std::collections::BTreeMap;
use std::io::{BufRead, IsTerminal};

use anyhow::Context as _;

use super::args::{Common, FlagSettings};
use super::exit::{Exit, Fault};
use super::output::{self, Table};
use super::{content, site};
use crate::model::names::Revision;
use crate::reconcile::Site;
use crate::store::api::{Key, KeyRange, Op, RangeRequest, Txn};
use crate::store::keys::{NodePart, ParsedKey, Prefix};
use crate::telemetry;

/// Remove every trace of enlist below the prefix
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Do not ask
    #[arg(long)]
    yes: bool,
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
    let mut found = 0;
    for site in &sites {
        refuse_others(&site.prefix)?;
        let traces = traces(site).await?;
        found += traces.count();
        traces.show()?;
        if traces.foreign > 0 && !args.foreign {
            return Err(Fault::Usage(format!(
                "{} below {}/ that enlist did not make (e.g. {}): nothing was removed; --foreign removes them too",
                output::counted(traces.foreign, "key"),
                site.prefix,
                traces.example
            ))
            .into());
        }
    }
    if found == 0 {
        output::say("nothing to remove");
        return Ok(Exit::Ok);
    }
    if !args.yes && !confirmed(found)? {
        return Err(Fault::Usage("nothing was removed: --yes removes it".into()).into());
    }
    for site in &sites {
        let removed = remove(site).await?;
        output::line(format_args!("{} below {}/ removed", output::counted(removed, "key"), site.prefix))?;
    }
    Ok(Exit::Ok)
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
    live: u64,
    foreign: u64,
    example: String,
}

impl Traces {
    fn count(&self) -> u64 {
        self.folders.values().sum()
    }

    fn add(&mut self, prefix: &Prefix, key: &Key) {
        let relative = prefix.relative(key);
        match prefix.parse(key) {
            ParsedKey::Foreign => {
                self.foreign += 1;
                if self.example.is_empty() {
                    self.example = key.to_string();
                }
            }
            // `stopped` and `left` are statuses too; the number is a warning, not a count.
            ParsedKey::Node(_, NodePart::Status) => self.live += 1,
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
        if self.live > 0 {
            let nodes = if self.live == 1 { "1 node has".into() } else { format!("{} nodes have", self.live) };
            output::say(format_args!("{nodes} a status: agents that run will join again at once"));
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
        page.kvs.iter().for_each(|kv| traces.add(&site.prefix, &kv.key));
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

/// Deletes page by page, in the order of keys.
pub async fn remove(site: &Site) -> anyhow::Result<u64> {
    let mut removed = 0;
    loop {
        let request = RangeRequest { limit: PAGE, keys_only: true, ..RangeRequest::all(site.prefix.range()) };
        let page = site.store.range(request).await.with_context(|| format!("failed to list {}/", site.prefix))?;
        let (Some(first), Some(last)) = (page.kvs.first(), page.kvs.last()) else { return Ok(removed) };
        let range = KeyRange::between(first.key.clone(), last.key.successor());
        let txn = Txn { then: vec![Op::Delete(range)], ..Txn::default() };
        site.store.txn(txn).await.with_context(|| format!("failed to remove keys below {}/", site.prefix))?;
        removed += page.kvs.len() as u64;
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
        for key in ["/enlist/nodes/a/label", "/enlist/nodes/a/status", "/enlist/pools/eu", "/enlist/notes"] {
            traces.add(&prefix, &key.into());
        }
        assert_eq!((traces.count(), traces.live, traces.foreign), (4, 1, 1));
        assert_eq!(traces.example, "/enlist/notes");
        assert_eq!(traces.folders["nodes"], 2);
    }
}
