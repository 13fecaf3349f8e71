//! One id, two machines: a second host, a copied disk, a re-installed host.

use super::*;

/// With a network of its own: the same id gets the same address in the same pool, and agents look whether they can bind it.
async fn fleet(network: &str, hold: &str) -> (Fleet, Process) {
    let fleet = Fleet::on(EtcdVersion::V3_4);
    fleet.apply(&pool("eu", network, hold, "")).await;
    let roles = fleet.run(&[]);
    (fleet, roles)
}

/// The binary, as it would run after another boot of the machine.
fn other_boot(fleet: &Fleet) -> Command {
    let boot = fleet.path("boot");
    std::fs::write(&boot, "11111111-2222-3333-4444-555555555555\n").unwrap();
    let binary = env!("CARGO_BIN_EXE_enlist");
    let script = format!("mount --bind {} /proc/sys/kernel/random/boot_id && exec {binary} \"$@\"", boot.display());
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script, "sh"]);
    command
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_host_and_a_cloned_machine_are_refused_and_the_first_keeps_everything() {
    let (fleet, _roles) = fleet("127.70.3.0/24", LONG).await;
    let (mut first, file) = fleet.agent_with_child("a", &[]);
    let given = fleet.registered("a").await;
    let child = child_in(&file).await;
    let before = fleet.key("nodes/a/label").await;

    let binary = || Command::new(env!("CARGO_BIN_EXE_enlist"));
    let mut second = fleet.agent_in(binary(), "a", "another-host", &[]);
    assert_eq!(second.end().await, 5, "{}", second.log());
    let temporary = fleet.json("nodes/a/label").await["temporary"].clone();
    let holder =
        std::net::SocketAddr::new(temporary["ip"].as_str().unwrap().parse().unwrap(), temporary["port"].as_u64().unwrap() as u16);
    assert!(second.log().contains(&format!("id a is held by {holder}")), "{}", second.log());

    // A clone: all that is on the disk, and another boot.
    let copied = std::process::Command::new("cp").arg("-a").arg(fleet.path("a")).arg(fleet.path("clone")).status().unwrap();
    assert!(copied.success());
    let mut clone = fleet.agent_in(other_boot(&fleet), "a", "clone", &[]);
    assert_eq!(clone.end().await, 5, "{}", clone.log());
    assert!(clone.log().contains("remove the state directory"), "{}", clone.log());

    assert_eq!(fleet.registered("a").await, given);
    assert_eq!(fleet.key("nodes/a/label").await, before, "the label was written by somebody else");
    assert!(crate::support::process::is_alive(child));
    assert_eq!(first.stop().await, 0);
    // Stopped in order: a re-installed host takes name and address over.
    let mut again = fleet.agent_in(binary(), "a", "another-host", &[]);
    let theirs = fleet.registered("a").await;
    assert_eq!((&theirs["addresses"], &theirs["ports"]), (&given["addresses"], &given["ports"]));
    assert_ne!(theirs["instance"], given["instance"]);
    again.stop().await;
    fleet.sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reinstalled_host_waits_for_the_hold_of_one_that_may_only_be_cut_off() {
    let (fleet, _roles) = fleet("127.70.14.0/24", SHORT).await;
    let first = fleet.agent("a", &[]);
    let given = fleet.registered("a").await;
    first.kill().await;
    fleet.until_gone("nodes/a/status").await;
    let new = fleet.agent_in(Command::new(env!("CARGO_BIN_EXE_enlist")), "a", "new", &[]);
    let theirs = until("the new one is registered", LIMIT, || async {
        let theirs = fleet.registered("a").await;
        (theirs["instance"] != given["instance"]).then_some(theirs)
    })
    .await;
    fleet.until_said(&new, "--replace").await;
    fleet.until_said(&new, "after it fell silent, by pool").await;
    assert_eq!((&theirs["addresses"], &theirs["ports"]), (&given["addresses"], &given["ports"]), "its name, and its address");
    assert!(theirs["generation"].as_i64() > given["generation"].as_i64(), "the first one's was released: {theirs}");
    fleet.sound().await;
    drop(new);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebooted_host_does_not_take_itself_for_the_holder() {
    let (fleet, _roles) = fleet("127.70.13.0/24", LONG).await;
    // The same endpoint after the boot as before it: the label names this agent's own.
    let listen = format!("127.0.0.1:{}", free_port());
    let flags = ["--temporary-listen", listen.as_str()];
    let agent = fleet.agent("a", &flags);
    let given = fleet.registered("a").await;
    agent.kill().await;
    let mut again = fleet.agent_in(other_boot(&fleet), "a", "a", &flags);
    fleet.until_said(&again, &format!("id a has a live status of {listen}, which does not answer")).await;
    let status = fleet.json("nodes/a/status").await;
    let mine = |now: &Json| now["phase"] == "registered" && now["boot"] != status["boot"];
    fleet.until_json("nodes/a/status", "registered after the boot", mine).await;
    assert_eq!(fleet.registered("a").await, given);
    assert_eq!(again.stop().await, 0);
    fleet.sound().await;
}
