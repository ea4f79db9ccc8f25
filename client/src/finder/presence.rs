//! On which servers this client's sessions are, or are about to be: sessions that begin together spread over replicas.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use swarm_protocol::PeerId;

/// What a further session adds to the time of a step on a server, as a share of a step of its own: steps that wait at the
/// same time are computed together, so far less than all of it, and enough to tell equal servers apart.
pub(super) const SHARE: u32 = 4;

/// How many of this client's hops each server computes.
#[derive(Debug, Clone, Default)]
pub(super) struct Presence(Arc<Mutex<HashMap<PeerId, u32>>>);

impl Presence {
    /// There is one more, until what is given back goes away.
    pub(super) fn enter(&self, peer: PeerId) -> Present {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(peer).or_default() += 1;
        Present { peer, presence: self.clone() }
    }

    /// As it is now.
    pub(super) fn counts(&self) -> HashMap<PeerId, u32> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// One hop of a session of this client, or of a plan for one.
pub(crate) struct Present {
    peer: PeerId,
    presence: Presence,
}

impl Present {
    pub(super) fn peer(&self) -> PeerId {
        self.peer
    }
}

impl Clone for Present {
    fn clone(&self) -> Self {
        self.presence.enter(self.peer)
    }
}

impl fmt::Debug for Present {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Present").field(&self.peer).finish()
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        let mut counts = self.presence.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.peer) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_goes_away_is_counted_no_more() {
        let (presence, peer) = (Presence::default(), PeerId::random());
        let one = presence.enter(peer);
        let two = one.clone();
        assert_eq!(presence.counts(), HashMap::from([(peer, 2)]));
        drop(one);
        assert_eq!(presence.counts(), HashMap::from([(peer, 1)]));
        drop(two);
        assert_eq!(presence.counts(), HashMap::new());
    }
}
