//! Turns at a service that anybody may ask: so many at a time, and of each peer so many.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use swarm_protocol::PeerId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Counts turns; clones share.
#[derive(Debug, Clone)]
pub(super) struct Turns {
    all: Arc<Semaphore>,
    of_peer: usize,
    /// Of the peers that have a turn or wait for one.
    peers: Arc<Mutex<HashMap<PeerId, Arc<Semaphore>>>>,
}

/// A turn; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    _own: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

/// Peers remembered before those without a turn are forgotten.
const MOST_PEERS: usize = 256;

impl Turns {
    /// `all` at a time, `of_peer` of one peer.
    pub(super) fn new(all: usize, of_peer: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(all)), of_peer, peers: Arc::default() }
    }

    /// Waits for a turn: behind the peer's own, then behind everybody's. `None` never, while the service runs.
    pub(super) async fn take(&self, peer: PeerId) -> Option<Turn> {
        let own = self.own(peer).acquire_owned().await.ok()?;
        let of_all = self.all.clone().acquire_owned().await.ok()?;
        Some(Turn { _own: own, _of_all: of_all })
    }

    fn own(&self, peer: PeerId) -> Arc<Semaphore> {
        let mut peers = self.peers();
        if peers.len() >= MOST_PEERS {
            // Whoever has a turn or waits for one holds the semaphore too.
            peers.retain(|_, own| Arc::strong_count(own) > 1);
        }
        peers.entry(peer).or_insert_with(|| Arc::new(Semaphore::new(self.of_peer))).clone()
    }

    fn peers(&self) -> std::sync::MutexGuard<'_, HashMap<PeerId, Arc<Semaphore>>> {
        // Nothing in here panics half-way.
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn one_peer_leaves_turns_to_others_and_nothing_is_left_behind() {
        let turns = Turns::new(3, 2);
        let (greedy, other) = (PeerId::random(), PeerId::random());
        let first = turns.take(greedy).await.unwrap();
        let _second = turns.take(greedy).await.unwrap();
        assert!(turns.take(greedy).now_or_never().is_none());
        let third = turns.take(other).await.unwrap();
        assert!(turns.take(PeerId::random()).now_or_never().is_none(), "all turns are taken");
        drop(first);
        drop(third);
        assert!(turns.take(greedy).now_or_never().is_some());
        for _ in 0..MOST_PEERS {
            drop(turns.take(PeerId::random()).await);
        }
        assert!(turns.peers().len() <= MOST_PEERS && turns.peers().contains_key(&greedy));
    }
}
