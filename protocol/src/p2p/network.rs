//! The handle that everybody but the driver holds.

use std::time::Duration;

use libp2p::{Multiaddr, PeerId};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};

use super::addresses::{Scope, announceable, scope_of_swarm};
use super::bootstrap::{BootstrapPeer, BootstrapStatus};
use super::driver::{self, Command};
use super::identity::Identity;
use super::streams::{ByteStream, OpenError, StreamKind};
use super::swarm_key::SwarmKey;
use crate::announcement::{MAX_ADDRESSES, MergedRecord, SegmentKey, ServerState, Signed, Statement};
use crate::swarm_name::SwarmName;

/// Commands waiting for the driver, which answers each within microseconds.
const COMMAND_CAPACITY: usize = 256;

/// Inbound streams waiting to be accepted; beyond, new ones are reset, which their openers see at once.
const INBOUND_CAPACITY: usize = 256;

/// How long the other listeners are waited for once the first has an address; they take microseconds.
const ALL_LISTENERS: Duration = Duration::from_millis(500);

/// How long a stream may take to open, dialling included.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Whether a node keeps records for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DhtMode {
    /// Asks only.
    Client,
    /// Keeps records and answers.
    Server,
}

/// How a node takes part in a swarm.
#[derive(Debug)]
pub struct NetworkConfig {
    /// Who it is.
    pub identity: Identity,
    /// Which swarm it joins.
    pub swarm: SwarmName,
    /// The private swarm's key, if it has one.
    pub swarm_key: Option<SwarmKey>,
    /// Where it listens; a client need not.
    pub listen: Vec<Multiaddr>,
    /// Addresses others can dial it at, when they are not those it listens on.
    pub announce: Vec<Multiaddr>,
    /// The members it joins through.
    pub bootstrap: Vec<BootstrapPeer>,
    /// Whether it keeps records for others.
    pub dht: DhtMode,
    /// Whether it looks for members on the local network.
    pub mdns: bool,
    /// Which streams it accepts.
    pub serve: Vec<StreamKind>,
}

impl NetworkConfig {
    /// A client of `swarm` that joins through `bootstrap` and listens nowhere.
    pub fn client(swarm: SwarmName, bootstrap: Vec<BootstrapPeer>) -> Self {
        Self {
            identity: Identity::ephemeral(),
            swarm,
            swarm_key: None,
            listen: Vec::new(),
            announce: Vec::new(),
            bootstrap,
            dht: DhtMode::Client,
            mdns: false,
            serve: Vec::new(),
        }
    }
}

/// Why the network did not start.
#[derive(Debug, Error)]
pub enum NetworkError {
    /// The transports could not be set up.
    #[error("the network could not be set up: {0}")]
    Setup(#[from] std::io::Error),
    /// An address to listen on cannot be had.
    #[error(
        "cannot listen on {address}: {reason}; is another program using it, or is it not an address of this machine?"
    )]
    Listen {
        /// The address.
        address: Multiaddr,
        /// What the system said.
        reason: String,
    },
    /// The driver ended.
    #[error("the network has been shut down")]
    Stopped,
}

/// Why the DHT gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum QueryError {
    /// No other node of the DHT took or gave the record.
    #[error("no other member of the swarm answered: {0}")]
    NoPeers(String),
    /// The statement is not acceptable, for example out of bounds.
    #[error("the statement was refused: {0}")]
    Refused(String),
    /// The driver ended.
    #[error("the network has been shut down")]
    Stopped,
}

/// One holder's answer to a look-up.
#[derive(Debug, Clone)]
pub struct Found {
    /// Who answered; `None` for this node's own store.
    pub holder: Option<PeerId>,
    /// How many statements the answer was drawn from.
    pub total: u32,
    /// The statements whose signatures hold.
    pub statements: Vec<Statement>,
}

/// How much of the swarm a node sees.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Census {
    /// Peers it is connected to.
    pub connected_peers: usize,
    /// Members of the DHT that its routing table holds.
    pub known_peers: usize,
    /// Statements that it keeps for the DHT.
    pub records: usize,
}

/// A stream that a peer opened to this node.
#[derive(Debug)]
pub struct InboundStream {
    /// The peer, as the transport has authenticated it.
    pub peer: PeerId,
    /// What the stream is for.
    pub kind: StreamKind,
    /// The stream.
    pub stream: ByteStream,
}

/// The streams that peers open, in order.
pub type InboundStreams = mpsc::Receiver<InboundStream>;

/// A member of a swarm. Clones share one driver, which ends when the last of them is dropped.
#[derive(Debug, Clone)]
pub struct Network {
    commands: mpsc::Sender<Command>,
    peer_id: PeerId,
    swarm: SwarmName,
    has_key: bool,
    announce: Vec<Multiaddr>,
    entry_points: Vec<Multiaddr>,
    keypair: libp2p::identity::Keypair,
    listening: watch::Receiver<Vec<Multiaddr>>,
    bootstrap: watch::Receiver<Vec<BootstrapStatus>>,
    met: watch::Receiver<bool>,
    mdns: bool,
}

impl Network {
    /// Starts the driver on the current tokio runtime and waits until the node listens where it was told to.
    ///
    /// # Errors
    /// [`NetworkError`] if an address cannot be listened on or the transports cannot be set up.
    pub async fn start(config: NetworkConfig) -> Result<(Self, InboundStreams), NetworkError> {
        let (commands, command_queue) = mpsc::channel(COMMAND_CAPACITY);
        let (inbound_sender, inbound) = mpsc::channel(INBOUND_CAPACITY);
        let (listening_sender, mut listening) = watch::channel(Vec::new());
        let (bootstrap_sender, bootstrap) = watch::channel(Vec::new());
        let (met_sender, met) = watch::channel(false);
        let keypair = config.identity.keypair().clone();
        let network = Self {
            commands,
            peer_id: config.identity.peer_id(),
            swarm: config.swarm.clone(),
            has_key: config.swarm_key.is_some(),
            announce: config.announce.clone(),
            entry_points: config.bootstrap.iter().map(|peer| peer.address.clone()).collect(),
            keypair,
            listening: listening.clone(),
            bootstrap,
            met,
            mdns: config.mdns,
        };
        let outputs = driver::Outputs {
            inbound: inbound_sender,
            listening: listening_sender,
            bootstrap: bootstrap_sender,
            met: met_sender,
        };
        let listeners = driver::spawn(config, command_queue, outputs)?;
        if listeners > 0 {
            listening.wait_for(|addresses| !addresses.is_empty()).await.map_err(|_| NetworkError::Stopped)?;
            let all = listening.wait_for(|addresses| addresses.len() >= listeners);
            // Some may have nothing to listen on, for example IPv6 on a machine without it; one address is enough.
            let _ = tokio::time::timeout(ALL_LISTENERS, all).await;
        }
        Ok((network, inbound))
    }

    /// This node's id.
    pub fn peer_id(&self) -> PeerId {
        self.peer_id
    }

    /// The swarm it is in.
    pub fn swarm(&self) -> &SwarmName {
        &self.swarm
    }

    /// Where it listens now.
    pub fn listening(&self) -> Vec<Multiaddr> {
        self.listening.borrow().clone()
    }

    /// How far this swarm reaches, by the addresses it was joined through.
    pub fn scope(&self) -> Scope {
        if self.entry_points.is_empty() && self.only_loopback() {
            return Scope::Loopback;
        }
        scope_of_swarm(self.entry_points.iter(), self.has_key)
    }

    /// Whether the swarm has a pre-shared key.
    pub(super) fn has_key(&self) -> bool {
        self.has_key
    }

    fn only_loopback(&self) -> bool {
        let listening = self.listening.borrow();
        !listening.is_empty()
            && listening.iter().all(|address| super::addresses::scope_of(address) == Some(Scope::Loopback))
    }

    /// The addresses others can dial this node at, best first.
    pub fn dialable_addresses(&self) -> Vec<Multiaddr> {
        announceable(&self.listening.borrow(), &self.announce, self.scope(), MAX_ADDRESSES)
    }

    /// How the entry points of the swarm are doing.
    pub fn bootstrap_status(&self) -> watch::Receiver<Vec<BootstrapStatus>> {
        self.bootstrap.clone()
    }

    /// Whether any member of the swarm has been met.
    pub(super) fn met(&self) -> watch::Receiver<bool> {
        self.met.clone()
    }

    /// Whether members are looked for on the local network.
    pub(super) fn looks_around(&self) -> bool {
        self.mdns
    }

    /// Opens a stream to `peer`, dialling it at `addresses` and those the DHT knows if it is not connected.
    ///
    /// # Errors
    /// [`OpenError`] if the peer cannot be reached or does not speak the protocol.
    pub async fn open(&self, peer: PeerId, addresses: &[Multiaddr], kind: StreamKind) -> Result<ByteStream, OpenError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Open { peer, addresses: addresses.to_vec(), kind, reply };
        self.commands.send(command).await.map_err(|_| OpenError::Stopped)?;
        match tokio::time::timeout(OPEN_TIMEOUT, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) if self.commands.is_closed() => Err(OpenError::Stopped),
            Ok(Err(_)) => Err(OpenError::Broken { peer, reason: "it closed while the stream was opened".to_string() }),
            Err(_) => Err(OpenError::Unreachable { peer, reason: format!("no answer within {OPEN_TIMEOUT:?}") }),
        }
    }

    /// Signs `statement` and puts it into the DHT under `key`: returns when somebody has taken it, or of a server that leaves
    /// when all have that were to be found.
    ///
    /// # Errors
    /// [`QueryError`] if nobody took it.
    pub async fn put(&self, key: SegmentKey, statement: &Statement) -> Result<(), QueryError> {
        let refused = |error: &dyn std::fmt::Display| QueryError::Refused(error.to_string());
        let signed = Signed::new(statement, &self.swarm, &self.keypair).map_err(|error| refused(&error))?;
        let value = postcard::to_allocvec(&signed).map_err(|error| refused(&error))?;
        let (reply, answer) = oneshot::channel();
        // Who says good-bye is about to end: what is under way then would be lost.
        let every_way = matches!(statement, Statement::Announcement(word) if word.state == ServerState::Leaving);
        self.commands.send(Command::Put { key, value, every_way, reply }).await.map_err(|_| QueryError::Stopped)?;
        answer.await.map_err(|_| QueryError::Stopped)?
    }

    /// Keeps no records for others any more, and tells the members it is connected to, which take it off their tables: to be
    /// called by who is about to end. Nobody then waits for it in vain.
    pub async fn retire(&self) {
        // An ended driver keeps nothing.
        let _ = self.commands.send(Command::Retire).await;
    }

    /// Looks up what holders know under `key`; nothing is no error.
    ///
    /// # Errors
    /// [`QueryError`] if the driver has ended or the query timed out without any answer.
    pub async fn get(&self, key: SegmentKey) -> Result<Vec<Found>, QueryError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Get { key, reply }).await.map_err(|_| QueryError::Stopped)?;
        let records = answer.await.map_err(|_| QueryError::Stopped)??;
        Ok(records.into_iter().filter_map(|(holder, value)| self.believe(key, holder, &value)).collect())
    }

    /// What of a holder's answer is genuine.
    fn believe(&self, key: SegmentKey, holder: Option<PeerId>, value: &[u8]) -> Option<Found> {
        let record = match MergedRecord::decode(value) {
            Ok(record) => record,
            Err(error) => {
                tracing::debug!(?holder, %error, "a holder's record is not readable");
                return None;
            }
        };
        let genuine = |entry: &crate::announcement::Entry| {
            let statement = entry.signed.verify(&self.swarm).ok()?;
            key.admits(&statement).then_some(statement)
        };
        let statements = record.entries.iter().filter_map(genuine).collect();
        Some(Found { holder, total: record.total, statements })
    }

    /// Counts what this node sees of the swarm now; nothing once the driver has ended.
    pub async fn census(&self) -> Census {
        let (reply, answer) = oneshot::channel();
        if self.commands.send(Command::Count { reply }).await.is_err() {
            return Census::default();
        }
        answer.await.unwrap_or_default()
    }

    /// Tells the driver to stop: connections close and listeners end. Returns when it has.
    pub async fn shut_down(&self) {
        let (reply, done) = oneshot::channel();
        if self.commands.send(Command::Stop { reply }).await.is_ok() {
            // An ended driver is what was asked for.
            let _ = done.await;
        }
    }
}
