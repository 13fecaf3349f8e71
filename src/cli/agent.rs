//! `enlist agent [-- CMD…]`: registers this node, and keeps it registered until it is told to stop or its command ends.

use std::ffi::OsString;
use std::sync::Arc;

use anyhow::Context as _;

use super::args::{Common, FlagSettings};
use super::exit::{Exit, Fault};
use super::{ask, output, site};
use crate::agent;
use crate::agent::os::{OsHost, Outside, Reload, files};
use crate::agent::settings::{AgentSettings, WriteFile};
use crate::config::Loaded;
use crate::shutdown::Shutdown;
use crate::store::api::Store;
use crate::telemetry;

/// Register this node; with a command: start it with what was given, once it is given
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The command and the hook get ENLIST_ID, ENLIST_IP (also ENLIST_IP4, ENLIST_IP6), ENLIST_PORT (the first),\n\
ENLIST_PORT_<NAME>, ENLIST_POOL and ENLIST_GENERATION; the hook also ENLIST_EVENT: assigned, changed or withdrawn."
)]
pub struct Args {
    /// The node's id [default: the host's name]
    #[arg(long)]
    id: Option<String>,
    /// A variable; may be given several times
    #[arg(long = "var", value_name = "K=V", value_parser = pair)]
    variables: Vec<(String, String)>,
    /// Change variables of the agent that runs here (K- removes one) and end; may be given several times
    #[arg(long = "set", value_name = "K=V|K-", value_parser = ask::change, conflicts_with_all = FLAGS_OF_A_START)]
    set: Vec<(String, Option<String>)>,
    /// A file of K=V lines, or a flat map in .json or .yaml
    #[arg(long, value_name = "FILE")]
    vars_file: Option<String>,
    /// A description for people
    #[arg(long, value_name = "TEXT")]
    describe: Option<String>,
    /// Ask for a port of this name (a certain one, or nothing, with =PORT); may be given several times
    #[arg(long = "port", value_name = "NAME[=PORT]")]
    ports: Vec<String>,
    /// Ask for an address without any port
    #[arg(long, conflicts_with = "ports")]
    no_ports: bool,
    /// This address, or nothing; one of each family
    #[arg(long = "address", value_name = "IP")]
    addresses: Vec<String>,
    /// Where identity and last assignment are kept
    #[arg(
        long,
        value_name = "DIR",
        help = "Where identity and last assignment are kept [default: /var/lib/enlist/<id>, or below $XDG_STATE_HOME]"
    )]
    state_dir: Option<String>,
    /// Which installation this is, for containers that are made anew
    #[arg(long)]
    instance: Option<String>,
    /// Silent for so long = lost [default: 15s]
    #[arg(long, value_name = "TIME")]
    lease_ttl: Option<String>,
    /// A stop is a leave: nothing is kept
    #[arg(long)]
    ephemeral: bool,
    /// Start with the last assignment when no etcd answers within 5 s (pools with `on_isolation: keep`)
    #[arg(long)]
    offline_start: bool,
    /// Take the id at once, whoever holds it
    #[arg(long)]
    replace: bool,
    /// How long to wait for an id that somebody holds [default: two lease TTLs]
    #[arg(long, value_name = "TIME")]
    join_timeout: Option<String>,
    /// Leave the facts of the host (host/arch, …) out of the variables
    #[arg(long)]
    no_host_facts: bool,
    /// Count as registered without a look at the command's ports
    #[arg(long)]
    no_ready_check: bool,
    /// The command's ports must accept connections within [default: 30s]
    #[arg(long, value_name = "TIME")]
    ready_timeout: Option<String>,
    /// Report `draining` for this long before the command gets TERM or an address is given up [default: 0s]
    #[arg(long, value_name = "TIME")]
    drain_time: Option<String>,
    /// Between TERM and KILL for the command [default: 8s]
    #[arg(long, value_name = "TIME")]
    stop_timeout: Option<String>,
    /// Where the temporary endpoint listens [default: any free port on the address towards etcd]
    #[arg(long, value_name = "IP:PORT")]
    temporary_listen: Option<String>,
    /// Write a file from a template when something is given or changes; may be given several times
    #[arg(long = "write", value_name = "FILE=TEMPLATE")]
    write: Vec<WriteFile>,
    /// Run this by /bin/sh -c when something is given, changed or withdrawn
    #[arg(long, value_name = "HOOK")]
    exec: Option<String>,
    /// Start this with what was given; its exit code is the agent's
    #[arg(last = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// What only an agent that is started can be told.
const FLAGS_OF_A_START: [&str; 21] = [
    "exec",
    "drain_time",
    "offline_start",
    "join_timeout",
    "ready_timeout",
    "stop_timeout",
    "temporary_listen",
    "no_host_facts",
    "no_ready_check",
    "lease_ttl",
    "variables",
    "vars_file",
    "describe",
    "ports",
    "no_ports",
    "addresses",
    "instance",
    "ephemeral",
    "replace",
    "write",
    "command",
];

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is not K=V"))?;
    Ok((name.to_owned(), value.to_owned()))
}

impl Args {
    fn flags(&self) -> FlagSettings {
        let mut flags = FlagSettings::default();
        flags.value("--id", "agent.id", self.id.as_deref());
        flags.value("--vars-file", "agent.vars_file", self.vars_file.as_deref());
        flags.value("--describe", "agent.description", self.describe.as_deref());
        let list = |items: &[String]| (!items.is_empty()).then(|| items.join(","));
        flags.value("--port", "agent.ports", list(&self.ports).as_deref());
        flags.switch("--no-ports", "agent.no_ports", self.no_ports, true);
        if self.no_ports {
            flags.value("--no-ports", "agent.ports", Some(""));
        }
        flags.value("--address", "agent.addresses", list(&self.addresses).as_deref());
        flags.value("--state-dir", "agent.state_dir", self.state_dir.as_deref());
        flags.value("--instance", "agent.instance", self.instance.as_deref());
        flags.value("--lease-ttl", "agent.lease_ttl", self.lease_ttl.as_deref());
        flags.switch("--ephemeral", "agent.ephemeral", self.ephemeral, true);
        flags.switch("--offline-start", "agent.offline_start", self.offline_start, true);
        flags.value("--join-timeout", "agent.join_timeout", self.join_timeout.as_deref());
        flags.switch("--no-host-facts", "agent.host_facts", self.no_host_facts, false);
        flags.switch("--no-ready-check", "agent.ready_check", self.no_ready_check, false);
        flags.value("--ready-timeout", "agent.ready_timeout", self.ready_timeout.as_deref());
        flags.value("--drain-time", "agent.drain_time", self.drain_time.as_deref());
        flags.value("--stop-timeout", "agent.stop_timeout", self.stop_timeout.as_deref());
        flags.value("--temporary-listen", "agent.temporary_listen", self.temporary_listen.as_deref());
        flags
    }
}

/// Runs the agent until it ends; with `--set` changes the one that runs.
pub async fn run(common: Common, args: Args) -> anyhow::Result<Exit> {
    if !args.set.is_empty() {
        let loaded = common.settings(args.flags())?;
        telemetry::start(loaded.settings.log.format, common.level(&loaded, false), None);
        return ask::to_set(&loaded, args.set.into_iter().collect()).await;
    }
    let origin = Arc::new((common, args));
    let (loaded, settings) = settings(&origin)?;
    telemetry::start(loaded.settings.log.format, origin.0.level(&loaded, true), None);
    files::check(&settings.write).map_err(|error| Fault::Usage(error.to_string()))?;
    let shutdown = Shutdown::but_hangup().context("failed to listen for signals")?;
    let site = site::open(loaded.source()?)?;
    let outside = Outside { reload: Some(reloader(origin, site.store.clone())), hurry: shutdown.immediate.clone() };
    let host = OsHost::within(&settings, outside).map_err(|error| Fault::Usage(error.to_string()))?;
    let context = site::context(shutdown.orderly.clone());
    let exit = agent::run(site, settings, context, host).await;
    if let Some(error) = exit.error() {
        output::say(format_args!("enlist: {error}"));
    }
    Ok(Exit::Child(u8::try_from(exit.code()).unwrap_or(1)))
}

/// The settings that these flags, the environment and the files make.
fn settings((common, args): &(Common, Args)) -> anyhow::Result<(Loaded, AgentSettings)> {
    let loaded = common.settings(args.flags())?;
    let mut settings = loaded.agent(&args.variables)?;
    settings.replace = args.replace;
    settings.write = args.write.clone();
    settings.exec = args.exec.clone();
    settings.command = args.command.clone();
    settings.forward_signals = true;
    Ok((loaded, settings))
}

/// Reads the settings again, at SIGHUP or `enlist reload`. Those of the store (endpoints, user, password, certificates) are used from
/// then on; the agent decides which of the others can change.
fn reloader(origin: Arc<(Common, Args)>, store: Store) -> Reload {
    Arc::new(move || {
        let (loaded, settings) = settings(&origin).map_err(|error| format!("{error:#}"))?;
        let source = loaded.source().map_err(|error| error.to_string())?;
        store.reconfigure(source.store).map_err(|error| error.to_string())?;
        Ok(settings)
    })
}
