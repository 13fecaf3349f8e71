//! Chaos: real etcds, real `enlist run`, two hundred real agents, and faults every few seconds from a seed. Both histories are
//! recorded whole, and what must always hold is proven on every revision of them. `scripts/chaos` is how people start it.
//!
//! ```text
//! chaos run --minutes M --seed S --etcd 3.4|3.5 [--agents N] [--folder DIR]   a run and its proof
//! chaos prove DIR                                                            the proof alone, of an earlier run's files
//! ```
//!
//! Needs: etcd of that version, `setpriv` (util-linux). It leaves nothing behind: all it starts dies with it.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic, and talks to people")]

mod etcd;
mod faults;
mod file;
mod fleet;
mod host;
mod net;
mod plan;
mod process;
mod prove;
mod recorder;
mod run;
mod summary;
mod uses;
mod world;

#[expect(dead_code, reason = "the other binary needs the rest")]
#[path = "../history/mod.rs"]
mod history;
#[expect(dead_code, reason = "the other binary needs the rest")]
#[path = "../support/mod.rs"]
mod support;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

#[derive(Debug, Parser)]
enum Command {
    /// A run and its proof
    Run(run::Options),
    /// The proof alone
    Prove { folder: PathBuf },
    /// What a run starts: a process with agents
    #[command(hide = true)]
    Agents { endpoints: String, states: PathBuf },
}

fn main() -> ExitCode {
    match Command::parse() {
        Command::Run(options) => multi_thread(run::run(options)),
        Command::Prove { folder } => {
            let proof = prove::prove(&folder);
            println!("{}", serde_json::to_string_pretty(&proof).unwrap());
            code(proof.findings.is_empty() && proof.holes == 0)
        }
        Command::Agents { endpoints, states } => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(host::run(endpoints.split(',').map(str::to_owned).collect(), states));
            ExitCode::SUCCESS
        }
    }
}

/// The future itself runs on this thread, which is to outlive all processes that it starts.
fn multi_thread(run: impl Future<Output = bool>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    code(runtime.block_on(run))
}

fn code(good: bool) -> ExitCode {
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
