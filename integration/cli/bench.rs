//! `enlist bench`, small: that it works and says what it promises, not how fast it is.

use serde_json::Value;

use super::{Answer, At, answer, enlist};

fn bench(words: &[&str]) -> Answer {
    let mut command = enlist();
    command.args(words);
    let answer = answer(command);
    // The bench's own end of its etcd is no failure of anything.
    for failure in ["cannot follow etcd", "the lease is lost"] {
        assert!(!answer.stderr.contains(failure), "{words:?}: {}", answer.stderr);
    }
    answer
}

#[test]
fn a_small_pipeline_is_measured_against_its_floor_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap();
    for more in [&[][..], &["--own-watch"], &["--rate", "0.25"], &["--together"], &["--members", "3"]] {
        let words = ["bench", "pipeline", "--nodes", "40", "--rounds", "1", "-o", "json", "--data-dir", dir];
        let report: Value = bench(&[&words[..], more].concat()).json();
        assert_eq!(report["members"], if more == ["--members", "3"] { 3 } else { 1 });
        let round = &report["rounds"][0];
        for figure in ["ratio", "floor", "pipeline"] {
            assert!(report[figure].as_f64().is_some_and(|figure| figure > 0.0), "{figure} of {report}");
        }
        for phase in ["grant", "join", "allocate", "acknowledge", "copies", "whole", "without_grants"] {
            assert!(round["floor"][phase].as_f64().is_some_and(|rate| rate > 0.0), "{phase} of {report}");
        }
        let stores = &round["pipeline"]["stores"];
        let together = more == ["--together"];
        assert_eq!(
            stores["agents"]["grants"],
            if together { 0 } else { 40 },
            "a lease each, or the place on that of the first: {report}"
        );
        // Label and status, then the acknowledgement; a retry may come on top.
        assert!(stores["agents"]["units"].as_u64().is_some_and(|units| (80..120).contains(&units)), "{report}");
        let txns = stores["agents"]["txns"].as_u64().unwrap();
        assert!(if together { txns < 80 } else { (80..120).contains(&txns) }, "{report}");
        assert!(stores["allocator"]["units"].as_u64().is_some_and(|units| units >= 40), "{report}");
        let p99 = |latency: &str| round["pipeline"][latency]["p99_ms"].as_f64().unwrap();
        assert!(p99("to_assigned") > 0.0 && p99("to_registered") >= p99("to_assigned"), "{report}");
        assert!(p99("due_to_assigned") >= p99("to_assigned"), "{report}");
        // Beside an open loop the same writes come at the same rate from who decides nothing.
        assert_eq!(round["blind"]["p99_ms"].as_f64().is_some_and(|p99| p99 > 0.0), more == ["--rate", "0.25"], "{report}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "etcd's data stayed");
}

#[test]
fn a_share_that_makes_no_sense_is_refused() {
    bench(&["bench", "pipeline", "--rate", "40"]).fails(2, "--rate must be a share");
    bench(&["bench", "pipeline", "--members", "3", "--endpoints", "127.0.0.1:1"]).fails(2, "--members is for the private etcd");
}

/// Runs one small, once, with its etcd's data in a folder of its own, which is empty afterwards.
fn small(words: &[&str]) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let more = ["--rounds", "1", "-o", "json", "--data-dir", folder.path().to_str().unwrap()];
    let report = bench(&[&["bench"], words, &more].concat()).json();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "etcd's data stayed: {report}");
    // Bars are told, whether they were reached or not: so small a run proves nothing of speed.
    let goals = report["goals"].as_array().unwrap();
    for goal in goals {
        let (figure, bar) = (goal["figure"].as_f64().unwrap(), goal["bar"].as_f64().unwrap());
        let reached = if goal["must_be"] == "at-least" { figure >= bar } else { figure <= bar };
        assert_eq!(goal["reached"], reached, "{goal}");
    }
    report
}

fn positive(value: &Value, figures: &[&str]) {
    for figure in figures {
        assert!(value[figure].as_f64().is_some_and(|figure| figure > 0.0), "{figure} of {value}");
    }
}

fn at(report: &Value, pointer: &str) -> Value {
    report.pointer(pointer).unwrap_or_else(|| panic!("no {pointer} in {report}")).clone()
}

#[test]
fn a_small_fill_tells_the_cost_at_every_level() {
    let report = small(&["fill", "--prefixes", "22,20", "--claims", "500", "--allocations", "20"]);
    let levels = report["levels"].as_array().unwrap();
    let claims: Vec<u64> = levels.iter().map(|level| level["claims"].as_u64().unwrap()).collect();
    assert_eq!(claims, [10, 511, 1_021, 41, 2_047, 4_090, 500], "{report}");
    levels.iter().for_each(|level| positive(level, &["mean_us", "p99_us", "start_ms"]));
    assert_eq!(report["goals"].as_array().unwrap().len(), 3, "two pools with levels, and one over all: {report}");
}

#[test]
fn a_small_relay_copies_follows_and_comes_back() {
    let report = small(&["relay", "--keys", "300", "--changes", "200", "--seconds", "1"]);
    assert_eq!(report["keys"], 300);
    let round = at(&report, "/rounds/0");
    positive(&round, &["blind", "first_copy", "ratio", "writer_alone", "resume_s"]);
    for tail in ["low", "high"] {
        positive(&round[tail], &["told", "reached"]);
        let lag = |figure: &str| round[tail]["lag"][figure].as_f64().unwrap();
        assert!(lag("p50_ms") <= lag("p99_ms") && lag("p99_ms") <= lag("max_ms") && lag("max_ms") > 0.0, "{report}");
    }
    assert!(round["high"]["told"].as_f64() > round["low"]["told"].as_f64(), "{report}");
    positive(&report, &["make_mirror"]);
}

#[test]
fn small_groups_evaluate_one_selector_and_write_their_members() {
    let report = small(&["groups", "--nodes", "200", "--groups", "5,20,40", "--changes", "50", "--written", "7"]);
    let levels = report["levels"].as_array().unwrap();
    assert_eq!(levels.iter().map(|level| level["groups"].as_u64().unwrap()).collect::<Vec<_>>(), [5, 20, 40]);
    for level in levels {
        assert_eq!(level["index"]["evaluations"], 1.0, "{level}");
        assert_eq!(level["index"]["members"], 5.0, "200 nodes of 40 tenants: {level}");
        positive(&level["index"], &["change_us", "add_group_us"]);
        positive(&level["view"], &["change_us", "first_plan_ms"]);
    }
    let written = &report["change_to_member"];
    assert_eq!((&written["groups"], &written["changes"]), (&20.into(), &7.into()), "{report}");
    positive(&written["latency"], &["p50_ms", "p99_ms", "max_ms"]);
}

#[test]
fn a_small_restart_reads_everything_and_gives_one_address() {
    let yours = At::start();
    let words = ["bench", "restart", "--claims", "400", "--rounds", "1", "-o", "json", "--prefix", "/mine"];
    let there = yours.run(&words).json();
    assert_eq!(yours.keys(), [""; 0], "something stayed in an etcd that is not private");
    for report in [small(&["restart", "--claims", "400"]), there] {
        // 200 nodes of five keys, the pool, and one who waits with label and status.
        assert_eq!((&report["claims"], &report["keys"]), (&400.into(), &1_003.into()), "{report}");
        positive(&report, &["raw_bytes"]);
        positive(&at(&report, "/rounds/0"), &["read_s", "restart_s", "ratio", "memory_bytes"]);
    }
}

#[test]
fn a_short_absence_of_etcd_changes_nothing() {
    let report = small(&["away", "--nodes", "40", "--seconds", "2", "--ttl", "6"]);
    let round = at(&report, "/rounds/0");
    let nothing = serde_json::json!({"labels": 0, "statuses": 0, "assignments": 0, "holds": 0});
    assert_eq!((&round["written"], &round["restarted"]), (&nothing, &0.into()), "{report}");
    positive(&round, &["back_s"]);
    let etcd = ["bench", "away", "--endpoints", "127.0.0.1:1"];
    bench(&etcd).fails(2, "bench away kills etcd, so it starts its own");
}

#[test]
fn a_small_storm_comes_back_to_the_same_addresses() {
    for more in [&[][..], &["--together"]] {
        let report = small(&[&["storm", "--nodes", "40", "--ttl", "2"], more].concat());
        let round = at(&report, "/rounds/0");
        positive(&round, &["blind_before", "blind_after", "blind", "rate", "ratio", "brake_on_s", "brake_off_s"]);
        let written = &round["written"];
        assert_eq!((&written["labels"], &written["assignments"]), (&0.into(), &0.into()), "{report}");
        assert_eq!(written["statuses"], 40, "everybody came back: {report}");
    }
}
