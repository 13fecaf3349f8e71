//! The state directory: who this installation is, which runs it has seen, what is applied.
//!
//! | file | what |
//! |---|---|
//! | `lock` | locked (flock) while an agent runs; holds its process id |
//! | `instance` | this installation's name, random |
//! | `runs.json` | the last runs with boot id and this directory's device and inode |
//! | `applied.json` | the assignment that is applied |
//! | `last-word.json` | the status that an agent wrote when it ended, and its revision |
//! | `registered` | present = a process joined, and no last word of it was acknowledged since |
//! | `agent.sock` | `enlist leave`, `enlist reload`, `enlist agent --set` |

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::agent::decide::applied::Applied;
use crate::agent::decide::identity::{Place, RecordedRun};
use crate::agent::decide::word::Word;
use crate::agent::host::{HostError, Opened};
use crate::model::assignment::Assignment;
use crate::model::label::Holding;
use crate::model::names::{InstanceId, Revision};
use crate::store::wire::Stored;

/// A status in the store can only be that of a run that joined lately; crash loops may put others in between.
const RUNS_MAX: usize = 100;

/// The file that says that a process joined.
const REGISTERED: &str = "registered";

/// A locked state directory.
#[derive(Debug)]
pub struct StateDir {
    dir: PathBuf,
    _lock: Flock<File>,
}

#[derive(Default, Serialize, Deserialize)]
struct Runs {
    v: u64,
    runs: Vec<Run>,
}

#[derive(Serialize, Deserialize)]
struct Run {
    run: String,
    boot: String,
    device: u64,
    inode: u64,
}

#[derive(Serialize, Deserialize)]
struct AppliedFile {
    v: u64,
    cluster: String,
    revision: Revision,
    assignment: serde_json::Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answered: Option<HoldingFile>,
}

#[derive(Serialize, Deserialize)]
struct WordFile {
    v: u64,
    node: String,
    run: String,
    revision: Revision,
    left: bool,
}

#[derive(Serialize, Deserialize)]
struct HoldingFile {
    generation: Revision,
    addresses: Vec<std::net::IpAddr>,
    ports: std::collections::BTreeMap<String, u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mark: Option<String>,
}

impl StateDir {
    /// Makes the directory if needed, locks it, and records a new run.
    ///
    /// # Errors
    /// [`HostError::Locked`] when another agent has it; else what the file system says, with the path.
    pub fn open(dir: &Path, wanted: Option<InstanceId>) -> Result<(StateDir, Opened), HostError> {
        let at = |what: &str| format!("state directory {}: {what}", dir.display());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| HostError::failed(at("cannot be made"), e))?;
        let lock = lock(dir)?;
        let meta = fs::metadata(dir).map_err(|e| HostError::failed(at("cannot be read"), e))?;
        let place = Place { device: meta.dev(), inode: meta.ino() };
        let state = StateDir { dir: dir.to_owned(), _lock: lock };
        let instance = state.instance(wanted)?;
        let boot =
            read_kernel("/proc/sys/kernel/random/boot_id")?.parse().map_err(|e| HostError::failed("the kernel's boot id", e))?;
        let run = random_token()?.parse().map_err(|e| HostError::failed("a random run", e))?;
        let mut runs = state.runs();
        runs.push(RecordedRun { run, boot, place });
        let surplus = runs.len().saturating_sub(RUNS_MAX);
        runs.drain(..surplus);
        state.record(&runs)?;
        let RecordedRun { run, boot, .. } = runs.last().cloned().ok_or_else(|| HostError::Failed(at("no run")))?;
        let applied = state.applied();
        let registered = state.dir.join(REGISTERED).exists();
        Ok((state, Opened { instance, run, boot, place, runs, applied, registered }))
    }

    /// Records whether a process joined and no last word of it was acknowledged since.
    ///
    /// # Errors
    /// What the file system says, with the path.
    pub fn remember_registered(&self, registered: bool) -> Result<(), HostError> {
        let path = self.dir.join(REGISTERED);
        let result = if registered { replace(&path, b"") } else { remove(&path) };
        result.map_err(|error| HostError::failed(path.display(), error))
    }

    /// Records what is applied; `None` = nothing.
    ///
    /// # Errors
    /// What the file system says, with the path.
    pub fn remember(&self, applied: Option<&Applied>) -> Result<(), HostError> {
        let path = self.dir.join("applied.json");
        let Some(applied) = applied else {
            return match fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(HostError::failed(path.display(), error)),
                _ => Ok(()),
            };
        };
        let assignment =
            serde_json::from_slice(&applied.assignment.encode()).map_err(|e| HostError::failed("the assignment", e))?;
        let file = AppliedFile {
            v: 1,
            cluster: format!("{:x}", applied.cluster_id),
            revision: applied.mod_revision,
            assignment,
            answered: applied.answered.as_ref().map(|held| HoldingFile {
                generation: held.generation,
                addresses: held.addresses.clone(),
                ports: held.ports.iter().map(|(name, port)| (name.to_string(), *port)).collect(),
                mark: held.mark.map(|mark| mark.to_string()),
            }),
        };
        write_json(&path, &file)
    }

    /// Records the last status that was written.
    ///
    /// # Errors
    /// What the file system says, with the path.
    pub fn remember_word(&self, word: &Word) -> Result<(), HostError> {
        let (node, run) = (word.node.to_string(), word.run.to_string());
        let file = WordFile { v: 1, node, run, revision: word.revision, left: word.left };
        write_json(&self.dir.join("last-word.json"), &file)
    }

    /// It, if there is one that can be read.
    pub fn last_word(&self) -> Option<Word> {
        let file: WordFile = serde_json::from_slice(&fs::read(self.dir.join("last-word.json")).ok()?).ok()?;
        Some(Word { node: file.node.parse().ok()?, run: file.run.parse().ok()?, revision: file.revision, left: file.left })
    }

    fn instance(&self, wanted: Option<InstanceId>) -> Result<InstanceId, HostError> {
        let path = self.dir.join("instance");
        let stored = match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse::<InstanceId>().ok(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(HostError::failed(path.display(), error)),
        };
        if let (Some(stored), None) = (&stored, &wanted) {
            return Ok(stored.clone());
        }
        let instance = match wanted {
            Some(wanted) => wanted,
            None => random_token()?.parse().map_err(|e| HostError::failed("a random instance", e))?,
        };
        if stored.as_ref() != Some(&instance) {
            replace(&path, format!("{instance}\n").as_bytes()).map_err(|e| HostError::failed(path.display(), e))?;
        }
        Ok(instance)
    }

    /// Unreadable runs are forgotten: the only loss is that a restart after a crash waits for its own lease to run out.
    fn runs(&self) -> Vec<RecordedRun> {
        let stored: Runs =
            fs::read(self.dir.join("runs.json")).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        let run = |run: Run| {
            let place = Place { device: run.device, inode: run.inode };
            Some(RecordedRun { run: run.run.parse().ok()?, boot: run.boot.parse().ok()?, place })
        };
        stored.runs.into_iter().filter_map(run).collect()
    }

    fn record(&self, runs: &[RecordedRun]) -> Result<(), HostError> {
        let run = |run: &RecordedRun| Run {
            run: run.run.to_string(),
            boot: run.boot.to_string(),
            device: run.place.device,
            inode: run.place.inode,
        };
        write_json(&self.dir.join("runs.json"), &Runs { v: 1, runs: runs.iter().map(run).collect() })
    }

    fn applied(&self) -> Option<Applied> {
        let file: AppliedFile = serde_json::from_slice(&fs::read(self.dir.join("applied.json")).ok()?).ok()?;
        let answered = match file.answered {
            None => None,
            Some(held) => Some(Box::new(Holding {
                generation: held.generation,
                addresses: held.addresses,
                ports: held.ports.into_iter().map(|(name, port)| Some((name.parse().ok()?, port))).collect::<Option<_>>()?,
                mark: held.mark.and_then(|mark| mark.parse().ok()),
            })),
        };
        Some(Applied {
            assignment: Assignment::decode(file.assignment.to_string().as_bytes()).ok()?,
            mod_revision: file.revision,
            cluster_id: u64::from_str_radix(&file.cluster, 16).ok()?,
            answered,
        })
    }
}

fn lock(dir: &Path) -> Result<Flock<File>, HostError> {
    let path = dir.join("lock");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|e| HostError::failed(path.display(), e))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            // For the message of whoever comes second.
            let _ = lock.set_len(0).and_then(|()| lock.write_all(format!("{}\n", std::process::id()).as_bytes()));
            Ok(lock)
        }
        Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
            let mut owner = String::new();
            let _ = file.read_to_string(&mut owner);
            Err(HostError::Locked(format!(
                "another agent (process {}) runs with the state directory {}",
                owner.trim(),
                dir.display()
            )))
        }
        Err((_, error)) => Err(HostError::failed(path.display(), error)),
    }
}

fn read_kernel(path: &str) -> Result<String, HostError> {
    fs::read_to_string(path).map(|text| text.trim().to_owned()).map_err(|e| HostError::failed(path, e))
}

/// 122 random bits, by the kernel.
fn random_token() -> Result<String, HostError> {
    read_kernel("/proc/sys/kernel/random/uuid")
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<(), HostError> {
    let bytes = serde_json::to_vec(value).map_err(|e| HostError::failed(path.display(), e))?;
    replace(path, &bytes).map_err(|e| HostError::failed(path.display(), e))
}

/// Removes a file, durably; one that is not there needs none.
fn remove(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all(),
    }
}

/// Replaces a file atomically and durably: whoever reads sees the old or the new content, also after a power cut.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(bytes)?;
    finish_replace(file, path, dir)
}

/// The second half of a replacement: to disk, then into place.
pub(super) fn finish_replace(file: tempfile::NamedTempFile, path: &Path, dir: &Path) -> std::io::Result<()> {
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::agent::decide::fixtures;

    #[test]
    fn instance_runs_and_what_is_applied_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/state");
        let (state, first) = StateDir::open(&path, None).unwrap();
        assert!(matches!(StateDir::open(&path, None), Err(HostError::Locked(_))));
        let mut applied = fixtures::applied(fixtures::bound(8, "10.0.0.1", &[("http", 80)]));
        applied.answered = applied.holding();
        applied.cluster_id = u64::MAX;
        state.remember(Some(&applied)).unwrap();
        assert_eq!(state.last_word(), None);
        let word = Word { node: "edge-7".parse().unwrap(), run: first.run.clone(), revision: Revision(9), left: true };
        state.remember_word(&word).unwrap();
        assert!(!first.registered);
        state.remember_registered(true).unwrap();
        drop(state);

        let (state, second) = StateDir::open(&path, None).unwrap();
        assert_eq!(second.instance, first.instance);
        assert_ne!(second.run, first.run);
        assert_eq!(second.runs.len(), 2);
        assert_eq!(second.runs[0].run, first.run);
        assert_eq!(second.place, first.place);
        assert_eq!((second.applied, state.last_word()), (Some(applied), Some(word)));
        state.remember(None).unwrap();
        state.remember(None).unwrap();
        assert!(second.registered);
        state.remember_registered(false).unwrap();
        state.remember_registered(false).unwrap();
        drop(state);
        let (_, third) = StateDir::open(&path, Some("given".parse().unwrap())).unwrap();
        assert_eq!((third.instance.as_str(), third.applied, third.registered), ("given", None, false));
    }

    #[test]
    fn a_copied_directory_is_another_place() {
        let dir = tempfile::tempdir().unwrap();
        let (original, copy) = (dir.path().join("a"), dir.path().join("b"));
        let (state, first) = StateDir::open(&original, None).unwrap();
        fs::create_dir(&copy).unwrap();
        for file in ["instance", "runs.json"] {
            fs::copy(original.join(file), copy.join(file)).unwrap();
        }
        let (_, second) = StateDir::open(&copy, None).unwrap();
        assert_eq!(second.instance, first.instance);
        assert_ne!(second.place, first.place);
        drop(state);
    }

    #[test]
    fn damaged_files_cost_what_they_held_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["runs.json", "applied.json", "instance", "last-word.json"] {
            fs::write(dir.path().join(file), "{ not json").unwrap();
        }
        let (state, opened) = StateDir::open(dir.path(), None).unwrap();
        assert_eq!((opened.runs.len(), opened.applied, state.last_word()), (1, None, None));
    }
}
