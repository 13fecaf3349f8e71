//! `enlist apply`: writes pools and groups as documents say. All documents are validated before any is written; each is
//! written with a compare against what was seen, so that two operators never undo each other unseen.

pub mod diff;
mod effect;
mod set;
#[cfg(test)]
mod tests;

use std::io::Read as _;
use std::path::Path;

use anyhow::Context as _;

use self::effect::Effects;
use super::args::{Common, FlagSettings};
use super::content::{self, Content};
use super::exit::{Exit, Fault};
use super::{output, site};
use crate::config::Loaded;
use crate::model::documents::{Document, Place, from_stored, parse_placed, to_stored};
use crate::model::fault;
use crate::model::names::{Revision, SetName};
use crate::reconcile::Site;
use crate::store::api::{Compare, Key, Op, Txn};
use crate::store::keys::Prefix;
use crate::telemetry;

/// Write pools and groups as files say (YAML or JSON)
#[derive(Debug, clap::Args)]
pub struct Args {
    /// File or directory of documents; - reads stdin; may be given several times
    #[arg(short, long = "file", value_name = "FILE", required = true, num_args = 1..)]
    files: Vec<String>,
    /// Write nothing; list what would change, and each node whose answer changes
    #[arg(long)]
    dry_run: bool,
    /// Remember under this name what is applied
    #[arg(long, value_name = "NAME")]
    set: Option<SetName>,
    /// Delete what the same set applied before and does not name any more
    #[arg(long, requires = "set")]
    prune: bool,
}

/// Does it.
pub async fn run(common: Common, args: Args) -> anyhow::Result<Exit> {
    let loaded = common.settings(FlagSettings::default())?;
    telemetry::start(loaded.settings.log.format, common.level(&loaded, false), None);
    let (documents, places) = documents(&args.files)?;
    if documents.is_empty() {
        return Err(Fault::Usage("there is no document in what was given".into()).into());
    }
    let target = match args.set {
        None => Target::open(&loaded, &documents).await?,
        Some(_) => Target::both(&loaded).await?,
    };
    let (steps, effects) = target.steps(&documents).await?;
    refuse(&steps, &documents, &places)?;
    let mut records = match &args.set {
        Some(set) => target.set(set, &documents, args.prune).await?,
        None => Vec::new(),
    };
    if !args.dry_run {
        for record in &mut records {
            record.begin(&target).await?;
        }
    }
    for step in &steps {
        let verb = if args.dry_run { step.would() } else { step.did() };
        if !args.dry_run {
            target.write(step).await?;
        }
        output::line(format_args!("{} {} {verb}{}", step.kind, step.name, if args.dry_run { step.effect.as_str() } else { "" }))?;
    }
    for record in &mut records {
        if args.dry_run {
            record
                .doomed
                .iter()
                .try_for_each(|name| output::line(format_args!("{} {name} would be deleted", record.kind().word())))?;
        } else {
            target.prune(record).await?;
            record.end(&target).await?;
        }
    }
    for node in effects.nodes.iter().filter(|_| args.dry_run) {
        output::line(format_args!("  {node}"))?;
    }
    effects.notes.iter().for_each(output::say);
    Ok(Exit::Ok)
}

/// Reads and validates everything; beside each document is its place.
pub fn documents(files: &[String]) -> anyhow::Result<(Vec<Document>, Vec<Place>)> {
    let mut texts = Vec::new();
    let files: Vec<String> = files.iter().map(|file| files_of(file)).collect::<Result<Vec<_>, _>>()?.concat();
    for file in &files {
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

/// The files that an argument means: itself, or those of a directory whose names end as documents' do, in the order of names.
/// Directories within it are left alone.
fn files_of(argument: &str) -> Result<Vec<String>, Fault> {
    if argument == "-" || !Path::new(argument).is_dir() {
        return Ok(vec![argument.to_owned()]);
    }
    let fault = |error| Fault::Usage(format!("failed to read {argument}: {error}"));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(argument).map_err(fault)? {
        let path = entry.map_err(fault)?.path();
        let is_document = path.extension().is_some_and(|end| ["yaml", "yml", "json"].iter().any(|known| end == *known));
        if is_document && path.is_file() {
            files.push(path.to_string_lossy().into_owned());
        }
    }
    files.sort();
    if files.is_empty() {
        Err(Fault::Usage(format!("{argument} has no file that ends in .yaml, .yml or .json")))
    } else {
        Ok(files)
    }
}

/// What is done about one document.
#[derive(Debug, Clone, PartialEq)]
struct Step {
    kind: &'static str,
    name: String,
    key: Key,
    value: String,
    /// What is stored now, as far as it is text.
    stored: Option<String>,
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
    refuse_slips(steps, documents, places)?;
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

/// What a document must not say is refused where it would be written: a pool that is stored so already stays as it is.
fn refuse_slips(steps: &[Step], documents: &[Document], places: &[Place]) -> Result<(), Fault> {
    let mut slips = Vec::new();
    for (at, (step, document)) in steps.iter().zip(documents).enumerate() {
        let Document::Pool(pool) = document else { continue };
        if step.change == Change::None {
            continue;
        }
        slips.extend(pool.slips().into_iter().map(|slip| match places.get(at) {
            Some(place) => place.error(document, slip.field, slip.message).to_string(),
            None => format!("{} {}: {slip}", step.kind, step.name),
        }));
    }
    if slips.is_empty() { Ok(()) } else { Err(Fault::Usage(format!("nothing was written:\n{}", slips.join("\n")))) }
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

    /// Connects to both stores.
    async fn both(loaded: &Loaded) -> anyhow::Result<Target> {
        let source = site::connect(loaded.source()?).await?;
        Ok(Target { source: Some(source), manager: Some(site::connect(loaded.manager()?).await.context("the manager's store")?) })
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

    /// What is done about each document, and what comes of all of them.
    async fn steps(&self, documents: &[Document]) -> anyhow::Result<(Vec<Step>, Effects)> {
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
        let effects = effect::describe(&mut steps, documents, &source, &manager);
        Ok((steps, effects))
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
        // Written by hand or by another enlist it may have another form, and mean the same.
        Some(kv) if kv.value == value.as_bytes() || from_stored(&kv.value).as_ref() == Ok(document) => Change::None,
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
        stored: seen.map(|kv| String::from_utf8_lossy(&kv.value).into_owned()),
        seen: seen.map_or(Revision::NONE, |kv| kv.mod_revision),
        change,
        effect: String::new(),
    }
}
