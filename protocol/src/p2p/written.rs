//! Addresses and peer ids as people write them, and what to write instead.

use std::net::SocketAddr;

use libp2p::{Multiaddr, PeerId};
use thiserror::Error;

/// A text that is no address of this network, or no peer id.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WrittenError {
    /// The text is an address of another kind.
    #[error("addresses are written in another way here: {0}")]
    OtherAddress(String),
    /// The text is no address.
    #[error("write /ip4/ADDRESS/tcp/PORT or /dns4/NAME/tcp/PORT, for example /ip4/192.168.1.5/tcp/4001")]
    NoAddress,
    /// The text is no peer id.
    #[error("a peer id looks like 12D3KooW...; `swarm-node status` shows those of all servers")]
    NoPeer,
}

/// The address in `text`.
///
/// # Errors
/// [`WrittenError`] says how it is written.
pub fn parse_address(text: &str) -> Result<Multiaddr, WrittenError> {
    let text = text.trim();
    // Nothing at all would be an address of no parts.
    let parsed = text.parse().ok().filter(|address: &Multiaddr| !address.is_empty());
    parsed.ok_or_else(|| rewritten(text).map_or(WrittenError::NoAddress, WrittenError::OtherAddress))
}

/// `ADDRESS:PORT` or `NAME:PORT` as a multiaddress.
fn rewritten(text: &str) -> Option<String> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        let kind = if address.is_ipv4() { "ip4" } else { "ip6" };
        return Some(format!("/{kind}/{}/tcp/{}", address.ip(), address.port()));
    }
    let (name, port) = text.rsplit_once(':')?;
    let letters = |c: char| c.is_ascii_alphanumeric() || "-.".contains(c);
    let is_name = !name.is_empty() && name.chars().all(letters);
    let port: u16 = port.parse().ok().filter(|_| is_name)?;
    Some(format!("/dns4/{name}/tcp/{port}"))
}

/// The peer id in `text`.
///
/// # Errors
/// [`WrittenError`] says what one looks like.
pub fn parse_peer(text: &str) -> Result<PeerId, WrittenError> {
    text.trim().parse().map_err(|_| WrittenError::NoPeer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_writes_an_address_in_another_way_is_told_this_one() {
        for (text, instead) in [
            ("127.0.0.1:5000", "/ip4/127.0.0.1/tcp/5000"),
            ("[::1]:5000", "/ip6/::1/tcp/5000"),
            ("localhost:5000", "/dns4/localhost/tcp/5000"),
        ] {
            assert_eq!(parse_address(text), Err(WrittenError::OtherAddress(instead.to_string())), "{text}");
            assert!(parse_address(instead).is_ok(), "{instead}");
        }
        for text in ["", "foo", "foo:bar", "5000", "/ip4/127.0.0.1/tpc/5000", "http://a:1"] {
            assert_eq!(parse_address(text), Err(WrittenError::NoAddress), "{text:?}");
        }
        assert_eq!(parse_peer("abc"), Err(WrittenError::NoPeer));
        let id = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
        assert_eq!(parse_peer(id).map(|peer| peer.to_string()), Ok(id.to_string()));
    }
}
