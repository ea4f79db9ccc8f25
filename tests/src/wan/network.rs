//! Hosts, the links between them, and the packets on their way. Pure: the [hub](super::hub) reads the clock and moves the
//! packets.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use rand::Rng;

use super::link::{Link, Wire};

/// Packets under way at once, all links together; beyond, they are lost. 100 MB of the largest.
const MOST_IN_FLIGHT: usize = 1 << 16;

/// A host of the network, numbered from 0.
pub type Host = usize;

/// A network of hosts, each linked to every other.
#[derive(Debug)]
pub struct Network {
    hosts: Vec<Ipv4Addr>,
    /// `from * hosts + to`.
    wires: Vec<Wire>,
    /// The same.
    cut: Vec<bool>,
    /// By arrival, then in the order they were sent.
    in_flight: BTreeMap<(Duration, u64), InFlight>,
    sent: u64,
}

#[derive(Debug)]
struct InFlight {
    from: Host,
    to: Host,
    packet: Vec<u8>,
}

/// A packet that has arrived.
#[derive(Debug, PartialEq, Eq)]
pub struct Arrived {
    /// Where.
    pub to: Host,
    /// An IPv4 packet.
    pub packet: Vec<u8>,
}

impl Network {
    /// Hosts with these addresses, all links alike.
    pub fn new(hosts: Vec<Ipv4Addr>, link: Link) -> Self {
        let pairs = hosts.len() * hosts.len();
        let (wires, cut) = (vec![Wire::new(link); pairs], vec![false; pairs]);
        Self { hosts, wires, cut, in_flight: BTreeMap::new(), sent: 0 }
    }

    fn pair(&self, from: Host, to: Host) -> usize {
        from * self.hosts.len() + to
    }

    /// The link between `a` and `b`.
    pub fn link(&self, a: Host, b: Host) -> Link {
        self.wires[self.pair(a, b)].link
    }

    /// Changes the link between `a` and `b`; packets under way arrive as they would have.
    pub fn set_link(&mut self, a: Host, b: Host, link: Link) {
        for pair in [self.pair(a, b), self.pair(b, a)] {
            self.wires[pair].link = link;
        }
    }

    /// Cuts the link between `a` and `b`: packets under way are lost too. Or mends it.
    pub fn set_cut(&mut self, a: Host, b: Host, cut: bool) {
        for pair in [self.pair(a, b), self.pair(b, a)] {
            self.cut[pair] = cut;
        }
        if cut {
            self.in_flight.retain(|_, flying| (flying.from, flying.to) != (a, b) && (flying.from, flying.to) != (b, a));
        }
    }

    /// Takes a packet that host `from` sends at `now`. One that is cut off, or for nobody here, is lost.
    pub fn send(&mut self, now: Duration, from: Host, packet: Vec<u8>, rng: &mut impl Rng) {
        let Some(to) = destination(&packet).and_then(|to| self.hosts.iter().position(|host| *host == to)) else {
            return;
        };
        let pair = self.pair(from, to);
        if self.cut[pair] || self.in_flight.len() >= MOST_IN_FLIGHT {
            return;
        }
        if let Some(arrival) = self.wires[pair].send(now, packet.len(), rng) {
            self.in_flight.insert((arrival, self.sent), InFlight { from, to, packet });
            self.sent += 1;
        }
    }

    /// The next packet that has arrived by `now`.
    pub fn arrived(&mut self, now: Duration) -> Option<Arrived> {
        let first = self.in_flight.first_entry().filter(|entry| entry.key().0 <= now)?;
        let InFlight { to, packet, .. } = first.remove();
        Some(Arrived { to, packet })
    }

    /// When the next packet arrives.
    pub fn next_arrival(&self) -> Option<Duration> {
        self.in_flight.first_key_value().map(|((arrival, _), _)| *arrival)
    }
}

/// Where an IPv4 packet is to go; `None` for anything else.
fn destination(packet: &[u8]) -> Option<Ipv4Addr> {
    let version = packet.first()? >> 4;
    let bytes: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
    (version == 4).then(|| bytes.into())
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    const HOSTS: [Ipv4Addr; 3] = [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(10, 0, 0, 3)];

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    fn network() -> Network {
        Network::new(HOSTS.to_vec(), Link::of_delay(ms(10)))
    }

    /// A header to `to`, and a payload of one byte.
    fn packet(to: Ipv4Addr, payload: u8) -> Vec<u8> {
        let mut packet = vec![0; 21];
        packet[0] = 0x45;
        packet[16..20].copy_from_slice(&to.octets());
        packet[20] = payload;
        packet
    }

    fn send(network: &mut Network, now: Duration, from: Host, to: Host, payload: u8) {
        network.send(now, from, packet(HOSTS[to], payload), &mut StdRng::seed_from_u64(1));
    }

    /// Receivers and payloads of all packets that have arrived by `now`.
    fn arrivals(network: &mut Network, now: Duration) -> Vec<(Host, u8)> {
        std::iter::from_fn(|| network.arrived(now)).map(|arrived| (arrived.to, arrived.packet[20])).collect()
    }

    #[test]
    fn packets_arrive_when_their_link_says() {
        let mut network = network();
        network.set_link(0, 2, Link::of_delay(ms(5)));
        send(&mut network, ms(0), 0, 1, 1);
        send(&mut network, ms(0), 0, 1, 2);
        send(&mut network, ms(1), 2, 0, 3);
        assert_eq!(network.next_arrival(), Some(ms(6)));
        assert_eq!(arrivals(&mut network, ms(9)), [(0, 3)]);
        assert_eq!(arrivals(&mut network, ms(10)), [(1, 1), (1, 2)]);
        assert_eq!(network.next_arrival(), None);
    }

    #[test]
    fn a_cut_link_loses_what_is_under_way_and_what_is_sent_and_no_other_link_does() {
        let mut network = network();
        (1..=2).for_each(|to| send(&mut network, ms(0), 0, to, 1));
        network.set_cut(1, 0, true);
        (1..=2).for_each(|to| send(&mut network, ms(1), 0, to, 2));
        send(&mut network, ms(1), 1, 0, 3);
        assert_eq!(arrivals(&mut network, ms(50)), [(2, 1), (2, 2)]);
        network.set_cut(0, 1, false);
        send(&mut network, ms(50), 0, 1, 4);
        assert_eq!(arrivals(&mut network, ms(60)), [(1, 4)]);
    }

    #[test]
    fn what_is_for_nobody_here_is_lost() {
        let mut network = network();
        let mut rng = StdRng::seed_from_u64(1);
        let mut of_version_6 = packet(HOSTS[1], 1);
        of_version_6[0] = 0x60;
        for lost in [packet(Ipv4Addr::new(224, 0, 0, 251), 1), of_version_6, vec![0x45; 10], Vec::new()] {
            network.send(ms(0), 0, lost, &mut rng);
        }
        assert_eq!(network.next_arrival(), None);
    }
}
