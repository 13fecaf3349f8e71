//! The folder of a demonstration: created again each time, and never a folder with other data.

use std::fmt;
use std::fs::{self, File};
use std::path::PathBuf;

use anyhow::Context as _;
use nix::fcntl::{Flock, FlockArg};

use crate::cli::exit::Fault;

/// A marker file: `enlist dev` created this folder and may delete its content.
const MARK: &str = "enlist-dev";

/// A folder of `enlist dev`, locked, and empty except for the marker.
pub(super) struct Folder {
    path: PathBuf,
    _lock: Flock<File>,
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.path.display().to_string())
    }
}

impl Folder {
    /// Creates or empties the folder.
    pub(super) fn prepare(given: Option<PathBuf>) -> anyhow::Result<Folder> {
        let path = given.unwrap_or_else(|| PathBuf::from(".enlist/dev"));
        let context = || format!("failed to prepare {}", path.display());
        fs::create_dir_all(&path).with_context(context)?;
        let mark = path.join(MARK);
        let is_empty = fs::read_dir(&path).with_context(context)?.next().is_none();
        if !is_empty && !mark.exists() {
            return Err(Fault::Conflict(format!(
                "{} is not empty and was not made by enlist dev: choose another folder (--data-dir)",
                path.display()
            ))
            .into());
        }
        let file = File::create(&mark).with_context(context)?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| {
            Fault::Conflict(format!("another enlist dev runs in {}: choose another folder (--data-dir)", path.display()))
        })?;
        for entry in fs::read_dir(&path).with_context(context)? {
            let entry = entry.with_context(context)?;
            if entry.file_name() == MARK {
                continue;
            }
            let is_folder = entry.file_type().with_context(context)?.is_dir();
            let removed = if is_folder { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) };
            removed.with_context(context)?;
        }
        Ok(Folder { path, _lock: lock })
    }

    /// Opens the log file.
    pub(super) fn log(&self) -> anyhow::Result<File> {
        let path = self.path.join("enlist.log");
        File::create(&path).with_context(|| format!("failed to create {}", path.display()))
    }

    /// The data directory of the private etcd.
    pub(super) fn etcd(&self) -> PathBuf {
        self.path.join("etcd")
    }

    /// The state directory of a sample node.
    pub(super) fn node(&self, id: &str) -> PathBuf {
        self.path.join("nodes").join(id)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn folder_with_other_data_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("thesis.tex"), "years of work").unwrap();
        assert!(Folder::prepare(Some(root.path().into())).is_err());
        assert!(root.path().join("thesis.tex").exists());
    }

    #[test]
    fn own_folder_is_emptied_and_has_one_user() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b");
        let first = Folder::prepare(Some(path.clone())).unwrap();
        fs::create_dir_all(first.etcd()).unwrap();
        assert!(Folder::prepare(Some(path.clone())).is_err(), "two users at once");
        drop(first);
        let second = Folder::prepare(Some(path)).unwrap();
        assert!(!second.etcd().exists());
    }
}
