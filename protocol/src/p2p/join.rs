//! Waiting until a node is part of its swarm, or saying clearly why it is not.

use std::net::IpAddr;
use std::time::Duration;

use libp2p::PeerId;
use libp2p::multiaddr::{Multiaddr, Protocol};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::bootstrap::{BootstrapPeer, BootstrapStatus};
use super::network::Network;
use super::transport::HANDSHAKE_TIMEOUT;
use crate::swarm_name::SwarmName;

/// How long a node hopes that entry points which refused it are only just starting.
const STARTING_UP: Duration = Duration::from_secs(3);

/// How much longer it waits for those that have not answered at all: the rest of a handshake.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// How long a node waits for members on its local network: mDNS answers within milliseconds, and is repeated after seconds.
const NEIGHBOURS: Duration = Duration::from_secs(6);

/// How long a plain TCP connection to an entry point may take when the cause of a failed handshake is looked for.
const TCP_CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a node is not part of its swarm.
#[derive(Debug, Error)]
pub enum JoinError {
    /// Nothing answers there.
    #[error(
        "the bootstrap peer {peer} cannot be reached ({reason}); check that it runs, its address, and the network between"
    )]
    Unreachable {
        /// The entry point.
        peer: BootstrapPeer,
        /// What the attempt ended with.
        reason: String,
    },
    /// Something answers, but no handshake succeeds.
    #[error(
        "the bootstrap peer {peer} answers but the handshake fails ({reason}); \
         {hint}"
    )]
    Handshake {
        /// The entry point.
        peer: BootstrapPeer,
        /// What the attempt ended with.
        reason: String,
        /// What it most likely is.
        hint: &'static str,
    },
    /// Another peer answers at that address.
    #[error(
        "at {peer} another peer answers, {obtained}; its identity may have changed: use the line it printed at its last start"
    )]
    WrongPeer {
        /// The entry point.
        peer: BootstrapPeer,
        /// Who answered.
        obtained: PeerId,
    },
    /// It is in another swarm.
    #[error(
        "the bootstrap peer {peer} is in swarm \"{theirs}\", not in \"{ours}\"; pass --swarm {theirs}, or a bootstrap peer of \"{ours}\""
    )]
    OtherSwarm {
        /// The entry point.
        peer: BootstrapPeer,
        /// Its swarm.
        theirs: SwarmName,
        /// The own one.
        ours: SwarmName,
    },
    /// It does not speak our protocols at all.
    #[error("the peer {peer} is no swarm-node (it speaks \"{speaks}\")")]
    NotASwarmNode {
        /// The entry point.
        peer: BootstrapPeer,
        /// What it calls its protocols.
        speaks: String,
    },
    /// Nobody on the local network is in the swarm.
    #[error(
        "no member of swarm \"{swarm}\" was found on the local network; start one there with --mdns, or pass --bootstrap"
    )]
    NoNeighbour {
        /// The swarm.
        swarm: SwarmName,
    },
    /// The driver ended.
    #[error("the network has been shut down")]
    Stopped,
}

impl Network {
    /// Waits until one of `peers`, the bootstrap peers the network was started with, has let this node in. With none there
    /// is nothing to wait for.
    ///
    /// # Errors
    /// [`JoinError`] if none has within seconds: with the cause and what to do, for the first whose cause is certain.
    pub async fn join(&self, peers: &[BootstrapPeer]) -> Result<(), JoinError> {
        if peers.is_empty() {
            return self.meet_a_neighbour().await;
        }
        let mut statuses = self.bootstrap_status();
        let decided = |statuses: &Vec<BootstrapStatus>| {
            let joined = statuses.contains(&BootstrapStatus::Joined);
            joined || (!statuses.is_empty() && statuses.iter().all(BootstrapStatus::is_final))
        };
        let answered =
            |statuses: &Vec<BootstrapStatus>| decided(statuses) || !statuses.contains(&BootstrapStatus::Dialling);
        wait_until(&mut statuses, STARTING_UP, decided).await?;
        wait_until(&mut statuses, LAST_ANSWERS, answered).await?;
        let last = statuses.borrow().clone();
        if last.contains(&BootstrapStatus::Joined) {
            return Ok(());
        }
        match peers.iter().zip(last).min_by_key(|(_, status)| !status.is_final()) {
            Some((peer, status)) => Err(self.explain(peer.clone(), status).await),
            None => Ok(()),
        }
    }

    /// Without bootstrap peers: waits a while for a member on the local network, if one is looked for there.
    async fn meet_a_neighbour(&self) -> Result<(), JoinError> {
        if !self.looks_around() {
            return Ok(());
        }
        match tokio::time::timeout(NEIGHBOURS, self.met().wait_for(|met| *met)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(JoinError::Stopped),
            Err(_) => Err(JoinError::NoNeighbour { swarm: self.swarm().clone() }),
        }
    }

    async fn explain(&self, peer: BootstrapPeer, status: BootstrapStatus) -> JoinError {
        match status {
            BootstrapStatus::WrongPeer { obtained } => JoinError::WrongPeer { peer, obtained },
            BootstrapStatus::OtherSwarm { speaks } => match SwarmName::of_protocol(&speaks) {
                Some(theirs) => JoinError::OtherSwarm { peer, theirs, ours: self.swarm().clone() },
                None => JoinError::NotASwarmNode { peer, speaks },
            },
            BootstrapStatus::Unreachable { reason } => self.explain_unreachable(peer, reason).await,
            BootstrapStatus::Dialling | BootstrapStatus::Joined => {
                let reason = format!("no answer within {} s", HANDSHAKE_TIMEOUT.as_secs());
                self.explain_unreachable(peer, reason).await
            }
        }
    }

    /// A port that takes a plain TCP connection but no handshake belongs to a swarm with another key, or to another program.
    async fn explain_unreachable(&self, peer: BootstrapPeer, reason: String) -> JoinError {
        if !answers_tcp(&peer.address).await {
            return JoinError::Unreachable { peer, reason };
        }
        let hint = if self.has_key() {
            "most likely its --swarm-key is another one, or it has none"
        } else {
            "most likely its swarm has a key: pass --swarm-key FILE; or the port is another program's"
        };
        JoinError::Handshake { peer, reason, hint }
    }
}

/// Waits for `condition`, but not beyond `limit`.
async fn wait_until(
    statuses: &mut watch::Receiver<Vec<BootstrapStatus>>,
    limit: Duration,
    condition: impl FnMut(&Vec<BootstrapStatus>) -> bool,
) -> Result<(), JoinError> {
    match tokio::time::timeout(limit, statuses.wait_for(condition)).await {
        Ok(Err(_)) => Err(JoinError::Stopped),
        Ok(Ok(_)) | Err(_) => Ok(()),
    }
}

async fn answers_tcp(address: &Multiaddr) -> bool {
    let mut parts = address.iter();
    let host = match parts.next() {
        Some(Protocol::Ip4(ip)) => IpAddr::V4(ip).to_string(),
        Some(Protocol::Ip6(ip)) => IpAddr::V6(ip).to_string(),
        Some(Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name)) => name.into_owned(),
        _ => return false,
    };
    let Some(Protocol::Tcp(port)) = parts.next() else {
        return false;
    };
    let connected = tokio::time::timeout(TCP_CHECK_TIMEOUT, TcpStream::connect((host, port))).await;
    matches!(connected, Ok(Ok(_)))
}
