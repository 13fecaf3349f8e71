//! `enlist bench pipeline`: rounds of floor and pipeline, and what they say.

use serde::Serialize;

use super::fleet::{Arrival, Sharing};
use super::floor::{Floor, Writes, floor};
use super::numbers::{Latency, median};
use super::pipeline::{Pipeline, pipeline, single_put};
use super::place::Ground;
use super::progress::Bar;
use super::steady::steady;
use crate::cli::exit::Fault;
use crate::cli::output::{self, Format, Table};
use crate::reconcile::Site;

/// Nodes that join until every one is registered and a published member of its group
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many nodes, up to 200,000
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=200_000))]
    nodes: u32,
    /// Members of the private etcd, all on this machine: 1, 3 or 5
    #[arg(long, value_name = "N", default_value = "1", value_parser = ["1", "3", "5"])]
    members: String,
    /// One watch for each node, as a real fleet has it, in place of one for all
    #[arg(long)]
    own_watch: bool,
    /// Nodes share leases and batch their writes, as agents of one process may, beside the watch
    #[arg(long, conflicts_with = "own_watch")]
    together: bool,
    /// Nodes come at this share of the floor's rate, whether those before are done or not, in place of as fast as they can
    #[arg(long, value_name = "SHARE")]
    rate: Option<f64>,
}

impl Args {
    /// How many members the private etcd has.
    pub fn members(&self) -> usize {
        self.members.parse().unwrap_or(1)
    }

    fn sharing(&self) -> Sharing {
        match (self.own_watch, self.together) {
            (true, _) => Sharing::Nothing,
            (_, true) => Sharing::All,
            _ => Sharing::Watch,
        }
    }
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Report {
    etcd: String,
    members: usize,
    nodes: usize,
    own_watch: bool,
    together: bool,
    rate: Option<f64>,
    /// Pipeline's rate over the floor's, in the middle round.
    ratio: f64,
    floor: f64,
    pipeline: f64,
    rounds: Vec<Round>,
}

#[derive(Debug, Serialize)]
struct Round {
    ratio: f64,
    single_put: Latency,
    floor: Floor,
    /// With a rate: from when a node was due until its allocation was written, where the floor's writes come at that rate.
    blind: Option<Latency>,
    pipeline: Pipeline,
}

/// Runs it.
///
/// # Errors
/// When something refuses, or stands still.
pub async fn run(ground: &Ground, args: &Args, rounds: usize, format: Format) -> anyhow::Result<String> {
    if args.rate.is_some_and(|share| !(0.001..=2.0).contains(&share)) {
        return Err(Fault::Usage("--rate must be a share of the floor's rate between 0.001 and 2".into()).into());
    }
    let nodes = args.nodes as usize;
    let (mut done, mut etcd) = (Vec::new(), String::new());
    for _ in 0..rounds {
        let place = ground.place().await?;
        etcd = place.version().to_owned();
        let (single_put, floor) = alone(place.site()?, nodes).await?;
        place.clear().await?;
        let rate = args.rate.map(|share| share * floor.whole);
        let blind = match rate {
            Some(rate) => {
                let place = ground.place().await?;
                let Site { store, prefix } = place.site()?;
                let blind = steady(Writes { store, prefix }, nodes, rate).await;
                place.clear().await?;
                Some(blind?)
            }
            None => None,
        };
        let place = ground.place().await?;
        let arrival = rate.map_or(Arrival::Rush, Arrival::PerSecond);
        let measured = pipeline(&place, nodes, arrival, args.sharing()).await?;
        place.clear().await?;
        done.push(Round { ratio: measured.rate / floor.whole, single_put, floor, blind, pipeline: measured });
    }
    let middle = |figure: fn(&Round) -> f64| median(done.iter().map(figure).collect());
    let report = Report {
        etcd,
        members: args.members(),
        nodes,
        own_watch: args.own_watch,
        together: args.together,
        rate: args.rate,
        ratio: middle(|round| round.ratio),
        floor: middle(|round| round.floor.whole),
        pipeline: middle(|round| round.pipeline.rate),
        rounds: done,
    };
    if format == Format::Json { output::json(&report) } else { Ok(text(&report)) }
}

/// What etcd does without enlist.
async fn alone(site: Site, nodes: usize) -> anyhow::Result<(Latency, Floor)> {
    let single_put = single_put(&site).await?;
    Ok((single_put, floor(&site.store, &site.prefix, nodes, &Bar::new("floor", nodes * 5)).await?))
}

fn text(report: &Report) -> String {
    let rows = report.rounds.iter().enumerate().map(|(n, round)| {
        let Pipeline { to_assigned, to_registered, etcd_cpu_s, our_cpu_s, .. } = &round.pipeline;
        let seconds = |value: &Option<f64>| value.map_or(String::new(), |value| format!("{value:.2}"));
        let latency = |value: &Latency| format!("{:.1}/{:.1}", value.p50_ms, value.p99_ms);
        vec![
            (n + 1).to_string(),
            format!("{:.0}", round.floor.whole),
            format!("{:.0}", round.pipeline.rate),
            format!("{:.2}", round.ratio),
            latency(to_assigned),
            latency(to_registered),
            format!("{:.1}", round.pipeline.txns),
            format!("{:.0}", round.pipeline.bytes),
            seconds(etcd_cpu_s),
            seconds(our_cpu_s),
        ]
    });
    let headings = vec![
        "ROUND",
        "FLOOR/S",
        "PIPELINE/S",
        "RATIO",
        "ASSIGNED-MS",
        "REGISTERED-MS",
        "TXNS",
        "BYTES",
        "ETCD-CPU-S",
        "OUR-CPU-S",
    ];
    let table = Table { headings, rows: rows.collect() }.render();
    let Report { etcd, members, nodes, ratio, floor, pipeline, .. } = report;
    let members = if *members > 1 { format!(", {members} members") } else { String::new() };
    let watch = match (report.own_watch, report.together) {
        (true, _) => "a watch each",
        (_, true) => "one watch for all, a lease for a hundred, writes in batches",
        _ => "one watch for all",
    };
    let middle = |figure: &dyn Fn(&Round) -> f64| median(report.rounds.iter().map(figure).collect());
    let put = middle(&|round| round.single_put.p50_ms);
    let p99 = |figure: &dyn Fn(&Round) -> f64| {
        let p99 = middle(figure);
        format!("{p99:.1} ms = {:.0} × a single put on the idle store ({put:.2} ms)", p99 / put)
    };
    let to_assigned = p99(&|round| round.pipeline.to_assigned.p99_ms);
    let mut text = format!(
        "{table}\n{nodes} nodes, {watch}, etcd {etcd}{members}. Latencies are p50/p99 from the label; transactions and bytes are for one \
         registration,\nprocessor seconds for 1,000.\nregistrations/s: {pipeline:.0}, floor {floor:.0}, ratio {ratio:.2}\nlabel to \
         assignment p99 {to_assigned}\n"
    );
    if report.rate.is_some() {
        let due = p99(&|round| round.pipeline.due_to_assigned.p99_ms);
        let blind = p99(&|round| round.blind.map_or(f64::NAN, |blind| blind.p99_ms));
        text += &format!(
            "from when a node is due, so with the grant of its lease and the writing of its label, p99 {due}\nthe same writes at \
             the same rate, blind, from due until the claims' write is answered, p99 {blind}\n"
        );
    }
    text
}
