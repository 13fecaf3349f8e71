//! etcd is restored from a backup under a running fleet: every node gets back exactly what it uses, no child is stopped. So it is
//! when the restore raises the revisions, and leaves no past that could be asked.

use super::*;
use crate::support::process::is_alive;

async fn leave(fleet: &Fleet, mut agent: Process, id: &str) {
    fleet.ok(&["leave", "--state-dir", fleet.path(id).to_str().unwrap()]).await;
    agent.end().await;
    fleet.until_gone(&format!("nodes/{id}/label")).await;
}

fn place(answer: &Json) -> (&Json, &Json) {
    (&answer["addresses"], &answer["ports"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_from_before_a_swap_a_newcomer_and_a_leave_changes_nothing_in_use() {
    let mut fleet = Fleet::on(EtcdVersion::V3_5);
    let roles = fleet.run(&[]);
    fleet.apply(&(pool("eu", "127.70.11.0/29", SHORT, "") + "{kind: Group, name: all, selector: ''}")).await;
    let want = |id: &'static str, host: u8| {
        let address = format!("127.70.11.{host}");
        fleet.agent_with_child(id, &["--address", &address])
    };
    let (a, b, c) = (want("a", 1).0, want("b", 2).0, want("c", 3).0);
    for id in ["a", "b", "c"] {
        fleet.registered(id).await;
    }
    let backup = fleet.etcd.backup();
    // Since then: two have swapped, one has left, one is new and has the address of the one that left.
    leave(&fleet, a, "a").await;
    leave(&fleet, b, "b").await;
    leave(&fleet, c, "c").await;
    let users = [("a", want("a", 2)), ("b", want("b", 1)), ("new", want("new", 3))];
    let mut used = BTreeMap::new();
    for (id, (_, file)) in &users {
        used.insert(*id, (fleet.registered(id).await, child_in(file).await));
    }

    fleet.etcd.restore(&backup);
    for (id, (before, child)) in &used {
        let what = format!("{id} has back what it uses");
        let answer = until(&what, LIMIT, || async {
            let answer = fleet.registered(id).await;
            (place(&answer) == place(before)).then_some(answer)
        })
        .await;
        assert!(is_alive(*child), "the child of {id} was stopped: {answer}");
    }
    fleet.until_members("all", &["a", "b", "new"]).await;
    fleet.until_gone("nodes/c/assignment").await;
    fleet.until_nothing_found().await;
    for (id, (before, child)) in &used {
        assert_eq!(place(&fleet.registered(id).await), place(before));
        assert!(is_alive(*child), "the child of {id} was stopped");
    }
    // Newcomers are served again after a while.
    let late = fleet.agent("late", &[]);
    fleet.registered("late").await;
    fleet.until_nothing_found().await;
    drop((users, late, roles));
}

/// The pool has as many addresses as nodes: who would take from another gets nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn raised_revisions_take_nothing_from_who_registered_since() {
    let mut fleet = Fleet::on(EtcdVersion::V3_5);
    let roles = fleet.run(&[]);
    fleet.apply(&pool("eu", "127.70.12.0/30", SHORT, "")).await;
    let a = fleet.agent_with_child("a", &[]);
    fleet.registered("a").await;
    let backup = fleet.etcd.backup();
    let b = fleet.agent_with_child("b", &[]);
    let mut used = BTreeMap::new();
    for (id, file) in [("a", &a.1), ("b", &b.1)] {
        used.insert(id, (fleet.registered(id).await, child_in(file).await));
    }

    fleet.etcd.restore_raised(&backup);
    let newcomer = fleet.agent("newcomer", &[]);
    for (id, (before, child)) in &used {
        let what = format!("{id} has back what it uses");
        until(&what, LIMIT, || async { (place(&fleet.registered(id).await) == place(before)).then_some(()) }).await;
        assert!(is_alive(*child), "the child of {id} was stopped");
    }
    // It is refused only when the quiet time is over: until then it is not answered at all.
    fleet.until_waiting("newcomer", "pool-full").await;
    for (id, (before, child)) in &used {
        assert_eq!(place(&fleet.registered(id).await), place(before));
        assert!(is_alive(*child), "the child of {id} was stopped");
    }
    fleet.until_nothing_found().await;
    drop((a, b, newcomer, roles));
}

/// The roles were stopped meanwhile and are started without a word of it: the first node that reclaims something is the proof.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_that_were_stopped_learn_of_a_restore_from_a_node() {
    let mut fleet = Fleet::on(EtcdVersion::V3_5);
    let mut roles = fleet.run(&[]);
    fleet.apply(&pool("eu", "127.70.15.0/30", SHORT, "")).await;
    let backup = fleet.etcd.backup();
    let b = fleet.agent_with_child("b", &[]);
    let (before, child) = (fleet.registered("b").await, child_in(&b.1).await);
    roles.stop().await;
    fleet.etcd.restore_raised(&backup);
    fleet.until_json("nodes/b/label", "b says what it holds", |label| !label["holding"].is_null()).await;
    let roles = fleet.run(&["allocator"]);
    until("b has back what it uses", LIMIT, || async { (place(&fleet.registered("b").await) == place(&before)).then_some(()) })
        .await;
    assert!(is_alive(child), "the child of b was stopped");
    fleet.until_said(&roles, "store was restored").await;
    drop((b, roles));
}
