//! Looking up what the swarm knows of a model.

use std::collections::HashSet;

use futures::StreamExt;
use futures::stream;
use swarm_protocol::PeerId;
use swarm_protocol::announcement::{MAX_SHARD_BITS, SegmentKey, Shard, Statement, segments};
use swarm_protocol::block::BlockRange;
use swarm_protocol::model_id::ModelId;
use swarm_protocol::p2p::{Found, Network};
use swarm_protocol::swarm_view::SwarmView;
use tracing::debug;

/// Look-ups at once: the largest model has 64 segments, and each look-up asks some twenty peers.
const CONCURRENT_LOOK_UPS: usize = 8;

/// What a look-up found.
pub(super) struct Seen {
    /// The model's servers.
    pub(super) view: SwarmView,
    /// Under how many shard bits they announce, as the directory says; 0 if it is silent.
    pub(super) shard_bits: u8,
    /// Whether it is all that the holders know, as far as they tell; otherwise `view` is a sample.
    pub(super) whole: bool,
}

impl Seen {
    /// How many servers the model has: what is known of one shard, times their number.
    pub(super) fn estimated_servers(&self) -> u32 {
        self.view.estimated_servers().saturating_mul(1 << self.shard_bits.min(MAX_SHARD_BITS))
    }
}

/// Looks up all servers of `model`. Keys that nobody answers for are as good as empty.
pub(super) async fn look(network: &Network, model: ModelId, blocks: BlockRange) -> Seen {
    let shard_bits = shard_bits(network, model).await;
    let keys = segments(blocks)
        .flat_map(|segment| Shard::all(shard_bits).map(move |shard| SegmentKey::segment(model, segment, shard)));
    let answers: Vec<Vec<Found>> =
        stream::iter(keys).map(|key| get(network, key)).buffer_unordered(CONCURRENT_LOOK_UPS).collect().await;
    let whole = answers.iter().all(|found| is_whole(found));
    let mut view = SwarmView::new(model);
    for found in answers.into_iter().flatten() {
        view.saw_total(found.total);
        for statement in found.statements {
            if let Statement::Announcement(announcement) = statement {
                view.insert(announcement);
            }
        }
    }
    Seen { view, shard_bits, whole }
}

/// Whether the answers for one key hold as many servers as any holder knows.
fn is_whole(found: &[Found]) -> bool {
    let known: HashSet<PeerId> = found.iter().flat_map(|found| &found.statements).map(Statement::peer).collect();
    found.iter().all(|found| found.total as usize <= known.len())
}

async fn shard_bits(network: &Network, model: ModelId) -> u8 {
    let found = get(network, SegmentKey::directory()).await;
    let bits = found.into_iter().flat_map(|found| found.statements).filter_map(|statement| match statement {
        Statement::Directory(entry) if entry.model == model => Some(entry.shard_bits),
        _ => None,
    });
    bits.max().unwrap_or(0)
}

async fn get(network: &Network, key: SegmentKey) -> Vec<Found> {
    network.get(key).await.unwrap_or_else(|error| {
        debug!(%error, "a look-up brought nothing");
        Vec::new()
    })
}
