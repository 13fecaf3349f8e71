//! Runs of many seeds, and what is told of those that fail.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::panic::{UnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// The first seed that fails is enough: for `scripts/mutants`.
pub(crate) fn is_hunt() -> bool {
    number("SIM_HUNT").is_some()
}

/// A variable of the environment.
pub(crate) fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// The seeds from `SIM_FIRST` on, `SIM_SEEDS` of them; or `SIM_SEED` alone.
pub(crate) fn seeds(usual: u64) -> Vec<u64> {
    let first = number("SIM_FIRST").unwrap_or(1);
    number("SIM_SEED").map_or_else(|| (first..first + number("SIM_SEEDS").unwrap_or(usual)).collect(), |seed| vec![seed])
}

/// `SIM_LOG`: what the roles and agents log.
pub(crate) fn show_logs() {
    if let Ok(level) = std::env::var("SIM_LOG") {
        let _ = tracing_subscriber::fmt().with_env_filter(format!("enlist={level}")).with_writer(std::io::stderr).try_init();
    }
}

/// A run whose panic is an error like any other: it has a seed and a script too.
pub(crate) fn caught<R>(run: impl FnOnce() -> Result<R, String> + UnwindSafe) -> Result<R, String> {
    catch_unwind(run).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(format!("panicked: {}", text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()))
    })
}

/// Runs seeds on all cores, in order; if it is a hunt, until one fails.
pub(crate) fn run_all<R: Send>(seeds: &[u64], run: impl Fn(u64) -> Result<R, String> + Sync) -> BTreeMap<u64, Result<R, String>> {
    let (next, found, results) = (AtomicUsize::new(0), AtomicBool::new(false), Mutex::new(BTreeMap::new()));
    let is_hunt = is_hunt();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed))
                    && !(is_hunt && found.load(Ordering::Relaxed))
                {
                    let result = run(*seed);
                    found.fetch_or(result.is_err(), Ordering::Relaxed);
                    results.lock().unwrap().insert(*seed, result);
                }
            });
        }
    });
    results.into_inner().unwrap()
}

/// Panics if one failed. `tell` tells a seed's failure, at length.
pub(crate) fn assert_all_good<R>(results: &BTreeMap<u64, Result<R, String>>, tell: impl Fn(u64) -> String) {
    let failed: Vec<_> =
        (1..).zip(results).filter_map(|(count, (seed, result))| Some((count, *seed, result.as_ref().err()?))).collect();
    let Some((count, seed, error)) = failed.first() else { return };
    assert!(!is_hunt(), "found with {count} seeds, by seed {seed}: {error}");
    let others: Vec<_> =
        failed.iter().skip(1).map(|(_, seed, error)| format!("{seed}: {}", &error[..error.len().min(300)])).collect();
    panic!("{} of {} seeds failed\n{}\nothers: {}", failed.len(), results.len(), tell(*seed), others.join("\n"));
}

/// Tells a script that fails, with the fewest steps found that still do: they are left out one by one, from the end. `run` says
/// what goes wrong.
pub(crate) fn told<S: Clone + Debug>(
    seed: u64,
    about: &str,
    steps: &[(Duration, S)],
    run: impl Fn(&[(Duration, S)]) -> Option<String>,
) -> String {
    let (steps, error) = shorten(steps, run);
    let steps: Vec<_> = steps.iter().map(|(pause, step)| format!("  +{:>6} ms {step:?}", pause.as_millis())).collect();
    format!("SIM_SEED={seed}: {error}\n{about}\n{}", steps.join("\n"))
}

fn shorten<S: Clone>(steps: &[S], run: impl Fn(&[S]) -> Option<String>) -> (Vec<S>, String) {
    let mut shortest = steps.to_vec();
    let mut error = run(&shortest).unwrap_or_default();
    let tries = number("SIM_TRIES").map_or(120, |tries| usize::try_from(tries).unwrap());
    for index in (0..steps.len()).rev().take(tries) {
        let mut shorter = shortest.clone();
        shorter.remove(index);
        if let Some(why) = run(&shorter) {
            (shortest, error) = (shorter, why);
        }
    }
    (shortest, error)
}

#[test]
fn what_fails_is_told_without_the_steps_that_do_not_matter() {
    let fails = |steps: &[u32]| (steps.contains(&3) && steps.contains(&7)).then(|| format!("{} steps", steps.len()));
    assert_eq!(shorten(&(0..20).collect::<Vec<_>>(), fails), (vec![3, 7], "2 steps".to_owned()));
}

#[test]
fn a_panic_is_told_like_an_error() {
    assert_eq!(caught(|| -> Result<(), String> { panic!("no {}", "way") }), Err("panicked: no way".to_owned()));
    assert_eq!(caught(|| Ok(1)), Ok(1));
}
