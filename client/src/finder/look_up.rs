//! Reading the DHT: who says that it serves this model, and which models live here.

use std::collections::BTreeMap;

use futures::future::join_all;
use swarm_protocol::announcement::{DirectoryEntry, SegmentKey, Shard, Statement, segments};
use swarm_protocol::block::BlockRange;
use swarm_protocol::model_id::ModelId;
use swarm_protocol::p2p::{Found, Network};
use swarm_protocol::swarm_view::SwarmView;

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
    let answers = join_all(keys.map(|key| network.get(key))).await;
    answers.into_iter().filter_map(Result::ok).flatten().collect()
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

/// The models that live in the swarm, each by its newest directory entry.
pub async fn models(network: &Network) -> BTreeMap<ModelId, DirectoryEntry> {
    let mut models: BTreeMap<ModelId, DirectoryEntry> = BTreeMap::new();
    let records = network.get(SegmentKey::directory()).await.unwrap_or_default();
    for statement in records.into_iter().flat_map(|found| found.statements) {
        if let Statement::Directory(entry) = statement {
            let newer = models.get(&entry.model).is_none_or(|known| known.sequence < entry.sequence);
            if newer {
                models.insert(entry.model, entry);
            }
        }
    }
    models
}
