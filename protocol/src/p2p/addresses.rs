//! Which addresses others can dial. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libp2p::multiaddr::{Multiaddr, Protocol};

/// How far an address, or a swarm, reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// This machine only.
    Loopback,
    /// A LAN, a VPN, Tailscale.
    Private,
    /// The internet.
    Public,
}

/// How far `address` reaches; `None` where nobody can dial it (unspecified, link-local).
pub(super) fn scope_of(address: &Multiaddr) -> Option<Scope> {
    match address.iter().next()? {
        Protocol::Ip4(ip) => scope_of_ip(IpAddr::V4(ip)),
        Protocol::Ip6(ip) => scope_of_ip(IpAddr::V6(ip)),
        // A name was given by a person: it reaches whom it is meant to reach.
        Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_) | Protocol::Dnsaddr(_) => Some(Scope::Public),
        _ => None,
    }
}

fn scope_of_ip(ip: IpAddr) -> Option<Scope> {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() || ip.is_link_local() || ip.is_broadcast() || ip.is_multicast() => None,
        IpAddr::V6(ip) if ip.is_unspecified() || is_link_local(ip) || ip.is_multicast() => None,
        ip if ip.is_loopback() => Some(Scope::Loopback),
        IpAddr::V4(ip) if ip.is_private() || is_shared(ip) => Some(Scope::Private),
        IpAddr::V6(ip) if is_unique_local(ip) => Some(Scope::Private),
        _ => Some(Scope::Public),
    }
}

/// 100.64.0.0/10: carrier-grade NAT, which is where Tailscale's addresses lie.
fn is_shared(ip: Ipv4Addr) -> bool {
    let [first, second, ..] = ip.octets();
    first == 100 && (64..128).contains(&second)
}

fn is_link_local(ip: Ipv6Addr) -> bool {
    ip.segments()[0] & 0xffc0 == 0xfe80
}

fn is_unique_local(ip: Ipv6Addr) -> bool {
    ip.segments()[0] & 0xfe00 == 0xfc00
}

/// How far a swarm reaches, by the addresses its members were told to join through: the farthest of them. A name says
/// nothing about what is behind it, so it counts as a private network's, which MagicDNS and LAN names are.
pub(super) fn scope_of_swarm<'a>(entry_points: impl Iterator<Item = &'a Multiaddr>, has_key: bool) -> Scope {
    let of_entry = |address: &Multiaddr| match address.iter().next()? {
        Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_) | Protocol::Dnsaddr(_) => Some(Scope::Private),
        _ => scope_of(address),
    };
    let farthest = entry_points.filter_map(of_entry).max();
    match (farthest, has_key) {
        (Some(Scope::Public), true) | (None, _) => Scope::Private,
        (Some(scope), _) => scope,
    }
}

/// The listening addresses worth announcing in a swarm of that scope. On one machine loopback will do; in a private
/// swarm private addresses; in a public one only what is public. What a person gave with `--announce` goes first and
/// is never left out.
pub(super) fn announceable(listening: &[Multiaddr], given: &[Multiaddr], swarm: Scope, most: usize) -> Vec<Multiaddr> {
    let fits = |address: &&Multiaddr| match (scope_of(address), swarm) {
        (None, _) => false,
        (Some(Scope::Loopback), Scope::Loopback) => true,
        (Some(Scope::Loopback), _) => false,
        (Some(Scope::Private), scope) => scope != Scope::Public,
        (Some(Scope::Public), _) => true,
    };
    let mut chosen: Vec<Multiaddr> = Vec::new();
    // TCP first: it passes where UDP is blocked, and it is the better one for bulk.
    let (udp, tcp): (Vec<&Multiaddr>, Vec<&Multiaddr>) = listening.iter().filter(fits).partition(is_udp);
    for address in given.iter().chain(tcp).chain(udp) {
        if !chosen.contains(address) && chosen.len() < most {
            chosen.push(address.clone());
        }
    }
    // Everything listens on loopback only: the swarm lives on this machine, whatever its entry point's address is.
    if chosen.is_empty() && listening.iter().all(|address| scope_of(address) == Some(Scope::Loopback)) {
        chosen.extend(listening.iter().take(most).cloned());
    }
    chosen
}

fn is_udp(address: &&Multiaddr) -> bool {
    address.iter().any(|part| matches!(part, Protocol::Udp(_)))
}

/// The addresses of a peer that can be dialled from here, given the address it is connected by: a neighbour on this
/// machine may be dialled on loopback, nobody else.
pub(super) fn dialable(claimed: &[Multiaddr], connected_by: &Multiaddr) -> Vec<Multiaddr> {
    let nearest = scope_of(connected_by).unwrap_or(Scope::Public);
    claimed.iter().filter(|address| scope_of(address).is_some_and(|scope| scope >= nearest)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_reach_as_far_as_their_ranges_say() {
        let cases = [
            ("/ip4/127.0.0.1/tcp/1", Some(Scope::Loopback)),
            ("/ip6/::1/tcp/1", Some(Scope::Loopback)),
            ("/ip4/192.168.1.4/tcp/1", Some(Scope::Private)),
            ("/ip4/100.64.0.1/tcp/1", Some(Scope::Private)),
            ("/ip4/100.127.255.1/udp/1/quic-v1", Some(Scope::Private)),
            ("/ip4/100.128.0.1/tcp/1", Some(Scope::Public)),
            ("/ip6/fd7a:115c:a1e0::1/tcp/1", Some(Scope::Private)),
            ("/ip6/fe80::1/tcp/1", None),
            ("/ip4/169.254.3.3/tcp/1", None),
            ("/ip4/0.0.0.0/tcp/1", None),
            ("/ip4/8.8.8.8/tcp/1", Some(Scope::Public)),
        ];
        for (text, scope) in cases {
            assert_eq!(scope_of(&address(text)), scope, "{text}");
        }
    }

    #[test]
    fn a_swarm_reaches_as_far_as_its_entry_points() {
        let scope = |texts: &[&str], key| {
            let addresses: Vec<_> = texts.iter().map(|text| address(text)).collect();
            scope_of_swarm(addresses.iter(), key)
        };
        assert_eq!(scope(&["/ip4/127.0.0.1/tcp/1"], false), Scope::Loopback);
        assert_eq!(scope(&["/ip4/127.0.0.1/tcp/1", "/ip4/10.0.0.1/tcp/1"], false), Scope::Private);
        assert_eq!(scope(&["/dns4/box.tail1234.ts.net/tcp/1"], false), Scope::Private);
        assert_eq!(scope(&["/ip4/8.8.8.8/tcp/1"], false), Scope::Public);
        assert_eq!(scope(&["/ip4/8.8.8.8/tcp/1"], true), Scope::Private);
        assert_eq!(scope(&[], false), Scope::Private);
    }

    #[test]
    fn only_what_others_can_dial_is_announced() {
        let listening = ["/ip4/127.0.0.1/tcp/9", "/ip4/192.168.1.4/tcp/9", "/ip6/fe80::2/tcp/9"].map(address);
        let given = [address("/dns4/me.example.ts.net/tcp/9")];
        assert_eq!(announceable(&listening, &[], Scope::Private, 8), vec![listening[1].clone()]);
        assert_eq!(announceable(&listening, &[], Scope::Loopback, 8), listening[..2].to_vec());
        assert_eq!(announceable(&listening, &[], Scope::Public, 8), vec![]);
        assert_eq!(announceable(&listening, &given, Scope::Public, 8), given.to_vec());
        assert_eq!(announceable(&listening, &given, Scope::Private, 1), given.to_vec());
        assert_eq!(announceable(&listening[..1], &[], Scope::Private, 8), listening[..1].to_vec());
    }

    #[test]
    fn tcp_is_announced_first() {
        let listening = ["/ip4/10.0.0.1/udp/9/quic-v1", "/ip4/10.0.0.1/tcp/9"].map(address);
        let announced = announceable(&listening, &[], Scope::Private, 8);
        assert_eq!(announced, [listening[1].clone(), listening[0].clone()]);
    }

    #[test]
    fn nobody_far_is_dialled_on_loopback() {
        let claimed = ["/ip4/127.0.0.1/tcp/9", "/ip4/192.168.1.4/tcp/9", "/ip4/8.8.8.8/tcp/9"].map(address);
        assert_eq!(dialable(&claimed, &address("/ip4/127.0.0.1/tcp/5")).len(), 3);
        assert_eq!(dialable(&claimed, &address("/ip4/192.168.1.9/tcp/5")).len(), 2);
        assert_eq!(dialable(&claimed, &address("/ip4/8.8.4.4/tcp/5")).len(), 1);
    }
}
