//! Whether other servers of the model hold the same weights.

use std::time::Duration;

use futures::future::join_all;
use rand::seq::SliceRandom;
use swarm_protocol::announcement::Announcement;
use swarm_protocol::block::{BlockIndex, BlockRange};
use swarm_protocol::model_id::BlockDigest;
use swarm_protocol::p2p::{Network, StreamKind};
use swarm_protocol::swarm_view::SwarmView;
use swarm_protocol::wire::{InfoReply, InfoRequest, ServerInfo};
use tokio::time::timeout;
use tracing::debug;

use super::error::ServeError;

/// How many others are asked: a damaged checkpoint shows at the first, and more only cost time in a large swarm.
const MOST_ASKED: usize = 6;

/// How long one may take, dialling included; who is slower is not asked.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(4);

/// Compares `digests` of `blocks` with those of servers that host some of the same.
///
/// # Errors
/// [`ServeError::WeightsDiffer`] for the first that holds other weights.
pub(super) async fn compare_with_others(
    network: &Network,
    view: &SwarmView,
    blocks: BlockRange,
    digests: &[BlockDigest],
) -> Result<(), ServeError> {
    let mut overlapping: Vec<&Announcement> = view
        .serving()
        .filter(|server| server.peer != network.peer_id() && server.blocks.intersection(blocks).is_some())
        .collect();
    overlapping.shuffle(&mut rand::rng());
    overlapping.truncate(MOST_ASKED);
    let answers = join_all(overlapping.into_iter().map(|server| describe(network, server))).await;
    for info in answers.into_iter().flatten() {
        let theirs = (info.announcement.blocks, info.digests.as_slice());
        let differing = differing((blocks, digests), theirs);
        if !differing.is_empty() {
            let peer = info.announcement.peer;
            return Err(ServeError::WeightsDiffer { peer, blocks: named(&differing) });
        }
    }
    Ok(())
}

async fn describe(network: &Network, server: &Announcement) -> Option<ServerInfo> {
    let ask = async {
        let stream = network.open(server.peer, &server.addresses, StreamKind::Info).await.ok()?;
        let (mut reader, mut writer) = stream.into_frames::<InfoReply, InfoRequest>(0);
        writer.send(&InfoRequest::Describe, &[]).await.ok()?;
        match reader.next().await.ok()?? {
            (InfoReply::Server(mut info), _) => {
                info.announcement.peer = server.peer;
                Some(*info)
            }
            _ => None,
        }
    };
    let info = timeout(ANSWER_TIMEOUT, ask).await.ok().flatten();
    if info.is_none() {
        debug!(peer = %server.peer, "a server of the same blocks could not be asked for its digests");
    }
    info
}

/// The blocks that both hold and whose digests differ.
fn differing(ours: (BlockRange, &[BlockDigest]), theirs: (BlockRange, &[BlockDigest])) -> Vec<BlockIndex> {
    let digest = |(range, digests): (BlockRange, &[BlockDigest]), block: BlockIndex| {
        digests.get((block.0 - range.start()) as usize).copied()
    };
    let Some(shared) = ours.0.intersection(theirs.0) else {
        return Vec::new();
    };
    let differs = |block: &BlockIndex| match (digest(ours, *block), digest(theirs, *block)) {
        (Some(one), Some(other)) => one != other,
        _ => false,
    };
    shared.blocks().filter(differs).collect()
}

/// ` 3` or `s 3, 4`, behind the word "block".
fn named(blocks: &[BlockIndex]) -> String {
    let list: Vec<String> = blocks.iter().map(BlockIndex::to_string).collect();
    format!("{} {}", if blocks.len() == 1 { "" } else { "s" }, list.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_blocks_that_both_hold_are_compared() {
        let digests =
            |bytes: &[u8]| -> Vec<BlockDigest> { bytes.iter().map(|byte| BlockDigest([*byte; 32])).collect() };
        let range = |a, b| BlockRange::new(a, b).unwrap();
        let (ours, theirs) = (digests(&[0, 1, 2, 3]), digests(&[9, 3, 4]));
        let found = differing((range(0, 4), &ours), (range(2, 5), &theirs));
        assert_eq!(found, [BlockIndex(2)]);
        assert!(differing((range(0, 4), &ours), (range(4, 7), &theirs)).is_empty());
        assert!(differing((range(0, 4), &ours), (range(0, 4), &[])).is_empty());
        assert_eq!(named(&[BlockIndex(2)]), " 2");
        assert_eq!(named(&[BlockIndex(2), BlockIndex(5)]), "s 2, 5");
    }
}
