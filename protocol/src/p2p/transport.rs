//! TCP with Noise and Yamux, and QUIC; names resolved by the system's resolver. With a swarm key only TCP, since the key's
//! cipher wraps byte streams.

use std::io;
use std::time::Duration;

use futures::future::Either;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, OrTransport};
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::pnet::PnetConfig;
use libp2p::{PeerId, Transport, dns, noise, quic, tcp, yamux};

use super::swarm_key::SwarmKey;

/// How long a connection may take from its first packet to a verified peer: about six round trips, so enough for a
/// second of RTT, and short enough that a wrong swarm key is noticed within seconds.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(6);

/// The same over QUIC, where a port that nobody listens on is silent: every dial of a member that is gone takes this long.
/// TCP, which is dialled beside it, has more time.
const QUIC_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);

/// Builds the transport for `keypair`.
///
/// # Errors
/// If the keys cannot be derived or there is no way to resolve names.
pub(super) fn build(keypair: &Keypair, key: Option<&SwarmKey>) -> io::Result<Boxed<(PeerId, StreamMuxerBox)>> {
    let noise = noise::Config::new(keypair).map_err(io::Error::other)?;
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true));
    let transport = match key {
        Some(key) => {
            let key = key.pre_shared();
            tcp.and_then(move |socket, _| PnetConfig::new(key).handshake(socket))
                .upgrade(Version::V1)
                .authenticate(noise)
                .multiplex(yamux::Config::default())
                .timeout(HANDSHAKE_TIMEOUT)
                .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
                .boxed()
        }
        None => {
            let tcp = tcp
                .upgrade(Version::V1)
                .authenticate(noise)
                .multiplex(yamux::Config::default())
                .timeout(HANDSHAKE_TIMEOUT);
            let mut config = quic::Config::new(keypair);
            config.handshake_timeout = QUIC_HANDSHAKE_TIMEOUT;
            let quic = quic::tokio::Transport::new(config);
            OrTransport::new(quic, tcp)
                .map(|either, _| match either {
                    Either::Left((peer, muxer)) => (peer, StreamMuxerBox::new(muxer)),
                    Either::Right((peer, muxer)) => (peer, StreamMuxerBox::new(muxer)),
                })
                .boxed()
        }
    };
    with_names(transport)
}

/// Machines without a readable resolver configuration can still use addresses with numbers.
fn with_names(transport: Boxed<(PeerId, StreamMuxerBox)>) -> io::Result<Boxed<(PeerId, StreamMuxerBox)>> {
    if std::path::Path::new("/etc/resolv.conf").exists() || cfg!(windows) {
        return Ok(dns::tokio::Transport::system(transport)?.boxed());
    }
    Ok(transport)
}
