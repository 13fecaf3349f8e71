//! The binary: starts the runtime, hands over to [`enlist::cli`], and turns its answer into an exit code.
//!
//! The only place that exits. It decides nothing.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// Most of what roles and agents do is small values that come and go on several threads.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("enlist: failed to start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(enlist::cli::main(std::env::args_os()));
    // A blocking thread (a name lookup of the system's, say) must not keep the process alive after its answer.
    runtime.shutdown_background();
    ExitCode::from(code)
}
