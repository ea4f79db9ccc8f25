//! The writing half of a session.

use std::time::Duration;

use swarm_protocol::p2p::FrameWriter;
use swarm_protocol::wire::SessionReply;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::debug;

/// Replies that may wait for the connection: an output and a word about each step in flight, a pong, and a last word.
const REPLY_CAPACITY: usize = 8;

/// How long one frame may take to be written: a chunk of 4 MiB at 100 kB/s. A client that takes longer is as good as gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(40);

/// How long the last replies may take when the session is over.
const FINISH_TIMEOUT: Duration = Duration::from_secs(2);

/// Queues replies; a task of its own writes them.
pub(super) struct Replies {
    queue: mpsc::Sender<(SessionReply, Vec<u8>)>,
    writer: JoinHandle<()>,
}

impl Replies {
    pub(super) fn start(writer: FrameWriter<SessionReply>) -> Self {
        let (queue, replies) = mpsc::channel(REPLY_CAPACITY);
        Self { queue, writer: tokio::spawn(write(writer, replies)) }
    }

    /// Queues a reply with its rows; waits while the connection is slower than the session. `false` if the connection
    /// is gone.
    pub(super) async fn send(&self, reply: SessionReply, rows: Vec<u8>) -> bool {
        self.queue.send((reply, rows)).await.is_ok()
    }

    /// Waits until there is room for one more reply.
    pub(super) async fn has_room(&self) {
        // A connection that is gone shows itself elsewhere.
        drop(self.queue.reserve().await);
    }

    /// Room for one more reply, if there is some now.
    pub(super) fn room_now(&self) -> Option<mpsc::Permit<'_, (SessionReply, Vec<u8>)>> {
        self.queue.try_reserve().ok()
    }

    /// Resolves when nothing can be written any more.
    pub(super) async fn broken(&self) {
        self.queue.closed().await;
    }

    /// Writes what is queued and ends the stream.
    pub(super) async fn finish(self) {
        let Self { queue, mut writer } = self;
        drop(queue);
        if timeout(FINISH_TIMEOUT, &mut writer).await.is_err() {
            writer.abort();
        }
    }
}

async fn write(mut writer: FrameWriter<SessionReply>, mut replies: mpsc::Receiver<(SessionReply, Vec<u8>)>) {
    while let Some((reply, rows)) = replies.recv().await {
        match timeout(WRITE_TIMEOUT, writer.send(&reply, &rows)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return debug!(%error, "a reply could not be written"),
            Err(_) => return debug!("a client does not read its replies"),
        }
    }
    // The client may have closed first.
    let _ = timeout(FINISH_TIMEOUT, writer.close()).await;
}
