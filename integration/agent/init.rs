//! An agent as process 1 of a container: orphans are waited for, its own child is not taken from it.

use tokio::process::Command;

use super::{Lab, until_file};

#[tokio::test]
async fn orphans_of_process_one_do_not_stay_zombies() {
    let lab = Lab::start();
    let file = lab.path("done");
    // Ten orphans: their parent (a subshell) ends at once, so that process 1 inherits them.
    let script = format!(
        "for i in 1 2 3 4 5 6 7 8 9 10; do (sleep 0.1 &) ; done; sleep 1; \
         for s in /proc/[0-9]*/stat; do cat $s; done 2>/dev/null | grep -c ') Z ' > {0}.new; mv {0}.new {0}; sleep 1; exit 9",
        file.display()
    );
    let mut unshare = Command::new("unshare");
    unshare.args(["--pid", "--fork", "--mount-proc", "--kill-child", env!("CARGO_BIN_EXE_enlist")]);
    let mut agent = lab.spawn(unshare, "state", &["--no-ready-check", "--", "sh", "-c", &script]);
    lab.assign("127.66.0.1", 30_001).await;
    let zombies = until_file(&file, |text| !text.is_empty()).await;
    assert_eq!(zombies, "0\n", "zombies are left");
    assert_eq!(agent.end().await, 9, "the child's own exit code got lost: {}", agent.log());
}
