//! Ports, and the networks this machine is in.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use swarm_protocol::Multiaddr;

use super::check::Check;
use crate::cli::common::ListenArgs;

/// Where Tailscale answers names; no packet is sent there, the system is only asked which of its addresses it would use.
const TAILSCALE: (Ipv4Addr, u16) = (Ipv4Addr::new(100, 100, 100, 100), 53);

/// Packets as small as this break QUIC, which needs 1,200 bytes of payload.
const SMALLEST_PACKET: u64 = 1280;

/// Whether what is to be listened on can be had.
pub(super) fn ports(listen: &ListenArgs, port: Option<u16>) -> Vec<Check> {
    let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let mut wanted: Vec<(Transport, SocketAddr)> = listen.listen.iter().filter_map(parse).collect();
    if wanted.is_empty() || port.is_some() {
        let address = SocketAddr::new(any, port.unwrap_or(0));
        wanted.extend([(Transport::Tcp, address), (Transport::Udp, address)]);
    }
    wanted.into_iter().map(|(transport, address)| bind(transport, address)).collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transport {
    Tcp,
    Udp,
}

/// The socket of an address like `/ip4/0.0.0.0/tcp/4001`.
fn parse(address: &Multiaddr) -> Option<(Transport, SocketAddr)> {
    let text = address.to_string();
    let mut parts = text.split('/').skip(1);
    let (_, ip, transport, port) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let socket = SocketAddr::new(ip.parse().ok()?, port.parse().ok()?);
    match transport {
        "tcp" => Some((Transport::Tcp, socket)),
        "udp" => Some((Transport::Udp, socket)),
        _ => None,
    }
}

fn bind(transport: Transport, address: SocketAddr) -> Check {
    let (name, bound) = match transport {
        Transport::Tcp => ("TCP port", TcpListener::bind(address).and_then(|socket| socket.local_addr())),
        Transport::Udp => ("UDP port", UdpSocket::bind(address).and_then(|socket| socket.local_addr())),
    };
    match bound {
        Ok(_) if address.port() == 0 => Check::good(name, "any can be listened on"),
        Ok(_) => Check::good(name, format!("{address} can be listened on")),
        Err(error) => {
            let by = holder(transport, address.port()).map_or_else(String::new, |by| format!(", by {by}"));
            let next = match error.kind() {
                std::io::ErrorKind::AddrInUse => "end the program that uses it, or choose another port",
                std::io::ErrorKind::PermissionDenied => "choose a port above 1023",
                _ => "choose an address of this machine",
            };
            let used = if error.kind() == std::io::ErrorKind::AddrInUse { by } else { String::new() };
            Check::bad(name, format!("{address} cannot be listened on{used}: {error}"), next)
        }
    }
}

/// Which process of this user holds a port, as far as /proc tells.
fn holder(transport: Transport, port: u16) -> Option<String> {
    /// State of a TCP socket that listens.
    const LISTENS: &str = "0A";
    let tables = match transport {
        Transport::Tcp => ["/proc/net/tcp", "/proc/net/tcp6"],
        Transport::Udp => ["/proc/net/udp", "/proc/net/udp6"],
    };
    let text: String = tables.iter().filter_map(|table| std::fs::read_to_string(table).ok()).collect();
    let inode = text.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, local_port) = fields.get(1)?.rsplit_once(':')?;
        let is_it = u16::from_str_radix(local_port, 16) == Ok(port);
        let listens = transport == Transport::Udp || *fields.get(3)? == LISTENS;
        (is_it && listens).then(|| fields.get(9).map(ToString::to_string)).flatten()
    })?;
    let socket = format!("socket:[{inode}]");
    let processes = std::fs::read_dir("/proc").ok()?.filter_map(Result::ok);
    let holds = |folder: &std::path::Path| {
        let files = std::fs::read_dir(folder.join("fd")).into_iter().flatten().filter_map(Result::ok);
        files.filter_map(|file| std::fs::read_link(file.path()).ok()).any(|to| to.to_string_lossy() == socket)
    };
    // Not `self`, which is another name for one of them.
    let numbered = |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().parse::<u32>().is_ok();
    let process = processes.filter(numbered).map(|entry| entry.path()).find(|folder| holds(folder))?;
    let name = std::fs::read_to_string(process.join("comm")).unwrap_or_default();
    Some(format!("process {} ({})", process.file_name()?.to_string_lossy(), name.trim()))
}

/// Whether this machine is in a Tailscale network, which other members can use.
pub(super) fn vpn() -> Check {
    let asked = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
        socket.connect(TAILSCALE)?;
        socket.local_addr()
    });
    match asked.map(|address| address.ip()) {
        Ok(IpAddr::V4(ip)) if is_tailscale(ip) => Check::good(
            "VPN",
            format!("Tailscale, as {ip}; members of it reach this machine with --announce /ip4/{ip}/tcp/PORT"),
        ),
        _ => Check::good("VPN", "no Tailscale"),
    }
}

/// Tailscale's addresses are of 100.64.0.0/10.
fn is_tailscale(ip: Ipv4Addr) -> bool {
    let [first, second, ..] = ip.octets();
    first == 100 && (64..128).contains(&second)
}

/// Whether any network takes packets too small for QUIC.
pub(super) fn packet_size() -> Check {
    let interfaces = std::fs::read_dir("/sys/class/net").into_iter().flatten().filter_map(Result::ok);
    let sizes = interfaces.filter_map(|interface| {
        let up = std::fs::read_to_string(interface.path().join("operstate")).ok()?;
        let size: u64 = std::fs::read_to_string(interface.path().join("mtu")).ok()?.trim().parse().ok()?;
        (up.trim() != "down").then(|| (size, interface.file_name().to_string_lossy().into_owned()))
    });
    match sizes.min() {
        Some((size, name)) if size < SMALLEST_PACKET => Check::could(
            "packet size",
            format!("{name} takes packets of {size} bytes only"),
            "QUIC will not work there, TCP will; an MTU of 1280 or more is better",
        ),
        Some((size, name)) => Check::good("packet size", format!("at least {size} bytes ({name})")),
        None => Check::could("packet size", "this system does not tell it", "see that the MTU is at least 1280"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::Verdict;
    use super::*;

    #[test]
    fn a_port_in_use_is_told_with_who_uses_it() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let check = bind(Transport::Tcp, address);
        assert_eq!(check.verdict, Verdict::Bad);
        if cfg!(target_os = "linux") {
            assert!(check.found.contains(&format!("process {}", std::process::id())), "{check}");
        }
        drop(taken);
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(bind(Transport::Udp, udp.local_addr().unwrap()).verdict, Verdict::Bad);
        assert_eq!(bind(Transport::Udp, "127.0.0.1:0".parse().unwrap()).verdict, Verdict::Good);
    }

    #[test]
    fn an_address_says_which_socket() {
        let of = |text: &str| parse(&text.parse().unwrap());
        assert_eq!(of("/ip4/127.0.0.1/tcp/4001"), Some((Transport::Tcp, "127.0.0.1:4001".parse().unwrap())));
        assert_eq!(of("/ip6/::/udp/4001/quic-v1"), Some((Transport::Udp, "[::]:4001".parse().unwrap())));
        assert_eq!(of("/dns4/a.example/tcp/4001"), None);
        assert!(is_tailscale(Ipv4Addr::new(100, 101, 1, 2)) && !is_tailscale(Ipv4Addr::new(100, 128, 1, 2)));
    }
}
