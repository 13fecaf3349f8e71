//! A registration that is taken away again and again: how soon, and how often, the agent joins again.

use super::*;

/// Deletes the status whenever it is there, and tells when each was seen, until this time has passed.
async fn deleted_statuses(lab: &Lab, time: Duration) -> Vec<Duration> {
    let (begin, mut seen) = (Instant::now(), Vec::new());
    while begin.elapsed() < time {
        if lab.status().await.is_some() {
            seen.push(begin.elapsed());
            lab.delete(NodePart::Status).await;
        }
        sleep(Duration::from_millis(5)).await;
    }
    seen
}

#[tokio::test(start_paused = true)]
async fn joins_that_do_not_last_come_at_growing_pauses() {
    let lab = Lab::new();
    let machine = lab.serving_machine();
    let agent = lab.start(&machine);
    let given = lab.assign("10.0.0.1", 80).await;
    lab.until_registered(&given).await;
    pass(20).await;
    let seen = deleted_statuses(&lab, Duration::from_secs(60)).await;
    // The one that lasted, and its successor: an agent that loses a registration which lasted is back at once.
    assert!(seen[1] < Duration::from_millis(100), "{seen:?}");
    let within = |limit: u64| seen.iter().filter(|at| **at <= Duration::from_secs(limit)).count();
    assert!((3..=5).contains(&within(1)) && (15..=40).contains(&seen.len()), "{seen:?}");
    // A registration that lasts for a lease TTL ends that.
    lab.until_registered(&given).await;
    pass(20).await;
    let seen = deleted_statuses(&lab, Duration::from_secs(1)).await;
    assert!(seen[1] < Duration::from_millis(100), "{seen:?}");
    assert_eq!(machine.uses().map(|given| given.summary()), Some("10.0.0.1 http=80".to_owned()), "nothing was taken away");
    agent.stop().await;
}
