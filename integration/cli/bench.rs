//! `enlist bench`, small: that it works and says what it promises, not how fast it is.

use serde_json::Value;

use super::{Answer, answer, enlist};

fn bench(words: &[&str]) -> Answer {
    let mut command = enlist();
    command.args(words);
    answer(command)
}

#[test]
fn a_small_pipeline_is_measured_against_its_floor_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap();
    for more in [&[][..], &["--own-watch"], &["--rate", "0.25"]] {
        let words = ["bench", "pipeline", "--nodes", "40", "--rounds", "1", "-o", "json", "--data-dir", dir];
        let report: Value = bench(&[&words[..], more].concat()).json();
        let round = &report["rounds"][0];
        for figure in ["ratio", "floor", "pipeline"] {
            assert!(report[figure].as_f64().is_some_and(|figure| figure > 0.0), "{figure} of {report}");
        }
        for phase in ["grant", "join", "allocate", "acknowledge", "copies", "whole", "without_grants"] {
            assert!(round["floor"][phase].as_f64().is_some_and(|rate| rate > 0.0), "{phase} of {report}");
        }
        let stores = &round["pipeline"]["stores"];
        assert_eq!(stores["agents"]["grants"], 40, "a lease each: {report}");
        // Label and status, then the acknowledgement; a retry may come on top.
        assert!(stores["agents"]["txns"].as_u64().is_some_and(|txns| (80..120).contains(&txns)), "{report}");
        assert!(stores["allocator"]["units"].as_u64().is_some_and(|units| units >= 40), "{report}");
        let p99 = |latency: &str| round["pipeline"][latency]["p99_ms"].as_f64().unwrap();
        assert!(p99("to_assigned") > 0.0 && p99("to_registered") >= p99("to_assigned"), "{report}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "etcd's data stayed");
}

#[test]
fn a_share_that_makes_no_sense_is_refused() {
    bench(&["bench", "pipeline", "--rate", "40"]).fails(2, "--rate must be a share");
}
