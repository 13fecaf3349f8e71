//! The binary: starts the runtime, hands over to [`enlist::cli`], and turns its answer into an exit code.
//!
//! The only place that exits. It decides nothing.

use std::process::ExitCode;

use libmimalloc_sys::{mi_option_set_default, mi_option_t};
use mimalloc::MiMalloc;

/// Most of what roles and agents do is small values that come and go on several threads.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// `mi_option_purge_delay` of `mimalloc.h`: after how many milliseconds what is free goes back to the kernel.
const PURGE_DELAY: mi_option_t = 15;
/// By default it is a second, and only later calls look whether it has passed: what an allocator read to take over a million claims
/// would stand in its memory for as long as nothing happens. `MIMALLOC_PURGE_DELAY` in the environment counts before it.
const PURGE_DELAY_MS: std::ffi::c_long = 10;

fn main() -> ExitCode {
    #[expect(unsafe_code, reason = "the option is the C library's, and its crate has no other way to it")]
    // Safety: it sets a number in a table of options; no other thread runs yet that could read it.
    unsafe {
        mi_option_set_default(PURGE_DELAY, PURGE_DELAY_MS);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The library's header numbers its options, its crate has no name for this one: it is known by its default.
    #[test]
    fn the_purge_delay_is_the_option_that_is_a_second_by_default() {
        #[expect(unsafe_code, reason = "see main")]
        // Safety: reads a number that nothing changes here.
        let delay = unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
        assert_eq!(delay, 1000);
    }
}
