//! Handing a session's KV cache over to another server, piece by piece, while the session runs.

use std::time::Duration;

use swarm_protocol::p2p::Network;
use swarm_protocol::wire::{HandOver, SessionReply, SessionRequest};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::feed_out::{incoming, open};
use super::visit::{Piece, Visit};
use crate::serve::metrics;

/// How long the other server may take to be dialled, and to store one piece: 4 MiB of keys and values and as much of
/// outputs at 500 kB/s, and a step of others' in between.
const PIECE_TIMEOUT: Duration = Duration::from_secs(20);

/// The pieces would not belong together.
const REWOUND: &str = "the session was rewound meanwhile";

/// Hands over what the session behind `visits` holds, until nothing is left to send.
///
/// # Errors
/// Why it came to nothing, for the session's owner.
pub(super) async fn hand_over(
    (network, bytes): (Network, metrics::Way),
    order: HandOver,
    visits: mpsc::Sender<Visit>,
) -> Result<(), String> {
    let HandOver { link, to } = order;
    let opening = open(&network, &to, SessionRequest::Import(incoming(&to, link)));
    let opened = timeout(PIECE_TIMEOUT, opening).await.map_err(|_| too_long())?;
    let (mut reader, mut writer) = opened?;
    reader.count_into(&bytes.into);
    writer.count_into(&bytes.out);
    let (mut stored, mut epoch) = (0, None);
    while let Some((header, bytes)) = next_piece(&visits, stored).await? {
        if *epoch.get_or_insert(header.epoch) != header.epoch {
            // What was sent before may be of positions that have changed since.
            return Err(REWOUND.to_string());
        }
        let sent = async {
            writer.send(&SessionRequest::Kv(header), &bytes).await.map_err(|error| error.to_string())?;
            match reader.next().await {
                Ok(Some((SessionReply::Received { position }, _))) => Ok(position as usize),
                Ok(_) => Err("the other server stopped taking the KV cache in".to_string()),
                Err(error) => Err(error.to_string()),
            }
        };
        let position = timeout(PIECE_TIMEOUT, sent).await.map_err(|_| too_long())??;
        if position <= stored {
            return Err("the other server does not store what it is sent".to_string());
        }
        stored = position;
    }
    // It has stored everything; how the stream ends is no matter.
    let _ = writer.close().await;
    Ok(())
}

fn too_long() -> String {
    format!("the other server took longer than {PIECE_TIMEOUT:?}")
}

async fn next_piece(visits: &mpsc::Sender<Visit>, from: usize) -> Result<Option<Piece>, String> {
    let gone = || "the session ended".to_string();
    let (reply, piece) = oneshot::channel();
    visits.send(Visit::Export { from, reply }).await.map_err(|_| gone())?;
    piece.await.map_err(|_| REWOUND.to_string())
}
