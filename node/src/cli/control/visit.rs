//! The visitor's end.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::future::join_all;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Take};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Instant, timeout_at};

use super::{ANSWER_WITHIN, About, Found, MAX_LINE, Reply, Request, folder};

/// How long a server may take beyond what it gives its sessions: to begin, to withdraw its announcements, to tell its
/// sessions that it has left, and to close its connections.
const FAREWELL: Duration = Duration::from_secs(30);

/// The longest that sessions are waited for, whatever a server says.
const LONGEST_DRAIN: Duration = Duration::from_secs(7 * 86_400);

/// The servers of this user on this machine. Sockets that dead ones have left behind are removed.
pub(crate) async fn find() -> Vec<Found> {
    let look = |(socket, pid): (PathBuf, u32)| async move {
        match ask(&socket).await {
            Ok(about) => Some(Found { socket, pid, about: Some(about) }),
            Err(error) if is_nobody(&error) => {
                // It may have been removed meanwhile; what remains is found again.
                let _ = fs::remove_file(&socket);
                None
            }
            Err(_) => Some(Found { socket, pid, about: None }),
        }
    };
    join_all(folder::sockets().into_iter().map(look)).await.into_iter().flatten().collect()
}

/// Nobody listens on a socket: its process has ended.
fn is_nobody(error: &anyhow::Error) -> bool {
    let gone = |error: &io::Error| matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound);
    error.downcast_ref().is_some_and(gone)
}

async fn ask(socket: &Path) -> Result<About> {
    let until = Instant::now() + ANSWER_WITHIN;
    let mut talk = Talk::begin(socket, Request::About, until).await?;
    match talk.next(until).await.context("it does not answer")?? {
        Some(Reply::About(about)) => Ok(about),
        _ => bail!("it does not say who it is"),
    }
}

/// Lets a server leave and waits until its process has ended; `tell` is called with what happens on the way.
///
/// # Errors
/// If it does not leave in time, or ends otherwise.
pub(crate) async fn drain(found: &Found, tell: impl Fn(&Reply)) -> Result<()> {
    let start = Instant::now();
    // Something is said at once, whatever it is.
    let mut until = start + ANSWER_WITHIN;
    let mut talk = Talk::begin(&found.socket, Request::Drain, until).await?;
    loop {
        let waited = until.duration_since(start).as_secs();
        let Some(next) = talk.next(until).await else {
            bail!("it does not answer, or has not left, after {waited} s; kill {} ends it at once", found.pid);
        };
        match next? {
            Some(Reply::Failed { reason }) => bail!("it ended with an error: {reason}"),
            Some(Reply::Left) => break,
            Some(reply) => {
                let running = match reply {
                    Reply::Leaving { within_ms, .. } => Duration::from_millis(within_ms).min(LONGEST_DRAIN),
                    _ => Duration::ZERO,
                };
                until = Instant::now() + running + FAREWELL;
                tell(&reply);
            }
            None => bail!("its process ended before it had left; what it did is in its own output"),
        }
    }
    talk.end(Instant::now() + FAREWELL).await;
    Ok(())
}

/// A visit.
struct Talk {
    replies: BufReader<Take<OwnedReadHalf>>,
    /// Open as long as the visit lasts.
    _requests: OwnedWriteHalf,
}

impl Talk {
    async fn begin(socket: &Path, request: Request, until: Instant) -> Result<Self> {
        let begin = async {
            let (replies, mut requests) = UnixStream::connect(socket).await?.into_split();
            requests.write_all(format!("{}\n", serde_json::to_string(&request)?).as_bytes()).await?;
            Ok(Self { replies: BufReader::new(replies.take(MAX_LINE)), _requests: requests })
        };
        timeout_at(until, begin).await.unwrap_or_else(|_| bail!("it does not answer"))
    }

    /// The next reply, nothing in it at the end; `None` if none comes in time.
    async fn next(&mut self, until: Instant) -> Option<Result<Option<Reply>>> {
        let mut line = String::new();
        let read = timeout_at(until, self.replies.read_line(&mut line)).await.ok()?;
        Some(read.map_err(Into::into).and_then(|read| match read {
            0 => Ok(None),
            _ => serde_json::from_str(&line).map(Some).context("it says what no server of this version says"),
        }))
    }

    /// Waits until the other end is closed, which the server's process leaves to its own end.
    async fn end(mut self, until: Instant) {
        let mut rest = Vec::new();
        // How it left has been said; that the process is gone a moment later changes nothing.
        let _ = timeout_at(until, self.replies.read_to_end(&mut rest)).await;
    }
}
