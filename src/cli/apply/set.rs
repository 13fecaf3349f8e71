//! What a named set applied, remembered in the store, so that `--prune` deletes what the set does not name any more and nothing
//! else. The record has keys of its own: an unknown field in a pool or group would freeze it for an older enlist.

use std::collections::BTreeSet;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::Target;
use crate::cli::content::{self, Content};
use crate::cli::delete;
use crate::cli::exit::Fault;
use crate::cli::get::Kind;
use crate::model::documents::Document;
use crate::model::names::{Revision, SetName};
use crate::reconcile::Site;
use crate::store::api::{Compare, Key, Op, Txn};
use crate::store::keys::{Defined, ParsedKey};

/// The stored form.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Stored {
    v: u64,
    names: BTreeSet<String>,
}

/// The record of a set for one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    kind: Defined,
    key: Key,
    seen: Revision,
    before: BTreeSet<String>,
    after: BTreeSet<String>,
    /// What is deleted, in the order of names.
    pub(super) doomed: Vec<String>,
}

/// What is to be remembered of one kind, and what is to be deleted. What another set applied as well stays.
fn record(kind: Defined, set: &SetName, given: BTreeSet<String>, content: &Content, prune: bool) -> Result<Record, Fault> {
    let key = content.prefix.applied(set, kind);
    let mut before = BTreeSet::new();
    let mut others = BTreeSet::new();
    for (parsed, kv) in content.parsed() {
        let ParsedKey::Applied(of, its) = parsed else { continue };
        if its != kind {
            continue;
        }
        let stored: Stored = serde_json::from_slice(&kv.value).unwrap_or_default();
        if stored.v != 1 {
            let message =
                format!("{} cannot be read: it is of a newer enlist, or was written by hand", content.prefix.relative(&kv.key));
            return Err(Fault::Conflict(message));
        }
        if of == *set { before = stored.names } else { others.extend(stored.names) }
    }
    let is_there = |name: &&String| content.get(&content.prefix.key(format_args!("{}/{name}", kind.as_str()))).is_some();
    let dropped = before.iter().filter(|name| prune && !given.contains(*name) && !others.contains(*name));
    let doomed = dropped.filter(is_there).cloned().collect();
    let after = if prune { given } else { before.union(&given).cloned().collect() };
    let seen = content.get(&key).map_or(Revision::NONE, |kv| kv.mod_revision);
    Ok(Record { kind, key, seen, before, after, doomed })
}

impl Record {
    fn site<'t>(&self, target: &'t Target) -> anyhow::Result<&'t Site> {
        let site = if self.kind == Defined::Pools { &target.source } else { &target.manager };
        site.as_ref().context("a store that is needed was not opened")
    }

    /// The kind of what it names.
    pub(super) fn kind(&self) -> Kind {
        if self.kind == Defined::Pools { Kind::Pool } else { Kind::Group }
    }

    /// Remembers what is going to be applied, before that is done: what was interrupted is known to the next one.
    pub(super) async fn begin(&mut self, target: &Target) -> anyhow::Result<()> {
        let all = self.before.union(&self.after).cloned().collect();
        self.put(target, all).await
    }

    /// Remembers what is applied now.
    pub(super) async fn end(&mut self, target: &Target) -> anyhow::Result<()> {
        self.put(target, self.after.clone()).await
    }

    async fn put(&mut self, target: &Target, names: BTreeSet<String>) -> anyhow::Result<()> {
        if names == self.before {
            return Ok(());
        }
        let value = serde_json::to_string(&Stored { v: 1, names: names.clone() })?;
        let txn = Txn {
            compares: vec![Compare::Modified(self.key.clone(), self.seen)],
            then: vec![if names.is_empty() { Op::delete(self.key.clone()) } else { Op::put(self.key.clone(), value) }],
            otherwise: Vec::new(),
        };
        let answer = self.site(target)?.store.txn(txn).await.with_context(|| format!("failed to write {}", self.key))?;
        if !answer.succeeded {
            return Err(Fault::Conflict("this set was applied by somebody else in the same moment; apply again".into()).into());
        }
        self.seen = if names.is_empty() { Revision::NONE } else { answer.header.revision };
        self.before = names;
        Ok(())
    }
}

impl Target {
    /// What is to be remembered of a set, and looked at before anything is written: what is in use is not deleted.
    pub(super) async fn set(&self, set: &SetName, documents: &[Document], prune: bool) -> anyhow::Result<Vec<Record>> {
        let mut records = Vec::new();
        for (kind, word, site) in [(Defined::Pools, "Pool", &self.source), (Defined::Groups, "Group", &self.manager)] {
            let site = site.as_ref().context("a store that is needed was not opened")?;
            let content = content::read(site, &["applied", kind.as_str()]).await?;
            let given = documents.iter().filter(|document| document.kind() == word).map(|document| document.name().to_owned());
            let record = record(kind, set, given.collect(), &content, prune)?;
            for name in &record.doomed {
                delete::look(site, record.kind(), name, false).await?;
            }
            records.push(record);
        }
        Ok(records)
    }

    /// Deletes what a set does not name any more.
    pub(super) async fn prune(&self, record: &Record) -> anyhow::Result<()> {
        for name in &record.doomed {
            if let Some(doomed) = delete::look(record.site(self)?, record.kind(), name, false).await? {
                doomed.delete().await?;
            }
        }
        Ok(())
    }
}
