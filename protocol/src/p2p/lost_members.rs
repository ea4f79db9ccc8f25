//! Members of the DHT whose connection has ended. Each is dialled once, so that one that is gone does not stay in the table,
//! where every look-up that comes by waits for it: libp2p keeps a peer it cannot reach until another one needs its place. Those
//! that were taken off are dialled now and then: they bring the parts of a network together that had fallen asunder. Pure.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use libp2p::swarm::DialError;
use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
use rand::Rng;

/// How long after its connection has ended a member is dialled, at most: the others, which lost it too, do not all come at
/// the same moment.
const LOOK_WITHIN: Duration = Duration::from_millis(500);

/// The first pause between two attempts to reach one that was taken off; each is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(60);

/// The longest one.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// How long one that was taken off is dialled: networks that are cut for longer need an entry point to find together.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// How many of them are remembered: enough to meet somebody of the other part.
const MOST_FORGOTTEN: usize = 64;

/// One that was taken off the table.
struct Forgotten {
    addresses: Vec<Multiaddr>,
    since: Instant,
    due: Instant,
    pause: Duration,
}

/// The members that are to be dialled, and when.
#[derive(Default)]
pub(super) struct LostMembers {
    lost: HashMap<PeerId, Instant>,
    forgotten: HashMap<PeerId, Forgotten>,
}

impl LostMembers {
    /// The connection to a member has ended.
    pub(super) fn lost(&mut self, peer: PeerId, now: Instant, rng: &mut impl Rng) {
        self.lost.insert(peer, now + LOOK_WITHIN.mul_f64(rng.random_range(0.2..1.0)));
    }

    /// A member was taken off the table, which knew these addresses.
    pub(super) fn forgotten(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, now: Instant) {
        self.forgotten.insert(peer, Forgotten { addresses, since: now, due: now + FIRST_PAUSE, pause: FIRST_PAUSE });
        if self.forgotten.len() > MOST_FORGOTTEN {
            let oldest = self.forgotten.iter().min_by_key(|(_, forgotten)| forgotten.since);
            if let Some(oldest) = oldest.map(|(peer, _)| *peer) {
                self.forgotten.remove(&oldest);
            }
        }
    }

    /// There is a connection again.
    pub(super) fn met(&mut self, peer: PeerId) {
        self.lost.remove(&peer);
        self.forgotten.remove(&peer);
    }

    /// Those to be dialled now, at these addresses, or where there are none at those that the table knows.
    pub(super) fn due(&mut self, now: Instant, rng: &mut impl Rng) -> Vec<(PeerId, Vec<Multiaddr>)> {
        let lost = self.lost.extract_if(|_, at| *at <= now);
        let mut due: Vec<_> = lost.map(|(peer, _)| (peer, Vec::new())).collect();
        self.forgotten.retain(|_, forgotten| now < forgotten.since + GIVEN_UP_AFTER);
        for (peer, forgotten) in self.forgotten.iter_mut().filter(|(_, forgotten)| forgotten.due <= now) {
            forgotten.pause = (forgotten.pause * 2).min(LONGEST_PAUSE);
            forgotten.due = now + forgotten.pause.mul_f64(rng.random_range(0.8..1.2));
            due.push((*peer, forgotten.addresses.clone()));
        }
        due
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.lost.values().copied().chain(self.forgotten.values().map(|forgotten| forgotten.due)).min()
    }
}

/// Whether `error` leaves none of a member's addresses of which nothing is known.
pub(super) fn all_dead<'a>(error: &DialError, mut known: impl Iterator<Item = &'a Multiaddr>) -> bool {
    match error {
        DialError::Transport(failed) => known.all(|known| failed.iter().any(|(address, _)| is_same(address, known))),
        _ => false,
    }
}

/// Whether two addresses are one, with or without the peer id at their ends.
pub(super) fn is_same(one: &Multiaddr, other: &Multiaddr) -> bool {
    let bare = |address: &Multiaddr| -> Multiaddr {
        address.iter().filter(|part| !matches!(part, Protocol::P2p(_))).collect()
    };
    bare(one) == bare(other)
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
        assert!(members.due(start, &mut rng).is_empty() && members.next().is_some_and(|at| at > start));
        members.met(back);
        assert_eq!(members.due(start + LOOK_WITHIN, &mut rng), [(gone, vec![])]);
        assert!(members.due(start + LOOK_WITHIN, &mut rng).is_empty() && members.next().is_none());
    }

    #[test]
    fn who_was_taken_off_is_dialled_ever_more_seldom_for_a_day() {
        let (mut members, start, mut rng) = (LostMembers::default(), Instant::now(), rand::rng());
        let (peer, addresses) = (PeerId::random(), vec!["/ip4/10.0.0.1/tcp/1".parse::<Multiaddr>().unwrap()]);
        members.forgotten(peer, addresses.clone(), start);
        let mut dials = Vec::new();
        while let Some(at) = members.next() {
            dials.extend(members.due(at, &mut rng).into_iter().map(|dial| (at, dial)));
        }
        assert!(dials.iter().all(|(_, dial)| *dial == (peer, addresses.clone())));
        assert_eq!(dials[0].0, start + FIRST_PAUSE);
        assert!(dials.windows(2).all(|pair| pair[1].0 - pair[0].0 <= LONGEST_PAUSE.mul_f64(1.2)));
        assert!((100..200).contains(&dials.len()), "{}", dials.len());
        assert!(dials.last().is_some_and(|(at, _)| *at < start + GIVEN_UP_AFTER));
        // Who answers is forgotten no more, and only so many are remembered.
        members.forgotten(peer, addresses.clone(), start);
        members.met(peer);
        assert!(members.next().is_none());
        for second in 0..2 * MOST_FORGOTTEN as u64 {
            members.forgotten(PeerId::random(), addresses.clone(), start + Duration::from_secs(second));
        }
        assert_eq!(members.forgotten.len(), MOST_FORGOTTEN);
        assert!(
            members.next().is_some_and(|at| at > start + FIRST_PAUSE + Duration::from_secs(MOST_FORGOTTEN as u64 - 1))
        );
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
    }
}
