//! A server hands its KV cache of a session over: its stream, from its first message to its end.

use swarm_protocol::PeerId;
use swarm_protocol::p2p::StreamError;
use swarm_protocol::wire::{Incoming, MAX_KV_BYTES, Refusal, SessionReply, SessionRequest};
use tracing::debug;

use super::visit::{ImportIn, Visit, welcomed};
use super::{Reader, Writer, refuse};
use crate::serve::host::Host;

/// Serves the stream by which `peer` hands a KV cache over.
pub(super) async fn serve(host: &Host, peer: PeerId, incoming: Incoming, mut reader: Reader, mut writer: Writer) {
    let Some(import) = welcomed(host, incoming, |link, welcome| Visit::Import { peer, link, welcome }).await else {
        return refuse(host, peer, writer, Refusal::NotExpected).await;
    };
    reader.set_payload_limit(MAX_KV_BYTES as usize + host.shape.max_bytes());
    if writer.send(&SessionReply::Expected, &[]).await.is_err() {
        return;
    }
    let passed_on = pass_on(import, &mut reader, &mut writer).await;
    host.about.metrics.handed_over("in", passed_on.is_ok());
    match passed_on {
        Ok(()) => {
            // The other end may have gone first.
            let _ = writer.close().await;
        }
        Err(StreamError::Frame(error)) => host.broke_the_protocol(peer, &error.to_string()),
        Err(error) => debug!(%peer, session = %incoming.session, %error, "a hand-over broke off"),
    }
}

/// Passes pieces on, each when the one before is stored: so no more than two of them are in memory.
async fn pass_on(import: ImportIn, reader: &mut Reader, writer: &mut Writer) -> Result<(), StreamError> {
    let ImportIn { pieces, mut stored } = import;
    while let Some((SessionRequest::Kv(header), bytes)) = reader.next().await? {
        if pieces.send((header, bytes)).await.is_err() {
            return Ok(());
        }
        let Some(position) = stored.recv().await else {
            return Ok(());
        };
        writer.send(&SessionReply::Received { position }, &[]).await?;
    }
    Ok(())
}
