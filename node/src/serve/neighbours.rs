//! How far away the servers are that this one is likely to feed: clients choose routes by it.

use std::collections::HashMap;
use std::time::Duration;

use futures::future::join_all;
use rand::Rng;
use rand::seq::SliceRandom;
use swarm_protocol::PeerId;
use swarm_protocol::announcement::{Announcement, MAX_NEIGHBOURS};
use swarm_protocol::block::{BlockIndex, BlockRange};
use swarm_protocol::p2p::{Network, round_trip};
use swarm_protocol::swarm_view::SwarmView;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// How long a server may take to answer: beyond, it is no likely next hop.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// Of the servers asked, those that were nearest last time; the others are drawn anew, so that nearer ones are found.
const KEPT: usize = MAX_NEIGHBOURS / 2;

/// What was measured: round trips in microseconds, nearest first.
pub(super) type RoundTrips = Vec<(PeerId, u32)>;

/// Measures now and then; ends with its last handle.
#[derive(Debug)]
pub(super) struct Neighbours {
    to_ask: mpsc::Sender<Vec<Announcement>>,
    measured: watch::Receiver<RoundTrips>,
    task: JoinHandle<()>,
}

impl Neighbours {
    /// Nothing measured yet.
    pub(super) fn start(network: Network) -> Self {
        let (to_ask, mut questions) = mpsc::channel::<Vec<Announcement>>(1);
        let (sender, measured) = watch::channel(RoundTrips::new());
        let task = tokio::spawn(async move {
            while let Some(servers) = questions.recv().await {
                sender.send_replace(measure(&network, servers).await);
            }
        });
        Self { to_ask, measured, task }
    }

    /// Measures the way to some of those servers in `view` that could follow a server of `blocks`, unless it still does.
    pub(super) fn look(&self, view: &SwarmView, me: PeerId, blocks: BlockRange) {
        let likely: Vec<Announcement> = likely_next(view, me, blocks).cloned().collect();
        let chosen = choose(likely, &self.measured.borrow(), &mut rand::rng());
        // A round that is still under way is as good.
        let _ = self.to_ask.try_send(chosen);
    }

    /// What was measured last.
    pub(super) fn round_trips(&self) -> RoundTrips {
        self.measured.borrow().clone()
    }
}

impl Drop for Neighbours {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The servers that host the block behind `blocks`.
fn likely_next(view: &SwarmView, me: PeerId, blocks: BlockRange) -> impl Iterator<Item = &Announcement> {
    let next = BlockIndex(blocks.end());
    view.serving().filter(move |server| server.peer != me && server.blocks.contains(next))
}

/// Whom to ask: the nearest of last time, and others at random.
fn choose(mut likely: Vec<Announcement>, last: &RoundTrips, rng: &mut impl Rng) -> Vec<Announcement> {
    let place: HashMap<PeerId, usize> = last.iter().enumerate().map(|(place, (peer, _))| (*peer, place)).collect();
    likely.shuffle(rng);
    // Stable: whoever was not measured keeps its random place behind those that were.
    likely.sort_by_key(|server| place.get(&server.peer).copied().filter(|place| *place < KEPT).unwrap_or(usize::MAX));
    likely.truncate(MAX_NEIGHBOURS);
    likely
}

async fn measure(network: &Network, servers: Vec<Announcement>) -> RoundTrips {
    let asked = servers.iter().map(async |server| {
        let answer = round_trip(network, server.peer, &server.addresses, ANSWER_WITHIN).await;
        answer.ok().map(|rtt| (server.peer, u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX)))
    });
    let mut measured: RoundTrips = join_all(asked).await.into_iter().flatten().collect();
    measured.sort_by_key(|(_, micros)| *micros);
    measured
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use swarm_protocol::Keypair;
    use swarm_protocol::announcement::{Load, Rates, ServerState};
    use swarm_protocol::model_id::{ModelId, NumericClass};
    use swarm_protocol::session::TokenCount;

    use super::*;

    fn server(start: u32, end: u32) -> Announcement {
        Announcement {
            peer: Keypair::generate_ed25519().public().to_peer_id(),
            instance: 1,
            sequence: 1,
            state: ServerState::Serving,
            addresses: vec![],
            model: ModelId([1; 32]),
            blocks: BlockRange::new(start, end).unwrap(),
            class: NumericClass::new("x").unwrap(),
            rates: Rates { decode_us_per_block: 1, prefill_ns_per_token_block: 1 },
            load: Load { queue_us: 0, sessions: 0, free_tokens: TokenCount(1), total_tokens: TokenCount(1) },
            neighbours: vec![],
            ttl_seconds: 240,
            name: None,
            version: String::new(),
            edges: false,
        }
    }

    #[test]
    fn whoever_hosts_the_next_block_is_a_likely_next_hop() {
        let (me, next, over, before) = (server(0, 4), server(4, 8), server(2, 6), server(0, 4));
        let mut view = SwarmView::new(ModelId([1; 32]));
        [&me, &next, &over, &before].into_iter().for_each(|server| view.insert(server.clone()));
        let mut likely: Vec<PeerId> = likely_next(&view, me.peer, me.blocks).map(|server| server.peer).collect();
        likely.sort();
        let mut expected = vec![next.peer, over.peer];
        expected.sort();
        assert_eq!(likely, expected);
        assert_eq!(likely_next(&view, next.peer, next.blocks).count(), 0, "nothing follows the last block");
    }

    #[test]
    fn the_nearest_are_asked_again_and_others_get_their_chance() {
        let likely: Vec<Announcement> = (0..40).map(|_| server(4, 8)).collect();
        let last: RoundTrips =
            likely[..MAX_NEIGHBOURS].iter().zip(1..).map(|(server, rtt)| (server.peer, rtt)).collect();
        let chosen = choose(likely.clone(), &last, &mut StdRng::seed_from_u64(1));
        let peers = |servers: &[Announcement]| servers.iter().map(|server| server.peer).collect::<Vec<_>>();
        assert_eq!(chosen.len(), MAX_NEIGHBOURS);
        assert_eq!(peers(&chosen[..KEPT]), peers(&likely[..KEPT]));
        let other = choose(likely, &last, &mut StdRng::seed_from_u64(2));
        assert_ne!(peers(&chosen[KEPT..]), peers(&other[KEPT..]));
    }
}
