//! The agent's requests to the store, one at a time. Each is a future of its own, so that the loop goes on meanwhile.
//!
//! None of them decides anything: they bring what was read or written back to the loop.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tracing::warn;

use crate::agent::decide::applied::Applied;
use crate::agent::decide::identity::{self, Holder, Identity, Me, Row};
use crate::agent::decide::join::{self, Seen};
use crate::agent::decide::observe::{self, Do, Past, Proof};
use crate::agent::decide::subtree::Subtree;
use crate::agent::decide::word::Word;
use crate::agent::host::Host;
use crate::model::assignment::Assignment;
use crate::model::label::Label;
use crate::model::lineage::{Chain, Mark, Verdict};
use crate::model::names::Revision;
use crate::model::status::{Phase, Status};
use crate::reconcile::Site;
use crate::store::api::{Header, KeyRange, Op, OpResult, RangeRequest, RangeResponse, Store, StoreError, Txn, TxnResponse};
use crate::store::feed::Ahead;
use crate::store::keys::NodePart;
use crate::store::lease::{Lease, Leases, Overslept};
use crate::store::wire::{Encoded, Stored};

/// A node has five keys of ours. Where so many stand, others put theirs there: they are read in pages.
const FOUND_MAX: i64 = 100;

/// What a request brought back.
pub(super) enum Done {
    /// A try to join.
    Attempt(Box<Attempt>),
    /// A write of the status.
    Status(Result<Written, StoreError>, Status),
    /// A write of the label; `false` = a compare was lost.
    Label(Result<(bool, Revision), StoreError>),
    /// A linearizable read of the sub-tree, and when it was sent (on the clock that runs during suspend).
    Read(Duration, Box<Result<Subtree, StoreError>>),
    /// A look at the store's past, for what was applied at this revision.
    Proof(Revision, Result<Proof, StoreError>),
}

/// What became of a write of the status.
pub(super) enum Written {
    /// Written at this revision.
    Yes(Revision),
    /// The compare was lost: what stands there, with its mod_revision.
    Lost(Option<(Status, Revision)>),
}

/// A try to join: what it is made with.
pub(super) struct Trial {
    pub site: Site,
    pub host: Arc<dyn Host>,
    pub me: Arc<Me>,
    pub label: Arc<Encoded<Label>>,
    pub status: Status,
    pub lease: Option<Arc<Lease>>,
    pub lease_ttl: Duration,
    /// Where it shares leases with others, if it does.
    pub leases: Option<Arc<Leases>>,
    pub rng: Rng,
    pub applied: Option<Arc<Applied>>,
    /// This process never joined before.
    pub first: bool,
    /// It follows its sub-tree already.
    pub follows: bool,
    pub replace: bool,
    /// The revision of this run's last write.
    pub since: Revision,
    /// The last status that is known to have been written.
    pub word: Option<Word>,
    /// The sub-tree as it is seen, if this process joined before.
    pub seen: Option<Subtree>,
}

/// A try to join: what came of it.
pub(super) struct Attempt {
    /// A lease that may be used again.
    pub lease: Option<Arc<Lease>>,
    /// Whether the store answered anything at all.
    pub contact: bool,
    pub outcome: Outcome,
}

/// What came of a try to join.
pub(super) enum Outcome {
    /// It joined, with this label, at this revision.
    Joined(Box<Entered>),
    /// Something changed in between: at once again.
    Again,
    /// The store did not answer, or refused.
    Failed(StoreError),
    /// The holder answered at its temporary endpoint.
    Held(String),
    /// Somebody seems to hold it but does not answer.
    Wait(Holder, String),
    /// What is in use is no longer this node's: stop using it, then try again.
    WithdrawFirst(String),
    /// What the store gives is out of a past that is over; nothing is in use. The generation and mark after which that is so.
    Over(Revision, Option<Mark>),
    /// Another run of this instance took over.
    Superseded,
}

/// How it joined.
pub(super) struct Entered {
    pub label: Arc<Encoded<Label>>,
    pub status: Status,
    pub row: Row,
    /// The answer's.
    pub header: Header,
    /// All of the sub-tree just after, where that is known, and a watch that began before.
    pub known: Option<(RangeResponse, Option<Ahead>)>,
}

/// Tries to join once.
pub(super) async fn attempt(trial: Box<Trial>) -> Attempt {
    let kept = trial.lease.clone().filter(|lease| lease.is_good());
    let (lease, ahead) = futures::join!(
        async {
            match kept {
                Some(lease) => Ok(lease),
                None => grant(&trial.site.store, trial.leases.as_deref(), trial.lease_ttl, trial.rng.clone()).await.map(Arc::new),
            }
        },
        async {
            let range = trial.site.prefix.node_range(&trial.me.id);
            // If that fails, the feed opens its own.
            if is_new(&trial) && !trial.follows { Ahead::open(&trial.site.store, range, true).await.ok() } else { None }
        }
    );
    let lease = match lease {
        Ok(lease) => lease,
        Err(error) => return Attempt { lease: None, contact: false, outcome: Outcome::Failed(error) },
    };
    match try_with(&trial, &lease, ahead).await {
        Ok(outcome) => Attempt { lease: Some(lease), contact: true, outcome },
        // A lease that is unknown all of a sudden was revoked, or the store was emptied.
        Err(StoreError::NoLease) => {
            lease.note_gone();
            Attempt { lease: None, contact: true, outcome: Outcome::Again }
        }
        Err(error) => Attempt { lease: Some(lease), contact: false, outcome: Outcome::Failed(error) },
    }
}

/// A lease of its own, or a place on one that is shared.
pub(super) async fn grant(store: &Store, leases: Option<&Leases>, ttl: Duration, rng: Rng) -> Result<Lease, StoreError> {
    match leases {
        Some(leases) => leases.place(store, ttl, Overslept::GivenUp, rng).await,
        None => Lease::grant(store, ttl, Overslept::GivenUp, rng).await,
    }
}

/// Whether nothing is known of this node, neither here nor, probably, in the store.
fn is_new(trial: &Trial) -> bool {
    trial.first && trial.applied.is_none()
}

async fn try_with(trial: &Trial, lease: &Lease, ahead: Option<Ahead>) -> Result<Outcome, StoreError> {
    let seen = if is_new(trial) {
        match enter_unseen(trial, lease, ahead).await? {
            Unseen::Entered(entered) => return Ok(Outcome::Joined(entered)),
            Unseen::Found(seen) => *seen,
        }
    } else {
        // Thousands that lost their leases in one pause come back with one request less each, and what they read is most of it.
        if let Some(seen) = &trial.seen
            && let Outcome::Joined(entered) = enter(trial, Seen::ByWatch(seen), lease).await?
        {
            return Ok(Outcome::Joined(entered));
        }
        read(&trial.site, &trial.me).await?
    };
    enter(trial, Seen::ByRead(&seen), lease).await
}

/// Joins, if what stands there lets it.
async fn enter(trial: &Trial, how: Seen<'_>, lease: &Lease) -> Result<Outcome, StoreError> {
    let seen = how.subtree();
    if !trial.first && identity::superseded(seen, &trial.me, trial.since) {
        return Ok(Outcome::Superseded);
    }
    let mut status = trial.status.clone();
    let mut label = join::label_for(&trial.label, seen, trial.applied.as_deref());
    if let Some(applied) = &trial.applied {
        match find_out(trial, seen, &label, applied).await? {
            Do::Withdraw(why) => return Ok(Outcome::WithdrawFirst(why)),
            // For how long nobody used it is not known: it may be another's, who need not have told the store yet.
            Do::Hold if trial.first && applied.withdraws() => return Ok(over(applied)),
            Do::Same | Do::Keep if trial.first && applied.withdraws() && observe::is_older(seen, applied) => {
                return Ok(over(applied));
            }
            Do::Hold => {
                trial.leases.iter().for_each(|leases| leases.store_stepped_back());
                label = Arc::new(Encoded::new(Label { holding: applied.holding(), ..Label::clone(&label) }));
                // The generation that is in use means nothing to this store, or something else.
                status.phase = Phase::Joining;
                status.generation = Revision::NONE;
            }
            _ => {}
        }
    }
    if let Some(word) = &trial.word
        && label.holding.is_none()
        && (trial.first || trial.applied.is_none())
        && word.must_be_asked_for(seen, &trial.me)
        && !is_past(trial, seen, word).await?
    {
        return Ok(Outcome::Over(word.revision, None));
    }
    let row = match identity::decide(seen, &trial.me, trial.replace) {
        Identity::Take(row) => row,
        Identity::Ask(_) if matches!(how, Seen::ByWatch(_)) => return Ok(Outcome::Again),
        Identity::Ask(holder) => return Ok(ask(trial, holder).await),
    };
    let txn = join::txn(&trial.site.prefix, how, &label, &status, lease.id());
    let response = lease.enter(&trial.site.store, txn).await?;
    if !response.succeeded {
        return Ok(Outcome::Again);
    }
    Ok(Outcome::Joined(Box::new(Entered { label, status, row, header: response.header, known: None })))
}

/// What was applied is given up, by a node that uses nothing.
fn over(applied: &Applied) -> Outcome {
    Outcome::Over(applied.assignment.generation, applied.assignment.mark)
}

/// What became of a try to join without a look.
enum Unseen {
    Entered(Box<Entered>),
    /// Something stands there.
    Found(Box<Subtree>),
}

/// Most agents that start for the first time find nothing: so it is taken for granted, and compared. One request instead of
/// three, because what stands there just after is known as well. If something does stand there, the same request reads it.
async fn enter_unseen(trial: &Trial, lease: &Lease, ahead: Option<Ahead>) -> Result<Unseen, StoreError> {
    let (prefix, id) = (&trial.site.prefix, &trial.me.id);
    let nothing = Subtree::default();
    let Identity::Take(row) = identity::decide(&nothing, &trial.me, trial.replace) else {
        return Ok(Unseen::Found(Box::new(read(&trial.site, &trial.me).await?)));
    };
    let (label, status) = (join::label_for(&trial.label, &nothing, None), trial.status.clone());
    let mut txn = join::txn(prefix, Seen::ByRead(&nothing), &label, &status, lease.id());
    txn.otherwise.push(Op::Get(RangeRequest { limit: FOUND_MAX, ..RangeRequest::all(prefix.node_range(id)) }));
    let response = lease.enter(&trial.site.store, txn).await?;
    let header = response.header;
    if response.succeeded {
        let listing = join::listing(prefix, &label, &status, lease.id(), header);
        let known = Some((listing, ahead));
        return Ok(Unseen::Entered(Box::new(Entered { label, status, row, header, known })));
    }
    match response.results.into_iter().next() {
        Some(OpResult::Range(found)) if !found.more => {
            let seen = Subtree::read(prefix, id, header.cluster_id, header.revision, &found.kvs);
            Ok(Unseen::Found(Box::new(seen)))
        }
        _ => Ok(Unseen::Found(Box::new(read(&trial.site, &trial.me).await?))),
    }
}

/// What the sub-tree that was read says of what is in use, with the proof of a step back if it takes one.
async fn find_out(trial: &Trial, seen: &Subtree, label: &Label, applied: &Applied) -> Result<Do, StoreError> {
    let answer = |proof| observe::answer(seen, &trial.me.id, &trial.me.instance, label, Some(applied), proof);
    match answer(Proof::Unknown) {
        Do::Prove => Ok(answer(prove(&trial.site, &trial.me, applied).await?)),
        known => Ok(known),
    }
}

/// Whether the store has this word in its past, or cannot tell any more.
async fn is_past(trial: &Trial, seen: &Subtree, word: &Word) -> Result<bool, StoreError> {
    let range = KeyRange::one(trial.site.prefix.node(&trial.me.id, NodePart::Status));
    let request = RangeRequest { revision: Some(word.revision), ..RangeRequest::all(range) };
    match trial.site.store.range(request).await {
        Ok(response) => {
            let then = response.kvs.first().and_then(|kv| Some((kv.mod_revision, Status::decode(&kv.value).ok()?)));
            Ok(word.is_what_stood(then.as_ref().map(|(at, status)| (*at, status))))
        }
        Err(StoreError::Future) => Ok(false),
        Err(StoreError::Compacted(_)) => Ok(!word.is_missing(seen, &trial.me)),
        Err(error) => Err(error),
    }
}

/// Asks the temporary endpoint in the label. Only an answer with the label's id and instance is the holder's: the endpoint
/// may be this agent's own, or a stranger's on a recycled address.
async fn ask(trial: &Trial, holder: Holder) -> Outcome {
    let me = &trial.me;
    if let Some((at, instance)) = &holder.endpoint
        && let Some(face) = trial.host.ask(*at).await
        && face.id == me.id.as_str()
        && face.instance == instance.as_str()
        && face.run != me.run.as_str()
    {
        let own = trial.label.temporary.ip();
        let message = format!("id {} is held by {at} (host {}), this is {own} (host {})", me.id, face.host, trial.host.name());
        let copied = if holder.same_instance {
            "; both have one instance: if this is a copy of that host or of its state directory, remove the state directory here"
        } else {
            ""
        };
        return Outcome::Held(format!("{message}{copied}"));
    }
    let who = holder.endpoint.as_ref().map_or("somebody without a readable label".to_owned(), |(at, _)| at.to_string());
    let why = if holder.live {
        format!("id {} has a live status of {who}, which does not answer", me.id)
    } else {
        format!("id {} is kept for {who}, which is silent and may only be cut off, {}", me.id, holder.kept_until())
    };
    Outcome::Wait(holder, why)
}

/// Reads the whole sub-tree, linearizably.
pub(super) async fn read(site: &Site, me: &Me) -> Result<Subtree, StoreError> {
    let response = site.store.read_all(site.prefix.node_range(&me.id), None).await?;
    Ok(Subtree::read(&site.prefix, &me.id, response.header.cluster_id, response.header.revision, &response.kvs))
}

/// Whether the store stepped back behind what was applied: its own assignment, read as of its revision, is another.
pub(super) async fn prove(site: &Site, me: &Me, applied: &Applied) -> Result<Proof, StoreError> {
    let range = KeyRange::one(site.prefix.node(&me.id, NodePart::Assignment));
    let request = RangeRequest { revision: Some(applied.mod_revision), ..RangeRequest::all(range) };
    match site.store.range(request).await {
        Ok(response) => {
            let then = response.kvs.first().map(|kv| Assignment::decode(&kv.value));
            let then = then.as_ref().and_then(|decoded| decoded.as_ref().ok());
            Ok(observe::proof(applied, response.header.cluster_id, response.header.revision, Past::AsOf(then)))
        }
        Err(StoreError::Future) => Ok(Proof::SteppedBack),
        Err(StoreError::Compacted(_)) => {
            let (header, verdict) = look_up(site, me, applied).await?;
            Ok(observe::proof(applied, header.cluster_id, header.revision, Past::Compacted(verdict)))
        }
        Err(error) => Err(error),
    }
}

/// What the store's lineage says of the mark of what was applied.
async fn look_up(site: &Site, me: &Me, applied: &Applied) -> Result<(Header, Verdict), StoreError> {
    let (Some(mark), key) = (applied.assignment.mark, site.prefix.lineage()) else {
        let (header, _) = site.store.get(site.prefix.node(&me.id, NodePart::Assignment)).await?;
        return Ok((header, Verdict::Unknown));
    };
    match site.store.get(key.clone()).await {
        Ok((header, None)) => Ok((header, Chain::default().knows(mark))),
        Ok((header, Some(kv))) => match Chain::decode(&kv.value) {
            Ok(chain) => Ok((header, chain.knows(mark))),
            Err(error) => {
                warn!(%key, %error, "lineage cannot be read; a restore with raised revisions may not be recognised");
                Ok((header, Verdict::Unknown))
            }
        },
        Err(error @ StoreError::Refused(_)) => {
            warn!(%key, %error, "permission to read lineage is missing; a restore with raised revisions is not recognised");
            let (header, _) = site.store.get(site.prefix.node(&me.id, NodePart::Assignment)).await?;
            Ok((header, Verdict::Unknown))
        }
        Err(error) => Err(error),
    }
}

/// Writes the status.
pub(super) async fn write_status(site: &Site, txn: Txn) -> Result<Written, StoreError> {
    Ok(written(site.store.txn(txn).await?))
}

/// Writes the status as the first that is put on this lease.
pub(super) async fn write_first_status(site: &Site, lease: &Lease, txn: Txn) -> Result<Written, StoreError> {
    Ok(written(lease.enter(&site.store, txn).await?))
}

fn written(response: TxnResponse) -> Written {
    if response.succeeded {
        return Written::Yes(response.header.revision);
    }
    let found = response.results.into_iter().find_map(|result| match result {
        OpResult::Range(range) => range.kvs.into_iter().next(),
        _ => None,
    });
    Written::Lost(found.and_then(|kv| Some((Status::decode(&kv.value).ok()?, kv.mod_revision))))
}

/// Writes the label.
pub(super) async fn write_label(site: &Site, txn: Txn) -> Result<(bool, Revision), StoreError> {
    let response = site.store.txn(txn).await?;
    Ok((response.succeeded, response.header.revision))
}
