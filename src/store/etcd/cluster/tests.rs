use super::*;

const X: u64 = 0xa;
const Y: u64 = 0xb;
const Z: u64 = 0xc;

/// What endpoints say, a letter each: `x`, `y`, `z` a member of that cluster, `-` silent, `?` not asked.
fn clusters(known: Option<u64>, said: &str) -> Clusters {
    let mut clusters = Clusters::new(said.len());
    known.into_iter().for_each(|known| clusters.expect(known));
    let now = Instant::now();
    for (at, letter) in said.chars().enumerate() {
        match letter {
            'x' => clusters.hear(at, X, now),
            'y' => clusters.hear(at, Y, now),
            'z' => clusters.hear(at, Z, now),
            '-' => clusters.silent(at),
            _ => {}
        }
    }
    clusters
}

fn decided(known: Option<u64>, said: &str) -> Choice {
    clusters(known, said).decide(Instant::now())
}

#[test]
fn a_first_contact_takes_the_cluster_of_most_endpoints() {
    let check = |said: &str, expected: Choice| assert_eq!(decided(None, said), expected, "{said}");
    // One endpoint.
    check("x", Choice::Cluster(X));
    // Two: the other one is asked, and may be silent, but of no other cluster.
    check("x?", Choice::Ask(vec![1]));
    check("?x", Choice::Ask(vec![0]));
    check("xx", Choice::Cluster(X));
    check("x-", Choice::Cluster(X));
    check("xy", Choice::Split);
    // Three: a wiped member is alone, whatever fails beside it.
    check("x??", Choice::Ask(vec![1]));
    check("xx?", Choice::Cluster(X));
    check("xy?", Choice::Ask(vec![2]));
    check("xyx", Choice::Cluster(X));
    check("xy-", Choice::Split);
    check("xyz", Choice::Split);
    check("y-?", Choice::Ask(vec![2]));
    check("-y?", Choice::Ask(vec![2]));
    check("y--", Choice::Count(0));
    check("-?x", Choice::Ask(vec![1]));
    // Those that are left are asked together once one was silent.
    check("x-???", Choice::Ask(vec![2, 3, 4]));
    // Four and five.
    check("xx--", Choice::Cluster(X));
    check("xxyy", Choice::Split);
    check("xxx??", Choice::Cluster(X));
    check("xxy--", Choice::Split);
    check("xx---", Choice::Count(0));
}

#[test]
fn an_endpoint_alone_counts_by_the_size_of_its_cluster() {
    let check = |said: &str, members: usize, expected: Choice| {
        let mut clusters = clusters(None, said);
        clusters.count(X, members);
        assert_eq!(clusters.decide(Instant::now()), expected, "{said} {members}");
    };
    check("x--", 1, Choice::Minority);
    check("x--", 2, Choice::Cluster(X));
    check("x--", 3, Choice::Cluster(X));
    check("x----", 2, Choice::Minority);
    check("x----", 3, Choice::Cluster(X));
}

#[test]
fn a_known_cluster_is_kept_until_most_endpoints_are_of_another() {
    let check = |said: &str, expected: u64| assert_eq!(decided(Some(X), said), Choice::Cluster(expected), "{said}");
    for said in ["x", "xy", "yx", "xyy", "y??", "y--", "-y-", "yz-", "yz", "y?", "y-", "--", "yyzz", "yx-"] {
        check(said, X);
    }
    // Made anew from a backup: all that are there carry the new id.
    for said in ["yy", "yy-", "yy?", "yyy", "yyy--"] {
        check(said, Y);
    }
}

#[test]
fn a_single_endpoint_must_stay_with_another_cluster_for_a_while() {
    let began = Instant::now();
    let mut clusters = Clusters::new(1);
    clusters.hear(0, X, began);
    assert_eq!(clusters.decide(began), Choice::Cluster(X));
    let mut said = |cluster: u64, after: Duration| {
        clusters.hear(0, cluster, began + after);
        clusters.decide(began + after)
    };
    let second = Duration::from_secs(1);
    // A balancer that leads to the wiped member now and then.
    for turn in 1..40 {
        assert_eq!(said(if turn % 4 == 0 { X } else { Y }, second * turn), Choice::Cluster(X), "{turn}");
    }
    // Several wiped members, each a cluster of its own.
    for turn in 41..80 {
        assert_eq!(said(if turn % 2 == 0 { Z } else { Y }, second * turn), Choice::Cluster(X), "{turn}");
    }
    assert_eq!(said(X, second * 100), Choice::Cluster(X));
    assert_eq!(said(Y, second * 101), Choice::Cluster(X));
    assert_eq!(said(Y, second * 101 + PATIENCE / 2), Choice::Cluster(X));
    assert_eq!(said(Y, second * 101 + PATIENCE), Choice::Cluster(Y));
    // Now that is the one that is kept.
    assert_eq!(said(X, second * 102 + PATIENCE), Choice::Cluster(Y));
}

#[test]
fn a_member_that_falls_silent_no_longer_holds_its_cluster() {
    let mut clusters = clusters(Some(X), "yyx");
    assert_eq!(clusters.decide(Instant::now()), Choice::Cluster(X));
    clusters.silent(2);
    assert_eq!(clusters.decide(Instant::now()), Choice::Cluster(Y));
}

#[test]
fn what_was_silent_is_asked_again_after_a_refusal() {
    let mut clusters = clusters(None, "y--");
    clusters.count(Y, 1);
    assert_eq!(clusters.decide(Instant::now()), Choice::Minority);
    clusters.forget_silence();
    assert_eq!(clusters.decide(Instant::now()), Choice::Ask(vec![1]));
    assert_eq!(clusters.chosen(), None);
    assert_eq!(
        clusters.describe(&["a:1", "b:1", "c:1"]),
        "a:1 is a member of cluster b, b:1 does not answer, c:1 does not answer"
    );
}
