//! Servers that could not reach one another, as sessions of this client found out: remembered for the next ones. Pure: the
//! caller brings the time.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use swarm_protocol::PeerId;

/// How long a pair is remembered: a router that was set up, or a server that moved, is noticed within some minutes; a session
/// finds out anew in some seconds.
const REMEMBERED: Duration = Duration::from_secs(600);

/// The most pairs remembered; far more than the neighbours of all sessions of one client.
const MOST_PAIRS: usize = 1024;

/// Pairs of servers of which the first cannot dial the second.
#[derive(Debug, Default)]
pub(super) struct Apart {
    since: HashMap<(PeerId, PeerId), Instant>,
}

impl Apart {
    /// `from` could not reach `to`. If there are too many pairs, the oldest is forgotten.
    pub(super) fn note(&mut self, from: PeerId, to: PeerId, now: Instant) {
        self.since.retain(|_, since| now.saturating_duration_since(*since) < REMEMBERED);
        self.since.insert((from, to), now);
        if self.since.len() > MOST_PAIRS
            && let Some(oldest) = self.since.iter().min_by_key(|(_, since)| **since).map(|(pair, _)| *pair)
        {
            self.since.remove(&oldest);
        }
    }

    /// The pairs remembered now.
    pub(super) fn pairs(&self, now: Instant) -> HashSet<(PeerId, PeerId)> {
        let recent = self.since.iter().filter(|(_, since)| now.saturating_duration_since(**since) < REMEMBERED);
        recent.map(|(pair, _)| *pair).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: usize) -> PeerId {
        PeerId::from_bytes(&[0, 2, (number >> 8) as u8, number as u8]).unwrap()
    }

    #[test]
    fn a_pair_is_forgotten_after_a_while_and_knows_its_direction() {
        let (mut apart, start) = (Apart::default(), Instant::now());
        apart.note(peer(1), peer(2), start);
        assert_eq!(apart.pairs(start), [(peer(1), peer(2))].into());
        apart.note(peer(3), peer(2), start + REMEMBERED / 2);
        assert_eq!(apart.pairs(start + REMEMBERED), [(peer(3), peer(2))].into());
    }

    #[test]
    fn the_oldest_makes_room() {
        let (mut apart, start) = (Apart::default(), Instant::now());
        for number in 0..=MOST_PAIRS {
            apart.note(peer(number), peer(5), start + Duration::from_millis(number as u64));
        }
        let pairs = apart.pairs(start);
        assert_eq!((pairs.len(), pairs.contains(&(peer(0), peer(5)))), (MOST_PAIRS, false));
    }
}
