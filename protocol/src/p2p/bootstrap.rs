//! The members a node joins through: what is known of each, and when it is dialled again. Pure: the driver dials.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use rand::Rng;
use thiserror::Error;

/// The pause before a lost entry point is dialled again; doubles with each failure.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest such pause: a restarted bootstrap peer is found again within a minute.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A member to join through: where to dial it and who must answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BootstrapPeer {
    /// Who must answer.
    pub peer: PeerId,
    /// Where, without the peer id.
    pub address: Multiaddr,
}

/// A text that names no bootstrap peer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "\"{0}\" is no bootstrap address; write /ip4/ADDRESS/tcp/PORT/p2p/PEERID or /dns4/NAME/tcp/PORT/p2p/PEERID, as the other member printed it"
)]
pub struct BootstrapPeerError(String);

impl FromStr for BootstrapPeer {
    type Err = BootstrapPeerError;

    fn from_str(text: &str) -> Result<Self, BootstrapPeerError> {
        let malformed = || BootstrapPeerError(text.to_string());
        let mut address: Multiaddr = text.trim().parse().map_err(|_| malformed())?;
        match address.pop() {
            Some(Protocol::P2p(peer)) if !address.is_empty() => Ok(Self { peer, address }),
            _ => Err(malformed()),
        }
    }
}

impl fmt::Display for BootstrapPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/p2p/{}", self.address, self.peer)
    }
}

/// How an entry point is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BootstrapStatus {
    /// Not answered yet.
    Dialling,
    /// Connected and of this swarm.
    Joined,
    /// Not reached; it will be tried again.
    Unreachable {
        /// What the attempt ended with.
        reason: String,
    },
    /// Reached, but another peer answered there.
    WrongPeer {
        /// Who answered.
        obtained: PeerId,
    },
    /// Connected, but it is not of this swarm.
    OtherSwarm {
        /// What it calls its protocols.
        speaks: String,
    },
}

impl BootstrapStatus {
    /// Whether dialling again can help without anybody changing anything.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::WrongPeer { .. } | Self::OtherSwarm { .. })
    }
}

struct Entry {
    peer: BootstrapPeer,
    status: BootstrapStatus,
    failures: u32,
    /// When it is dialled again; `None` while it is connected or being dialled.
    redial: Option<Instant>,
}

/// All entry points of a node.
pub(super) struct EntryPoints(Vec<Entry>);

impl EntryPoints {
    pub(super) fn new(peers: &[BootstrapPeer], now: Instant) -> Self {
        let entry = |peer: &BootstrapPeer| Entry {
            peer: peer.clone(),
            status: BootstrapStatus::Dialling,
            failures: 0,
            redial: Some(now),
        };
        Self(peers.iter().map(entry).collect())
    }

    /// Whether `peer` is one of them.
    pub(super) fn has(&self, peer: PeerId) -> bool {
        self.0.iter().any(|entry| entry.peer.peer == peer)
    }

    pub(super) fn statuses(&self) -> Vec<BootstrapStatus> {
        self.0.iter().map(|entry| entry.status.clone()).collect()
    }

    /// The peers to be dialled now, each with all its addresses: one that is blackholed must not hold up the others. Each
    /// is handed out once.
    pub(super) fn due(&mut self, now: Instant) -> BTreeMap<PeerId, Vec<Multiaddr>> {
        let mut due = BTreeMap::<_, Vec<_>>::new();
        for entry in &mut self.0 {
            if entry.redial.is_some_and(|at| at <= now) {
                entry.redial = None;
                due.entry(entry.peer.peer).or_default().push(entry.peer.address.clone());
            }
        }
        due
    }

    pub(super) fn next_redial(&self) -> Option<Instant> {
        self.0.iter().filter_map(|entry| entry.redial).min()
    }

    /// `peer` was reached and has said what it speaks; `joined` if that is this swarm's. Returns whether it is an entry
    /// point.
    pub(super) fn identified(&mut self, peer: PeerId, joined: bool, speaks: &str) -> bool {
        let mut known = false;
        for entry in self.0.iter_mut().filter(|entry| entry.peer.peer == peer) {
            known = true;
            entry.failures = 0;
            entry.redial = None;
            entry.status = if joined {
                BootstrapStatus::Joined
            } else {
                BootstrapStatus::OtherSwarm { speaks: speaks.to_string() }
            };
        }
        known
    }

    /// `peer` is gone or could not be reached: it will be dialled again after a pause with jitter.
    pub(super) fn lost(&mut self, peer: PeerId, status: BootstrapStatus, now: Instant, rng: &mut impl Rng) {
        // The same for all addresses of a peer: they are dialled together.
        let jitter = rng.random_range(0.8..1.2);
        for entry in self.0.iter_mut().filter(|entry| entry.peer.peer == peer) {
            // A peer of another swarm stays one when it hangs up.
            if !entry.status.is_final() || status.is_final() {
                entry.status = status.clone();
            }
            let pause = (FIRST_PAUSE * 2u32.saturating_pow(entry.failures.min(16))).min(LONGEST_PAUSE);
            entry.failures += 1;
            entry.redial = Some(now + pause.mul_f64(jitter));
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn an_entry_point_is_an_address_with_a_peer_id() {
        let peer = PeerId::random();
        let text = format!("/ip4/127.0.0.1/tcp/4001/p2p/{peer}");
        let parsed: BootstrapPeer = text.parse().unwrap();
        assert_eq!(parsed.to_string(), text);
        for bad in ["/ip4/127.0.0.1/tcp/4001", "127.0.0.1:4001", "", &format!("/p2p/{peer}")] {
            assert!(bad.parse::<BootstrapPeer>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_addresses_of_one_peer_are_dialled_together() {
        let id = PeerId::random();
        let peers = [1, 2].map(|port| format!("/ip4/127.0.0.1/tcp/{port}/p2p/{id}").parse::<BootstrapPeer>().unwrap());
        let mut now = Instant::now();
        let mut entries = EntryPoints::new(&peers, now);
        for _ in 0..5 {
            let addresses = peers.iter().map(|peer| peer.address.clone()).collect();
            assert_eq!(entries.due(now), BTreeMap::from([(id, addresses)]));
            let status = BootstrapStatus::Unreachable { reason: "refused".to_string() };
            entries.lost(id, status, now, &mut StdRng::seed_from_u64(1));
            now = entries.next_redial().unwrap();
        }
    }

    #[test]
    fn a_lost_entry_point_is_dialled_again_after_growing_pauses() {
        let peer: BootstrapPeer = format!("/ip4/127.0.0.1/tcp/1/p2p/{}", PeerId::random()).parse().unwrap();
        let mut now = Instant::now();
        let mut entries = EntryPoints::new(std::slice::from_ref(&peer), now);
        let mut rng = StdRng::seed_from_u64(1);
        let mut pauses = Vec::new();
        for _ in 0..10 {
            assert_eq!(entries.due(now), BTreeMap::from([(peer.peer, vec![peer.address.clone()])]));
            assert!(entries.due(now).is_empty());
            let status = BootstrapStatus::Unreachable { reason: "refused".to_string() };
            entries.lost(peer.peer, status, now, &mut rng);
            let next = entries.next_redial().unwrap();
            pauses.push(next - now);
            now = next;
        }
        assert!(pauses[0] < FIRST_PAUSE * 2);
        assert!(pauses.iter().all(|pause| *pause <= LONGEST_PAUSE.mul_f64(1.2)));
        assert!(pauses[9] > LONGEST_PAUSE / 2);
        assert!(entries.identified(peer.peer, true, ""));
        assert_eq!(entries.next_redial(), None);
        assert_eq!(entries.statuses(), vec![BootstrapStatus::Joined]);
    }
}
