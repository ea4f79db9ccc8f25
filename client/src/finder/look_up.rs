//! Reading the DHT: who says that it serves this model, and which models live here.

use std::collections::BTreeMap;

use futures::StreamExt;
use swarm_protocol::PeerId;
use swarm_protocol::announcement::{DirectoryEntry, SegmentKey, Shard, Statement, segments};
use swarm_protocol::block::BlockRange;
use swarm_protocol::model_id::ModelId;
use swarm_protocol::p2p::{Found, Network};
use swarm_protocol::swarm_view::SwarmView;

/// DHT queries under way at once: a deep model has some sixteen segments.
const QUERIES_AT_ONCE: usize = 16;

/// The servers of `model`, as the DHT's holders know them. What cannot be read is left out: the caller sees a smaller
/// swarm and may look again.
pub async fn look_up(network: &Network, model: ModelId, blocks: BlockRange) -> SwarmView {
    let mut view = SwarmView::new(model);
    let (directory, first) = futures::join!(models(network), segment_records(network, model, blocks, 0));
    absorb(&mut view, first);
    let bits = directory.get(&model).map_or(0, |entry| entry.shard_bits);
    if bits > 0 {
        absorb(&mut view, segment_records(network, model, blocks, bits).await);
    }
    view
}

async fn segment_records(network: &Network, model: ModelId, blocks: BlockRange, bits: u8) -> Vec<Found> {
    let keys = segments(blocks)
        .flat_map(|segment| Shard::all(bits).map(move |shard| SegmentKey::segment(model, segment, shard)));
    let answers = futures::stream::iter(keys.map(|key| network.get(key))).buffer_unordered(QUERIES_AT_ONCE);
    let found: Vec<Vec<Found>> = answers.filter_map(async |answer| answer.ok()).collect().await;
    found.into_iter().flatten().collect()
}

fn absorb(view: &mut SwarmView, records: Vec<Found>) {
    for found in records {
        view.saw_total(found.total);
        for statement in found.statements {
            if let Statement::Announcement(announcement) = statement {
                view.insert(announcement);
            }
        }
    }
}

/// The models that live in the swarm, each by its newest directory entry; over how many shards a model is spread is the
/// median of its voices' words, so that one of them cannot send everybody astray.
pub async fn models(network: &Network) -> BTreeMap<ModelId, DirectoryEntry> {
    let mut voices: BTreeMap<ModelId, BTreeMap<PeerId, DirectoryEntry>> = BTreeMap::new();
    let records = network.get(SegmentKey::directory()).await.unwrap_or_default();
    for statement in records.into_iter().flat_map(|found| found.statements) {
        if let Statement::Directory(entry) = statement {
            voices.entry(entry.model).or_default().insert(entry.peer, entry);
        }
    }
    voices.into_iter().filter_map(|(model, voices)| Some((model, agreed(voices)?))).collect()
}

fn agreed(voices: BTreeMap<PeerId, DirectoryEntry>) -> Option<DirectoryEntry> {
    let mut bits: Vec<u8> = voices.values().map(|entry| entry.shard_bits).collect();
    bits.sort_unstable();
    let median = *bits.get(bits.len().saturating_sub(1) / 2)?;
    let newest = voices.into_values().max_by_key(|entry| entry.sequence)?;
    Some(DirectoryEntry { shard_bits: median, ..newest })
}
