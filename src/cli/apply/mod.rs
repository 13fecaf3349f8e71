//! `enlist apply`: writes pools and groups as documents say. All documents are validated before any is written; each is
//! written with a compare against what was seen, so that two operators never undo each other unseen.

mod effect;

use std::io::Read as _;

use anyhow::Context as _;

use super::args::{Common, FlagSettings};
use super::content::{self, Content};
use super::exit::{Exit, Fault};
use super::{output, site};
use crate::config::Loaded;
use crate::model::documents::{Document, Place, parse_placed, to_stored};
use crate::model::fault;
use crate::model::names::Revision;
use crate::reconcile::Site;
use crate::store::api::{Compare, Key, Op, Txn};
use crate::store::keys::Prefix;
use crate::telemetry;

/// Write pools and groups as files say (YAML or JSON)
#[derive(Debug, clap::Args)]
pub struct Args {
    /// File of documents; - reads stdin; may be given several times
    #[arg(short, long = "file", value_name = "FILE", required = true, num_args = 1..)]
    files: Vec<String>,
    /// Write nothing; list what would change, and each node whose answer changes
    #[arg(long)]
    dry_run: bool,
}

/// Does it.
pub async fn run(common: Common, args: Args) -> anyhow::Result<Exit> {
    let loaded = common.settings(FlagSettings::default())?;
    telemetry::start(loaded.settings.log.format, common.level(&loaded, false), None);
    let (documents, places) = documents(&args.files)?;
    if documents.is_empty() {
        return Err(Fault::Usage("there is no document in what was given".into()).into());
    }
    let target = Target::open(&loaded, &documents).await?;
    let (steps, nodes) = target.steps(&documents).await?;
    refuse(&steps, &documents, &places)?;
    for step in &steps {
        let verb = if args.dry_run { step.would() } else { step.did() };
        if !args.dry_run {
            target.write(step).await?;
        }
        output::line(format_args!("{} {} {verb}{}", step.kind, step.name, if args.dry_run { step.effect.as_str() } else { "" }))?;
    }
    for node in nodes.iter().filter(|_| args.dry_run) {
        output::line(format_args!("  {node}"))?;
    }
    Ok(Exit::Ok)
}

/// Reads and validates everything; beside each document is its place.
pub fn documents(files: &[String]) -> anyhow::Result<(Vec<Document>, Vec<Place>)> {
    let mut texts = Vec::new();
    for file in files {
        let text = match file.as_str() {
            "-" => {
                let mut text = String::new();
                std::io::stdin().lock().read_to_string(&mut text).map(|_| text)
            }
            path => std::fs::read_to_string(path),
        };
        let name = if file == "-" { "stdin" } else { file };
        let text = text.map_err(|error| Fault::Usage(format!("failed to read {name}: {error}")))?;
        texts.push((name, text));
    }
    let texts: Vec<(&str, &str)> = texts.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let placed = parse_placed(&texts).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        Fault::Usage(format!("nothing was written:\n{}", lines.join("\n")))
    })?;
    Ok(placed.into_iter().unzip())
}

/// What is done about one document.
#[derive(Debug, Clone, PartialEq)]
struct Step {
    kind: &'static str,
    name: String,
    key: Key,
    value: String,
    /// What is there; 0 = nothing.
    seen: Revision,
    change: Change,
    /// What it would do to nodes, for `--dry-run`.
    effect: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Change {
    Create,
    Update,
    None,
    /// It must not be: why.
    Refused(fault::Fault),
}

impl Step {
    fn did(&self) -> &'static str {
        match self.change {
            Change::Create => "created",
            Change::Update => "changed",
            Change::None | Change::Refused(_) => "unchanged",
        }
    }

    fn would(&self) -> &'static str {
        match self.change {
            Change::Create => "would be created",
            Change::Update => "would be changed",
            Change::None | Change::Refused(_) => "unchanged",
        }
    }
}

/// Every refusal at once, with its place if the document has one; nothing is written when there is one.
fn refuse(steps: &[Step], documents: &[Document], places: &[Place]) -> Result<(), Fault> {
    let refusal = |(at, (step, document)): (usize, (&Step, &Document))| {
        let Change::Refused(why) = &step.change else { return None };
        Some(match places.get(at) {
            Some(place) => place.error(document, why.field, why.message.as_str()).to_string(),
            None => format!("{} {}: {why}", step.kind, step.name),
        })
    };
    let refusals: Vec<String> = steps.iter().zip(documents).enumerate().filter_map(refusal).collect();
    if refusals.is_empty() { Ok(()) } else { Err(Fault::Conflict(format!("nothing was written:\n{}", refusals.join("\n")))) }
}

/// Where documents go: pools to the source, groups to the manager's store. Only what is needed is opened.
pub struct Target {
    source: Option<Site>,
    manager: Option<Site>,
}

impl Target {
    /// Connects to what these documents need.
    pub async fn open(loaded: &Loaded, documents: &[Document]) -> anyhow::Result<Target> {
        let mut target = Target { source: None, manager: None };
        if documents.iter().any(|document| matches!(document, Document::Pool(_))) {
            target.source = Some(site::connect(loaded.source()?).await?);
        }
        if documents.iter().any(|document| matches!(document, Document::Group(_))) {
            target.manager = Some(site::connect(loaded.manager()?).await.context("the manager's store")?);
        }
        Ok(target)
    }

    /// A target whose stores are open already.
    pub fn on(source: Site, manager: Site) -> Target {
        Target { source: Some(source), manager: Some(manager) }
    }

    /// Writes documents without talk: for `enlist dev`.
    pub async fn apply(&self, documents: &[Document]) -> anyhow::Result<()> {
        let (steps, _) = self.steps(documents).await?;
        refuse(&steps, documents, &[])?;
        for step in &steps {
            self.write(step).await?;
        }
        Ok(())
    }

    /// What is done about each document, and a line for each node whose answer changes.
    async fn steps(&self, documents: &[Document]) -> anyhow::Result<(Vec<Step>, Vec<String>)> {
        let source = match &self.source {
            Some(site) => content::read(site, &["claims", "nodes", "pools"]).await?,
            None => Content::empty(Prefix::default()),
        };
        let manager = match &self.manager {
            Some(site) => content::read(site, &["groups", "manager/nodes"]).await?,
            None => Content::empty(Prefix::default()),
        };
        let step = |document| step(document, &source, &manager);
        let mut steps: Vec<Step> = documents.iter().map(step).collect();
        effect::refuse_conflicts(&mut steps, documents, &source);
        let nodes = effect::describe(&mut steps, documents, &source, &manager);
        Ok((steps, nodes))
    }

    async fn write(&self, step: &Step) -> anyhow::Result<()> {
        if !matches!(step.change, Change::Create | Change::Update) {
            return Ok(());
        }
        let site = if step.kind == "pool" { &self.source } else { &self.manager };
        let site = site.as_ref().context("a store that is needed was not opened")?;
        let txn = Txn {
            compares: vec![Compare::Modified(step.key.clone(), step.seen)],
            then: vec![Op::put(step.key.clone(), step.value.clone())],
            otherwise: Vec::new(),
        };
        let what = format!("{} {}", step.kind, step.name);
        let answer = site.store.txn(txn).await.with_context(|| format!("failed to write {what}"))?;
        if answer.succeeded {
            return Ok(());
        }
        Err(Fault::Conflict(format!("{what} was changed by somebody else in the same moment; apply again")).into())
    }
}

fn step(document: &Document, source: &Content, manager: &Content) -> Step {
    let (kind, key, content) = match document {
        Document::Pool(pool) => ("pool", source.prefix.pool(&pool.name), source),
        Document::Group(group) => ("group", manager.prefix.group(&group.name), manager),
    };
    let value = to_stored(document);
    let seen = content.get(&key);
    let change = match seen {
        None => Change::Create,
        Some(kv) if kv.value == value.as_bytes() => Change::None,
        Some(_) => Change::Update,
    };
    let change = match (document, change) {
        (Document::Pool(pool), change @ (Change::Create | Change::Update)) => {
            effect::forbidden(pool, source).map_or(change, Change::Refused)
        }
        (_, change) => change,
    };
    Step {
        kind,
        name: document.name().to_owned(),
        key,
        value,
        seen: seen.map_or(Revision::NONE, |kv| kv.mod_revision),
        change,
        effect: String::new(),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use bytes::Bytes;

    use super::*;
    use crate::model::documents::parse;
    use crate::store::api::{KeyValue, LeaseId};

    fn content(pairs: &[(&str, &str)]) -> Content {
        let mut content = Content::empty(Prefix::default());
        for (at, (key, value)) in (1..).zip(pairs) {
            let key = Key::from(format!("/enlist/{key}"));
            let value = Bytes::copy_from_slice(value.as_bytes());
            let revision = Revision(at);
            let kv = KeyValue {
                key: key.clone(),
                value,
                create_revision: revision,
                mod_revision: revision,
                version: 1,
                lease: LeaseId::NONE,
            };
            content.kvs.insert(key, kv);
        }
        content
    }

    const POOL: &str = "{kind: Pool, name: eu, cidrs: [10.20.0.0/30]}";

    fn assignment(sharing: &str) -> String {
        format!(
            r#"{{"v":1,"node":"a","instance":"i","state":"bound","pool":"eu","domain":"default","sharing":"{sharing}","addresses":["10.20.0.1"],"ports":{{}},"generation":3,"asked":"0000000000000000","hold_s":1,"cooldown_s":1,"on_isolation":"keep","leaving":[]}}"#
        )
    }

    #[test]
    fn created_changed_unchanged() {
        let document = parse("-", POOL).unwrap().remove(0);
        let check = |there: Option<&str>, expected: Change| {
            let pairs: Vec<(&str, &str)> = there.map(|value| ("pools/eu", value)).into_iter().collect();
            let step = step(&document, &content(&pairs), &content(&[]));
            assert_eq!(step.change, expected, "{there:?}");
            assert_eq!(step.seen.0, i64::from(there.is_some()));
        };
        check(None, Change::Create);
        check(Some(&to_stored(&document)), Change::None);
        check(Some(r#"{"v":1}"#), Change::Update);
    }

    #[test]
    fn sharing_stays_while_nodes_have_addresses() {
        let document = parse("-", POOL).unwrap().remove(0);
        let before = to_stored(&document).replace("exclusive", "shared");
        let with = |sharing: &str| {
            step(&document, &content(&[("pools/eu", &before), ("nodes/a/assignment", &assignment(sharing))]), &content(&[]))
                .change
        };
        assert!(matches!(with("shared"), Change::Refused(why) if why.field == "sharing" && why.message.contains("1 node")));
        assert_eq!(with("exclusive"), Change::Update);
    }

    /// What becomes of documents on a store with pools, in the order in which they are given here.
    fn changes(stored: &[(&str, &str)], given: &str) -> Vec<Change> {
        let stored: Vec<(String, String)> = stored
            .iter()
            .map(|(key, text)| {
                let value =
                    if key.starts_with("pools/") { to_stored(&parse("-", text).unwrap().remove(0)) } else { (*text).into() };
                ((*key).to_owned(), value)
            })
            .collect();
        let pairs: Vec<(&str, &str)> = stored.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let (source, manager) = (content(&pairs), content(&[]));
        let documents = parse("-", given).unwrap();
        let mut steps: Vec<Step> = documents.iter().map(|document| step(document, &source, &manager)).collect();
        effect::refuse_conflicts(&mut steps, &documents, &source);
        steps.into_iter().map(|step| step.change).collect()
    }

    const PROD: (&str, &str) = ("pools/eu", "{kind: Pool, name: eu, cidrs: [10.20.0.0/24]}");

    #[test]
    fn a_pool_that_conflicts_with_a_stored_one_is_refused() {
        let in_use = ("nodes/a/assignment", &*assignment("exclusive"));
        let new = "{kind: Pool, name: aaa, sharing: shared, cidrs: [10.20.0.240/30]}";
        for stored in [&[PROD][..], &[PROD, in_use]] {
            let changes = changes(stored, new);
            assert!(
                matches!(&changes[..], [Change::Refused(why)] if why.message.contains("it overlaps pool eu") && why.message.contains("10.20.0.241")),
                "{changes:?}"
            );
        }
        // Two of one kind, another domain, and a common part that is excluded may.
        for fine in [
            "{kind: Pool, name: aaa, cidrs: [10.20.0.240/30]}",
            "{kind: Pool, name: aaa, domain: other, sharing: shared, cidrs: [10.20.0.240/30]}",
            "{kind: Pool, name: aaa, sharing: shared, cidrs: [10.20.0.0/16], exclude: [10.20.0.0/24]}",
            "{kind: Pool, name: eu, cidrs: [10.20.0.0/25]}\n---\n{kind: Pool, name: aaa, sharing: shared, cidrs: [10.20.0.240/30]}",
        ] {
            assert!(
                changes(&[PROD, in_use], fine).iter().all(|change| matches!(change, Change::Create | Change::Update)),
                "{fine}"
            );
        }
        let two = format!("{new}\n---\n{{kind: Pool, name: bbb, cidrs: [10.20.0.0/24]}}");
        assert!(matches!(&changes(&[], &two)[..], [Change::Create, Change::Refused(_)]), "two that are new conflict");
    }

    #[test]
    fn an_edit_that_disables_another_pool_is_refused() {
        let younger = ("pools/zz", "{kind: Pool, name: zz, sharing: shared, cidrs: [10.21.0.0/30]}");
        let wider = "{kind: Pool, name: eu, cidrs: [10.20.0.0/15]}";
        let is_refused = |stored: &[(&str, &str)]| {
            let changes = changes(stored, wider);
            matches!(&changes[..], [Change::Refused(why)] if why.message.contains("pool zz would assign nothing new: both would give 10.21.0."))
        };
        assert!(is_refused(&[PROD, younger]));
        // A conflict that is stored already is not the fault of other documents.
        let stored = [PROD, ("pools/zz", "{kind: Pool, name: zz, sharing: shared, cidrs: [10.20.0.0/30]}")];
        assert_eq!(changes(&stored, "{kind: Pool, name: eu, cidrs: [10.20.0.0/24], hold: 1h}"), [Change::Update]);
        assert_eq!(changes(&stored, "{kind: Pool, name: us, cidrs: [10.30.0.0/24]}"), [Change::Create]);
    }
}
