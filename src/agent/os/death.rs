//! Lets a child die with its agent: `PR_SET_PDEATHSIG`, set in the child between fork and exec. The only unsafe code of
//! the agent.

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::getppid;

/// Makes the kernel kill the process of this command as soon as the *thread* that starts it ends.
pub(super) fn with_parent(command: &mut tokio::process::Command) {
    let parent = nix::unistd::getpid();
    let before_exec = move || {
        set_pdeathsig(Signal::SIGKILL)?;
        // Race: the agent may have died before the line above; then no process is left to send the signal.
        if getppid() != parent {
            return Err(std::io::Error::other("the agent died"));
        }
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe calls may be made: prctl and getppid are plain system calls, the
    // closure takes no lock, and it allocates only for an error, after which the child only exits.
    #[expect(unsafe_code, reason = "pre_exec is the only way to run prctl in the child")]
    unsafe {
        command.pre_exec(before_exec);
    }
}
