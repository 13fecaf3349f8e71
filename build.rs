//! Puts the commit into `--version`. From a tarball, or without git, the commit is `unknown`: the build never fails for it.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=ENLIST_COMMIT");
    let commit = std::env::var("ENLIST_COMMIT").ok().filter(|text| !text.is_empty()).or_else(commit);
    println!("cargo::rustc-env=ENLIST_BUILD_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
}

fn commit() -> Option<String> {
    let here = std::env::var("CARGO_MANIFEST_DIR").ok()?;
    // A tarball may lie inside somebody else's repository: that one's commit is not ours.
    let top = git(&["rev-parse", "--show-toplevel"])?;
    if Path::new(&top).canonicalize().ok()? != Path::new(&here).canonicalize().ok()? {
        return None;
    }
    // The log of HEAD changes with each commit and checkout, also in a worktree, where `.git` is a file.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"])
        && Path::new(&log).exists()
    {
        println!("cargo::rerun-if-changed={log}");
    }
    git(&["rev-parse", "--short=12", "HEAD"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok().map(|text| text.trim().to_owned())
}
