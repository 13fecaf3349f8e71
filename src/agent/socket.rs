//! Requests to an agent on the node itself: a socket in the state directory. One line in, one line out: `leave`, `reload`, or `set` and
//! a JSON object of variables (`null` = the node goes without that one).

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt as _, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::host::{ChangeRequest, LeaveRequest, SetVariables};

/// The socket's name in the state directory.
pub const SOCKET: &str = "agent.sock";
/// Whoever connects must say what he wants within this.
const SAY_LIMIT: Duration = Duration::from_secs(5);
/// A request is at most this long: twice what a label may hold.
const REQUEST_BYTES_MAX: u64 = 128 * 1024;

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
    /// It did not change what it was asked to change.
    #[error("the agent changed nothing: {0}")]
    NotChanged(String),
}

/// Where requests go.
#[derive(Debug, Clone)]
pub(super) struct Requests {
    /// To leave.
    pub leave: mpsc::Sender<LeaveRequest>,
    /// To change something.
    pub change: mpsc::Sender<ChangeRequest>,
}

/// A path of a socket may have 107 bytes, that of a state directory more: through the open directory it is always short.
fn with_short_path<T>(dir: &Path, act: impl FnOnce(&Path) -> std::io::Result<T>) -> std::io::Result<T> {
    let open = std::fs::File::open(dir)?;
    act(&PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", open.as_raw_fd())))
}

/// Serves the socket. The state directory is locked: a socket that is there is a dead agent's.
pub(super) fn serve(dir: &Path, requests: Requests) -> std::io::Result<JoinHandle<()>> {
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

async fn handle(stream: UnixStream, requests: Requests) {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let (written, delivered) = oneshot::channel();
    let said = timeout(SAY_LIMIT, BufReader::new(read.take(REQUEST_BYTES_MAX)).read_line(&mut line)).await;
    let (word, rest) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
    let answer = match (said, word) {
        (Ok(Ok(_)), "leave") => {
            let (reply, answer) = oneshot::channel();
            let sent = requests.leave.send(LeaveRequest { reply, delivered }).await.is_ok();
            answered(sent, answer).await.map(|()| "left".to_owned())
        }
        (Ok(Ok(_)), "reload") => ask(&requests, ChangeRequest::Reload).await,
        (Ok(Ok(_)), "set") => match serde_json::from_str::<SetVariables>(rest) {
            Ok(variables) => ask(&requests, |reply| ChangeRequest::Set(variables, reply)).await,
            Err(error) => Err(format!("what is to be set is no JSON object of texts: {error}")),
        },
        _ => Err("only leave, reload and set are understood".into()),
    };
    let text = match answer {
        Ok(text) => format!("{text}\n"),
        Err(text) => format!("error: {text}\n"),
    };
    // Whoever asked may have gone.
    let _ = write.write_all(text.as_bytes()).await;
    let _ = written.send(());
}

async fn ask(
    requests: &Requests,
    request: impl FnOnce(oneshot::Sender<Result<String, String>>) -> ChangeRequest,
) -> Result<String, String> {
    let (reply, answer) = oneshot::channel();
    let sent = requests.change.send(request(reply)).await.is_ok();
    answered(sent, answer).await.map(|text| format!("done: {text}"))
}

async fn answered<T>(sent: bool, answer: oneshot::Receiver<Result<T, String>>) -> Result<T, String> {
    let gone = || Err("the agent is ending already".into());
    if sent { answer.await.unwrap_or_else(|_| gone()) } else { gone() }
}

/// Asks the agent that runs with this state directory to read its settings again. What has changed, in one line.
///
/// # Errors
/// [`LeaveError`]
pub async fn request_reload(dir: &Path) -> Result<String, LeaveError> {
    changed(exchange(dir, "reload").await?)
}

/// Asks the agent that runs with this state directory to set variables, on top of its settings and until it ends. What has changed,
/// in one line.
///
/// # Errors
/// [`LeaveError`]
pub async fn request_set(dir: &Path, variables: &SetVariables) -> Result<String, LeaveError> {
    let json = serde_json::to_string(variables).map_err(|error| LeaveError::NotChanged(error.to_string()))?;
    changed(exchange(dir, &format!("set {json}")).await?)
}

fn changed(answer: String) -> Result<String, LeaveError> {
    match answer.strip_prefix("done: ") {
        Some(text) => Ok(text.to_owned()),
        None => Err(LeaveError::NotChanged(complaint(&answer))),
    }
}

/// Asks the agent that runs with this state directory to leave, and waits until it has.
///
/// # Errors
/// [`LeaveError`]
pub async fn request_leave(dir: &Path) -> Result<(), LeaveError> {
    match exchange(dir, "leave").await?.as_str() {
        "left" => Ok(()),
        text => Err(LeaveError::NotDone(complaint(text))),
    }
}

fn complaint(answer: &str) -> String {
    match answer {
        "" => "it ended without an answer".into(),
        text => text.strip_prefix("error: ").unwrap_or(text).to_owned(),
    }
}

/// Sends a line and reads the answer.
async fn exchange(dir: &Path, request: &str) -> Result<String, LeaveError> {
    let no_agent = |source| LeaveError::NoAgent { dir: dir.to_owned(), source };
    let stream = with_short_path(dir, |path| std::os::unix::net::UnixStream::connect(path)).map_err(no_agent)?;
    stream.set_nonblocking(true).map_err(no_agent)?;
    let stream = UnixStream::from_std(stream).map_err(no_agent)?;
    let (read, mut write) = stream.into_split();
    let not_done = |error: std::io::Error| LeaveError::NotDone(error.to_string());
    write.write_all(format!("{request}\n").as_bytes()).await.map_err(not_done)?;
    let mut line = String::new();
    BufReader::new(read).read_line(&mut line).await.map_err(not_done)?;
    Ok(line.trim().to_owned())
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
        let (leave, mut requests) = mpsc::channel(1);
        let (change, mut changes) = mpsc::channel(1);
        let task = serve(&dir, Requests { leave, change }).unwrap();
        let agent = tokio::spawn(async move {
            requests.recv().await.unwrap().reply.send(Err("etcd is away".into())).unwrap();
            requests.recv().await.unwrap().reply.send(Ok(())).unwrap();
        });
        let error = request_leave(&dir).await.unwrap_err();
        assert_eq!(error.to_string(), "the agent did not leave: etcd is away");
        request_leave(&dir).await.unwrap();
        agent.await.unwrap();
        let agent = tokio::spawn(async move {
            let Some(ChangeRequest::Set(variables, reply)) = changes.recv().await else { panic!("no set") };
            reply.send(Ok(format!("{variables:?}"))).unwrap();
            let Some(ChangeRequest::Reload(reply)) = changes.recv().await else { panic!("no reload") };
            reply.send(Err("line 3 is not K=V".into())).unwrap();
        });
        let wanted = SetVariables::from([("gpu".into(), None), ("zone".into(), Some("eu-2".into()))]);
        assert_eq!(request_set(&dir, &wanted).await.unwrap(), format!("{wanted:?}"));
        let error = request_reload(&dir).await.unwrap_err();
        assert_eq!(error.to_string(), "the agent changed nothing: line 3 is not K=V");
        agent.await.unwrap();
        task.abort();
    }
}
