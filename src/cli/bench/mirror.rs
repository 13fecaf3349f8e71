//! `etcdctl make-mirror` on the same data, for people: what they would use without enlist.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::Command;
use tokio::time::sleep;

use super::numbers::rate;
use super::place::Place;
use super::progress::Bar;
use crate::agent::os::spawner::spawn;
use crate::store::api::{KeyRange, RangeRequest};

/// What it has copied by then gives the rate.
const LIMIT: Duration = Duration::from_secs(120);
/// Counting costs etcd something, too.
const LOOK: Duration = Duration::from_millis(200);
/// Where it copies to.
const INTO: &str = "/make-mirror/";

/// Keys a second of a first copy; `None` = etcdctl is not there, or the etcds are not private ones.
///
/// # Errors
/// When it cannot be started, or nothing can be counted.
pub async fn make_mirror(source: &Place, destination: &Place, keys: usize) -> anyhow::Result<Option<f64>> {
    let (Some(from), Some(to), Some(etcdctl)) = (source.private_endpoint(), destination.private_endpoint(), etcdctl()) else {
        return Ok(None);
    };
    let site = destination.site()?;
    let folder = source.site()?.prefix.folder("nodes").start;
    let mut command = Command::new(etcdctl);
    command.args(["--endpoints", from, "make-mirror", "--prefix", &String::from_utf8_lossy(folder.as_bytes())]);
    command.args(["--dest-prefix", INTO, to]).env("ETCDCTL_API", "3");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let bar = Bar::new("etcdctl make-mirror", keys);
    let began = Instant::now();
    let mut process = spawn(command).await?;
    loop {
        sleep(LOOK).await;
        let request = RangeRequest { count_only: true, ..RangeRequest::all(KeyRange::prefix(INTO)) };
        let count = usize::try_from(site.store.range(request).await?.count).unwrap_or(0);
        bar.set(count);
        if count >= keys || began.elapsed() > LIMIT {
            let reached = rate(count, began.elapsed());
            let _ = process.child.kill().await;
            return Ok((count > 0).then_some(reached));
        }
    }
}

fn etcdctl() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join("etcdctl")).find(|file| file.is_file())
}
