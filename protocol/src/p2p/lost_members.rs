//! Members of the DHT whose connection has ended: each is dialled once, so that one that is gone does not stay in the
//! table, where every look-up that comes by waits for it. Pure; libp2p keeps a peer it cannot reach until another one
//! needs its place.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use libp2p::swarm::DialError;
use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
use rand::Rng;

/// How long after its connection has ended a member is dialled, at most: the others, which lost it too, do not all come at
/// the same moment.
const LOOK_WITHIN: Duration = Duration::from_millis(500);

/// The members that are to be dialled, and when.
#[derive(Default)]
pub(super) struct LostMembers(HashMap<PeerId, Instant>);

impl LostMembers {
    /// The connection to a member has ended, and not since nobody needed it.
    pub(super) fn lost(&mut self, peer: PeerId, now: Instant, rng: &mut impl Rng) {
        self.0.insert(peer, now + LOOK_WITHIN.mul_f64(rng.random_range(0.2..1.0)));
    }

    /// There is a connection again.
    pub(super) fn met(&mut self, peer: PeerId) {
        self.0.remove(&peer);
    }

    /// Those to be dialled now; each is handed out once.
    pub(super) fn due(&mut self, now: Instant) -> Vec<PeerId> {
        self.0.extract_if(|_, at| *at <= now).map(|(peer, _)| peer).collect()
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.values().copied().min()
    }
}

/// Whether `error` leaves none of a member's addresses of which nothing is known.
pub(super) fn all_dead<'a>(error: &DialError, mut known: impl Iterator<Item = &'a Multiaddr>) -> bool {
    match error {
        DialError::Transport(failed) => {
            known.all(|known| failed.iter().any(|(address, _)| bare(address) == bare(known)))
        }
        DialError::WrongPeerId { address, .. } => known.all(|known| bare(address) == bare(known)),
        _ => false,
    }
}

/// Without the peer id at its end.
fn bare(address: &Multiaddr) -> Multiaddr {
    address.iter().filter(|part| !matches!(part, Protocol::P2p(_))).collect()
}

#[cfg(test)]
mod tests {
    use libp2p::TransportError;

    use super::*;

    #[test]
    fn who_is_lost_is_dialled_once_unless_it_comes_back() {
        let (mut members, start, mut rng) = (LostMembers::default(), Instant::now(), rand::rng());
        let [gone, back] = [PeerId::random(), PeerId::random()];
        members.lost(gone, start, &mut rng);
        members.lost(back, start, &mut rng);
        assert!(members.due(start).is_empty() && members.next().is_some_and(|at| at > start));
        members.met(back);
        assert_eq!(members.due(start + LOOK_WITHIN), [gone]);
        assert!(members.due(start + LOOK_WITHIN).is_empty() && members.next().is_none());
    }

    #[test]
    fn a_member_is_dead_when_every_address_is() {
        let peer = PeerId::random();
        let address = |text: &str| text.parse::<Multiaddr>().unwrap();
        let [tcp, udp] = [address("/ip4/10.0.0.1/tcp/1"), address("/ip4/10.0.0.1/udp/1/quic-v1")];
        let refused = |address: &Multiaddr| {
            (address.clone().with(Protocol::P2p(peer)), TransportError::Other(std::io::Error::other("refused")))
        };
        let one = DialError::Transport(vec![refused(&tcp)]);
        let both = DialError::Transport(vec![refused(&tcp), refused(&udp)]);
        assert!(all_dead(&both, [&tcp, &udp].into_iter()) && all_dead(&one, [&tcp].into_iter()));
        assert!(!all_dead(&one, [&tcp, &udp].into_iter()));
        assert!(!all_dead(&DialError::Aborted, [&tcp].into_iter()));
        let other = DialError::WrongPeerId { obtained: PeerId::random(), address: tcp.clone() };
        assert!(all_dead(&other, [&tcp].into_iter()) && !all_dead(&other, [&udp].into_iter()));
    }
}
