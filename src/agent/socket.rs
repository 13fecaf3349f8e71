//! `enlist leave` on the node itself: a socket in the state directory. One line in, one line out.

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::host::LeaveRequest;

/// The socket's name in the state directory.
pub const SOCKET: &str = "agent.sock";
/// Whoever connects must say what he wants within this.
const SAY_LIMIT: Duration = Duration::from_secs(5);

/// Why a leave could not be asked for, or was not done.
#[derive(Debug, thiserror::Error)]
pub enum LeaveError {
    /// No agent listens there.
    #[error("no agent runs with the state directory {}: {source}", dir.display())]
    NoAgent {
        /// The state directory.
        dir: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// It answered with this, or not at all.
    #[error("the agent did not leave: {0}")]
    NotDone(String),
}

/// A path of a socket may have 107 bytes, that of a state directory more: through the open directory it is always short.
fn with_short_path<T>(dir: &Path, act: impl FnOnce(&Path) -> std::io::Result<T>) -> std::io::Result<T> {
    let open = std::fs::File::open(dir)?;
    act(&PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", open.as_raw_fd())))
}

/// Serves the socket. The state directory is locked: a socket that is there is a dead agent's.
pub(super) fn serve(dir: &Path, requests: mpsc::Sender<LeaveRequest>) -> std::io::Result<JoinHandle<()>> {
    let listener = with_short_path(dir, |path| {
        let _ = std::fs::remove_file(path);
        UnixListener::bind(path)
    })?;
    Ok(tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A task of its own: whoever connects and says nothing keeps nobody else waiting, and the answer is still
            // on its way when this listener is gone.
            tokio::spawn(handle(stream, requests.clone()));
        }
    }))
}

async fn handle(stream: UnixStream, requests: mpsc::Sender<LeaveRequest>) {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let (written, delivered) = oneshot::channel();
    let said = timeout(SAY_LIMIT, BufReader::new(read).read_line(&mut line)).await;
    let answer = match (said, line.trim()) {
        (Ok(Ok(_)), "leave") => {
            let (reply, answer) = oneshot::channel();
            match requests.send(LeaveRequest { reply, delivered }).await {
                Ok(()) => answer.await.unwrap_or_else(|_| Err("the agent is ending already".into())),
                Err(_) => Err("the agent is ending already".into()),
            }
        }
        _ => Err("only the word leave is understood".into()),
    };
    let text = match answer {
        Ok(()) => "left\n".to_owned(),
        Err(text) => format!("error: {text}\n"),
    };
    // Whoever asked may have gone.
    let _ = write.write_all(text.as_bytes()).await;
    let _ = written.send(());
}

/// Asks the agent that runs with this state directory to leave, and waits until it has.
///
/// # Errors
/// [`LeaveError`]
pub async fn request_leave(dir: &Path) -> Result<(), LeaveError> {
    let no_agent = |source| LeaveError::NoAgent { dir: dir.to_owned(), source };
    let stream = with_short_path(dir, |path| std::os::unix::net::UnixStream::connect(path)).map_err(no_agent)?;
    stream.set_nonblocking(true).map_err(no_agent)?;
    let stream = UnixStream::from_std(stream).map_err(no_agent)?;
    let (read, mut write) = stream.into_split();
    let not_done = |error: std::io::Error| LeaveError::NotDone(error.to_string());
    write.write_all(b"leave\n").await.map_err(not_done)?;
    let mut line = String::new();
    BufReader::new(read).read_line(&mut line).await.map_err(not_done)?;
    match line.trim() {
        "left" => Ok(()),
        "" => Err(LeaveError::NotDone("it ended without an answer".into())),
        text => Err(LeaveError::NotDone(text.strip_prefix("error: ").unwrap_or(text).to_owned())),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[tokio::test]
    async fn a_leave_is_asked_for_and_answered_however_long_the_path_is() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("d".repeat(200));
        std::fs::create_dir(&dir).unwrap();
        assert!(matches!(request_leave(&dir).await, Err(LeaveError::NoAgent { .. })));
        let (send, mut requests) = mpsc::channel(1);
        let task = serve(&dir, send).unwrap();
        let agent = tokio::spawn(async move {
            requests.recv().await.unwrap().reply.send(Err("etcd is away".into())).unwrap();
            requests.recv().await.unwrap().reply.send(Ok(())).unwrap();
        });
        let error = request_leave(&dir).await.unwrap_err();
        assert_eq!(error.to_string(), "the agent did not leave: etcd is away");
        request_leave(&dir).await.unwrap();
        agent.await.unwrap();
        task.abort();
    }
}
