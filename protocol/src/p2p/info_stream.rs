//! Answering info streams: what every peer that can be asked does alike.

use std::time::Duration;

use libp2p::PeerId;
use tracing::debug;

use super::streams::ByteStream;
use crate::wire::{InfoReply, InfoRequest};

/// How long an info stream may be silent. Clients probe a server they may use every few seconds; one that fell silent
/// opens a new stream at the cost of one round trip.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);

/// Requests on one stream: with a probe a second, a stream lives for hours.
const MAX_REQUESTS: usize = 10_000;

/// Answers one info stream until its opener closes it, falls silent or breaks the protocol. `describe` says what this
/// peer is, now.
pub async fn answer_info(peer: PeerId, stream: ByteStream, describe: impl Fn() -> InfoReply) {
    let (mut reader, mut writer) = stream.into_frames::<InfoRequest, InfoReply>(0);
    for _ in 0..MAX_REQUESTS {
        let request = match tokio::time::timeout(IDLE_TIMEOUT, reader.next()).await {
            Ok(Ok(Some((request, _)))) => request,
            Ok(Ok(None)) | Err(_) => break,
            Ok(Err(error)) => {
                debug!(%peer, %error, "an info stream ended");
                return;
            }
        };
        let reply = match request {
            InfoRequest::Describe => describe(),
            InfoRequest::Ping { nonce } => InfoReply::Pong { nonce },
        };
        let sent = tokio::time::timeout(IDLE_TIMEOUT, writer.send(&reply, &[])).await;
        if !matches!(sent, Ok(Ok(()))) {
            return;
        }
    }
    // The opener may be gone already.
    let _ = writer.close().await;
}
