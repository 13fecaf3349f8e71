//! A process with many agents: the real agent code on the real host, each with its own lease, state directory and temporary
//! endpoint. It does what it is told on standard input, and writes down on standard output what its agents were told: a
//! registration that it wrote down must be in the history.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use enlist::Store;
use enlist::agent::{Agent, AgentSettings, Registered};
use enlist::model::names::NodeId;
use enlist::model::pool::OnIsolation;
use enlist::model::status::Phase;
use enlist::model::variables::Variables;
use enlist::reconcile::{Context, Wall};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::etcd::{ENLIST, settings as settings_of};
use super::uses::now_ms;

/// TTL of an agent's lease: a fault of a few seconds loses some, and not all.
const LEASE_TTL: Duration = Duration::from_secs(5);

/// What a host is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) id: String,
    pub(crate) what: What,
}

/// What one agent is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum What {
    /// Run, if it does not yet, asking for this.
    Join(Ask),
    /// Say this of the node from now on.
    Say(BTreeMap<String, String>),
    Stop,
    Leave,
}

/// What an agent asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ask {
    pub(crate) variables: BTreeMap<String, String>,
    pub(crate) ports: Vec<String>,
}

/// What a host writes down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Said {
    /// The agent knows that its acknowledgement is in the store.
    Registered { id: String, generation: i64, addresses: Vec<String>, ports: BTreeMap<String, u16> },
    /// From now on it uses these addresses of pools that withdraw, and no others.
    Uses { id: String, addresses: Vec<String>, ms: u64 },
    /// The process is dead (somebody else wrote this).
    Over { ms: u64 },
    /// It ended, although nobody told it to.
    Ended { id: String, why: String },
}

fn say(said: &Said) {
    let mut line = serde_json::to_vec(said).unwrap();
    line.push(b'\n');
    std::io::stdout().lock().write_all(&line).unwrap();
}

/// The lines of the standard input.
fn lines() -> mpsc::UnboundedReceiver<String> {
    let (send, lines) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        std::io::stdin().lines().map_while(Result::ok).try_for_each(|line| send.send(line).ok());
    });
    lines
}

/// Runs until its input ends.
pub(crate) async fn run(endpoints: Vec<String>, states: PathBuf) {
    let store = Store::open(settings_of(endpoints, ENLIST)).unwrap();
    let mut agents: BTreeMap<String, mpsc::UnboundedSender<What>> = BTreeMap::new();
    let mut lines = lines();
    while let Some(line) = lines.recv().await {
        let Order { id, what } = serde_json::from_str(&line).unwrap();
        let agent = agents.entry(id.clone()).or_insert_with(|| {
            let (send, orders) = mpsc::unbounded_channel();
            tokio::spawn(agent(store.clone(), states.join(&id), id.parse().unwrap(), orders));
            send
        });
        agent.send(what).unwrap();
    }
}

async fn agent(store: Store, state: PathBuf, id: NodeId, mut orders: mpsc::UnboundedReceiver<What>) {
    while let Some(what) = orders.recv().await {
        let What::Join(ask) = what else { continue };
        let ended = life(&store, settings(&id, &state, &ask), &mut orders).await;
        uses_nothing(id.as_str());
        if let Err(why) = ended {
            say(&Said::Ended { id: id.to_string(), why });
        }
    }
}

fn settings(id: &NodeId, state: &Path, ask: &Ask) -> AgentSettings {
    let mut settings = AgentSettings::new(id.clone());
    settings.variables = variables(&ask.variables);
    settings.ports = ask.ports.iter().map(|name| name.parse().unwrap()).collect();
    settings.state_dir = Some(state.to_owned());
    settings.lease_ttl = LEASE_TTL;
    settings.stop_timeout = Duration::from_secs(1);
    settings.hook_limit = Duration::from_secs(1);
    settings.no_host_facts = true;
    settings
}

fn variables(pairs: &BTreeMap<String, String>) -> Variables {
    let mut variables = Variables::default();
    pairs.iter().for_each(|(name, value)| variables.insert(name, value).unwrap());
    variables
}

enum Next {
    Changed(bool),
    Told(Option<What>),
}

/// One run of an agent, until it is told to end. The error is how it ended by itself.
async fn life(store: &Store, settings: AgentSettings, orders: &mut mpsc::UnboundedReceiver<What>) -> Result<(), String> {
    let id = settings.id.to_string();
    let shutdown = CancellationToken::new();
    let context =
        Context { identity: format!("{id}/{}", std::process::id()), seed: fastrand::u64(..), wall: Wall::system(), shutdown };
    let stop = context.shutdown.clone();
    let joined = Agent::builder(store.clone()).settings(settings).context(context).join();
    tokio::pin!(joined);
    let mut said = None;
    let mut registered = loop {
        tokio::select! {
            biased;
            result = &mut joined => match result {
                Ok(registered) => break registered,
                Err(error) => return Err(error.to_string()),
            },
            what = orders.recv() => match what {
                Some(What::Say(pairs)) => said = Some(pairs),
                Some(What::Join(_)) => {}
                // One that has nothing yet has nothing to leave.
                Some(What::Stop | What::Leave) | None => {
                    stop.cancel();
                    // What it is told next is for its next life.
                    return match joined.await {
                        Ok(registered) => registered.stop().await.map_err(|error| error.to_string()),
                        Err(_) => Ok(()),
                    };
                }
            },
        }
    };
    if let Some(pairs) = said {
        registered.set_variables(variables(&pairs)).await.map_err(|error| error.to_string())?;
    }
    acknowledged(&id, &registered);
    loop {
        let next = tokio::select! {
            change = registered.changed() => Next::Changed(change.is_some()),
            what = orders.recv() => Next::Told(what),
        };
        match next {
            Next::Changed(true) => acknowledged(&id, &registered),
            Next::Changed(false) => return registered.stop().await.map_err(|error| error.to_string()),
            Next::Told(Some(What::Join(_))) => {}
            Next::Told(Some(What::Say(pairs))) => {
                registered.set_variables(variables(&pairs)).await.map_err(|error| error.to_string())?;
            }
            Next::Told(Some(What::Leave)) => {
                uses_nothing(&id);
                // A store that is away cannot be told: the node is silent then, and its hold runs.
                let _ = registered.leave().await;
                return Ok(());
            }
            Next::Told(Some(What::Stop) | None) => {
                uses_nothing(&id);
                return registered.stop().await.map_err(|error| error.to_string());
            }
        }
    }
}

fn uses_nothing(id: &str) {
    say(&Said::Uses { id: id.to_owned(), addresses: Vec::new(), ms: now_ms() });
}

/// Writes down what it uses, and what it knows to be acknowledged.
fn acknowledged(id: &str, registered: &Registered) {
    let state = registered.state();
    let bound = state.assignment.as_ref().and_then(|assignment| assignment.bound());
    let withdrawing = bound.filter(|bound| bound.terms.on_isolation == OnIsolation::Withdraw);
    let addresses = withdrawing.iter().flat_map(|bound| &bound.addresses).map(ToString::to_string).collect();
    say(&Said::Uses { id: id.to_owned(), addresses, ms: now_ms() });
    let Some(assignment) = state.assignment.filter(|_| state.phase == Phase::Registered && state.joined) else { return };
    let Some(bound) = assignment.bound() else { return };
    say(&Said::Registered {
        id: id.to_owned(),
        generation: assignment.generation.0,
        addresses: bound.addresses.iter().map(ToString::to_string).collect(),
        ports: bound.ports.iter().map(|(name, port)| (name.to_string(), *port)).collect(),
    });
}
