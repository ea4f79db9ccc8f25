//! Whether other servers of the model hold the same weights.

use std::time::Duration;

use futures::future::join_all;
use rand::seq::SliceRandom;
use swarm_protocol::PeerId;
use swarm_protocol::announcement::Announcement;
use swarm_protocol::block::{BlockIndex, BlockRange};
use swarm_protocol::model_id::{BlockDigest, ModelId};
use swarm_protocol::p2p::{Network, StreamKind};
use swarm_protocol::swarm_view::SwarmView;
use swarm_protocol::wire::{InfoReply, InfoRequest, ServerInfo};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::error::ServeError;

/// How many others are asked: a damaged checkpoint shows at the first, and more only cost time in a large swarm.
const MOST_ASKED: usize = 6;

/// How long one may take, dialling included; who is slower is not asked.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(4);

/// Compares `digests` of `blocks` with those of servers that host some of the same.
///
/// # Errors
/// [`ServeError::WeightsDiffer`] if most of those who answered for a block hold other weights.
pub(super) async fn compare_with_others(
    network: &Network,
    model: ModelId,
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
    let opinions: Vec<Opinion> = answers.into_iter().flatten().filter_map(|info| opinion(model, info)).collect();
    if let Some((peer, blocks)) = outvoted((blocks, digests), &opinions) {
        return Err(ServeError::WeightsDiffer { peer, blocks: named(&blocks) });
    }
    for (peer, blocks) in dissent((blocks, digests), &opinions) {
        warn!(%peer, "this server shows other weights than most in block{}", named(&blocks));
    }
    Ok(())
}

/// What one server says of its weights.
struct Opinion {
    peer: PeerId,
    blocks: BlockRange,
    digests: Vec<BlockDigest>,
}

/// What `info` says of the weights of `model`: nothing if the server serves another one by now.
fn opinion(model: ModelId, info: ServerInfo) -> Option<Opinion> {
    let ServerInfo { announcement, digests, .. } = info;
    (announcement.model == model).then_some(Opinion { peer: announcement.peer, blocks: announcement.blocks, digests })
}

/// Who holds other weights, and of which blocks.
fn dissent(ours: (BlockRange, &[BlockDigest]), opinions: &[Opinion]) -> Vec<(PeerId, Vec<BlockIndex>)> {
    let of_one = |one: &Opinion| (one.peer, differing(ours, (one.blocks, &one.digests)));
    opinions.iter().map(of_one).filter(|(_, blocks)| !blocks.is_empty()).collect()
}

/// The blocks for which most of those who hold them hold other weights, and one of those servers. A single liar thus keeps
/// nobody out where honest servers hold the same.
fn outvoted(ours: (BlockRange, &[BlockDigest]), opinions: &[Opinion]) -> Option<(PeerId, Vec<BlockIndex>)> {
    let dissent = dissent(ours, opinions);
    let lost = |block: &BlockIndex| {
        let against = dissent.iter().filter(|(_, blocks)| blocks.contains(block)).count();
        let asked = opinions.iter().filter(|one| digest((one.blocks, &one.digests), *block).is_some()).count();
        2 * against > asked
    };
    let lost: Vec<BlockIndex> = ours.0.blocks().filter(lost).collect();
    let (peer, _) = dissent.iter().find(|(_, blocks)| blocks.iter().any(|block| lost.contains(block)))?;
    Some((*peer, lost))
}

/// What `server` says of itself; `None` if it does not answer in time.
pub(super) async fn describe(network: &Network, server: &Announcement) -> Option<ServerInfo> {
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

/// The digest of `block`, if it is among those of `range`.
fn digest((range, digests): (BlockRange, &[BlockDigest]), block: BlockIndex) -> Option<BlockDigest> {
    digests.get(block.0.checked_sub(range.start())? as usize).copied()
}

/// The blocks that both hold and whose digests differ.
fn differing(ours: (BlockRange, &[BlockDigest]), theirs: (BlockRange, &[BlockDigest])) -> Vec<BlockIndex> {
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
    use swarm_protocol::announcement::{Load, Rates, ServerState};
    use swarm_protocol::model_id::NumericClass;
    use swarm_protocol::session::TokenCount;

    use super::*;

    fn opinion_of(number: u8, start: u32, digests: &[u8]) -> Opinion {
        let peer = PeerId::from_bytes(&[0, 2, 1, number]).unwrap();
        let blocks = BlockRange::new(start, start + digests.len() as u32).unwrap();
        Opinion { peer, blocks, digests: digests.iter().map(|byte| BlockDigest([*byte; 32])).collect() }
    }

    #[test]
    fn who_serves_another_model_by_now_has_no_say() {
        let info = |model| ServerInfo {
            announcement: Announcement {
                peer: PeerId::random(),
                instance: 0,
                sequence: 1,
                state: ServerState::Serving,
                addresses: Vec::new(),
                model,
                blocks: BlockRange::new(0, 1).unwrap(),
                class: NumericClass::new("x").unwrap(),
                rates: Rates { decode_us_per_block: 1, prefill_ns_per_token_block: 1 },
                load: Load { queue_us: 0, sessions: 0, free_tokens: TokenCount(0), total_tokens: TokenCount(0) },
                neighbours: Vec::new(),
                ttl_seconds: 1,
                name: None,
                version: String::new(),
                edges: false,
            },
            digests: vec![BlockDigest([9; 32])],
            max_positions: 1,
            uptime_seconds: 0,
            edges: None,
        };
        let (ours, another) = (ModelId([1; 32]), ModelId([2; 32]));
        assert!(opinion(ours, info(ours)).is_some());
        assert!(opinion(ours, info(another)).is_none());
    }

    #[test]
    fn a_single_liar_keeps_nobody_out_but_the_majority_does() {
        let ours = opinion_of(0, 0, &[0, 1, 2, 3]);
        let ours = (ours.blocks, ours.digests.as_slice());
        let (honest, liar, other_liar) =
            (opinion_of(1, 0, &[0, 1, 2, 3]), opinion_of(2, 0, &[0, 9, 2]), opinion_of(3, 1, &[8]));
        let verdict = |opinions: &[&Opinion]| {
            let copied = |one: &&Opinion| Opinion { peer: one.peer, blocks: one.blocks, digests: one.digests.clone() };
            outvoted(ours, &opinions.iter().map(copied).collect::<Vec<_>>())
        };
        assert_eq!(verdict(&[]), None);
        assert_eq!(verdict(&[&honest, &liar]), None);
        assert_eq!(verdict(&[&liar]), Some((liar.peer, vec![BlockIndex(1)])), "one of one is a majority");
        assert_eq!(verdict(&[&honest, &other_liar, &liar]), Some((other_liar.peer, vec![BlockIndex(1)])));
        // Who holds other blocks has no say.
        let elsewhere = opinion_of(4, 2, &[2, 3]);
        assert_eq!(verdict(&[&elsewhere, &liar]), Some((liar.peer, vec![BlockIndex(1)])));
    }

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
