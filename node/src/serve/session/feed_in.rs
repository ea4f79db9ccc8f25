//! A server feeds a session: its stream, from its first message to its end.

use std::time::Duration;

use swarm_protocol::PeerId;
use swarm_protocol::p2p::StreamError;
use swarm_protocol::wire::{Incoming, Refusal, SessionReply, SessionRequest};
use tokio::time::interval;
use tracing::debug;

use super::visit::{Fed, FeedIn, Visit, welcomed};
use super::{Reader, Writer, refuse};
use crate::serve::host::Host;

/// How often a sender is told that this server lives, while its step waits for its turn.
const STILL_HERE: Duration = Duration::from_millis(250);

/// Serves the stream by which `peer` feeds a session of this server.
pub(super) async fn serve(host: &Host, peer: PeerId, incoming: Incoming, mut reader: Reader, mut writer: Writer) {
    let Some(feed) = welcomed(host, incoming, |link, welcome| Visit::Feed { peer, link, welcome }).await else {
        return refuse(host, peer, writer, Refusal::NotExpected).await;
    };
    reader.set_payload_limit(host.shape.max_bytes());
    if writer.send(&SessionReply::Expected, &[]).await.is_err() {
        return;
    }
    match pass_on(feed, &mut reader, &mut writer).await {
        Ok(()) => {
            // The other end may have gone first.
            let _ = writer.close().await;
        }
        Err(StreamError::Frame(error)) => host.broke_the_protocol(peer, &error.to_string()),
        Err(error) => debug!(%peer, session = %incoming.session, %error, "a server that fed a session is gone"),
    }
}

/// Passes steps on until the session wants no more, or the stream ends.
async fn pass_on(feed: FeedIn, reader: &mut Reader, writer: &mut Writer) -> Result<(), StreamError> {
    let FeedIn { steps, mut failures } = feed;
    let mut still_here = interval(STILL_HERE);
    let mut received = 0;
    let mut waiting: Option<Fed> = None;
    loop {
        tokio::select! {
            message = reader.next(), if waiting.is_none() => match message? {
                Some((SessionRequest::Step(step), rows)) => {
                    received = step.position.saturating_add(step.rows.rows);
                    writer.send(&SessionReply::Received { position: received }, &[]).await?;
                    waiting = Some((step, rows));
                }
                Some((SessionRequest::Warm(_), _)) => {
                    writer.send(&SessionReply::Received { position: received }, &[]).await?;
                }
                Some(_) | None => return Ok(()),
            },
            room = steps.reserve(), if waiting.is_some() => match (room, waiting.take()) {
                (Ok(room), Some(step)) => room.send(step),
                _ => return Ok(()),
            },
            Some(failure) = failures.recv() => {
                let (epoch, position, error) = (failure.epoch, failure.position, failure.error);
                writer.send(&SessionReply::Failed { epoch, position, error }, &[]).await?;
            }
            _ = still_here.tick(), if waiting.is_some() => {
                writer.send(&SessionReply::Received { position: received }, &[]).await?;
            }
            () = steps.closed() => return Ok(()),
        }
    }
}
