//! The one task that owns the swarm. Its branches only translate: an event comes in, state changes, outputs go out; it
//! awaits nothing but the next event.

use std::time::{Duration, Instant};

use futures::StreamExt;
use libp2p::kad::{self, QueryResult, Quorum, Record, RecordKey};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{self, ConnectionError, DialError, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, identify, mdns, ping};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, info, warn};

use super::addresses::dialable;
use super::behaviour::{Behaviour, BehaviourEvent, identify_version, kad_protocol};
use super::bootstrap::{BootstrapStatus, EntryPoints};
use super::lost_members::{LostMembers, all_dead, is_same};
use super::network::{Census, InboundStream, NetworkConfig, NetworkError};
use super::queries::{GetReply, PutReply, Queries};
use super::record_store::StatementStore;
use super::streams::{Inbound, Reply, Request, StreamKind, describe_dial_error};
use super::transport;
use crate::announcement::{MAX_ADDRESSES, SegmentKey};
use crate::swarm_name::SwarmName;

/// How long a connection that nothing uses is kept: longer than the pause between announcements, so that DHT neighbours
/// and warm hops need no new handshake.
const IDLE_CONNECTION: Duration = Duration::from_secs(150);

/// Events a connection may have waiting for the swarm task; more keep stream data flowing while the DHT is busy.
const CONNECTION_EVENTS: usize = 64;

/// Addresses kept of one member of the DHT: twice what it may announce, so that those of a new network fit beside those
/// of the old one until they fail. libp2p keeps every address a peer ever claims.
const ADDRESSES_PER_MEMBER: usize = 2 * MAX_ADDRESSES;

/// Members next to a key, of those that are connected, that are given a record at once: the look-up for the nearest ones of
/// all may wait for some that are gone. In a small swarm these are they.
const COPIES_AT_ONCE: usize = 4;

/// How often the driver looks after entry points when no deadline is nearer.
const HOUSEKEEPING: Duration = Duration::from_secs(30);

/// What the handle asks of the driver.
#[derive(Debug)]
pub(super) enum Command {
    Open { peer: PeerId, addresses: Vec<Multiaddr>, kind: StreamKind, reply: Reply },
    Put { key: SegmentKey, value: Vec<u8>, every_way: bool, reply: PutReply },
    Get { key: SegmentKey, reply: GetReply },
    Count { reply: oneshot::Sender<Census> },
    Retire,
    Stop { reply: oneshot::Sender<()> },
}

/// Where the driver tells what happens.
pub(super) struct Outputs {
    pub(super) inbound: mpsc::Sender<InboundStream>,
    pub(super) listening: watch::Sender<Vec<Multiaddr>>,
    pub(super) bootstrap: watch::Sender<Vec<BootstrapStatus>>,
    /// Whether any member of the swarm's DHT has been met.
    pub(super) met: watch::Sender<bool>,
}

struct Driver {
    swarm: Swarm<Behaviour>,
    name: SwarmName,
    entry_points: EntryPoints,
    queries: Queries,
    lost_members: LostMembers,
    outputs: Outputs,
    _identity: super::identity::Identity,
}

/// Sets up the swarm, listens, and runs the driver on the current runtime. Returns how many listeners there are.
pub(super) fn spawn(
    config: NetworkConfig,
    commands: mpsc::Receiver<Command>,
    outputs: Outputs,
) -> Result<usize, NetworkError> {
    let keypair = config.identity.keypair().clone();
    let transport = transport::build(&keypair, config.swarm_key.as_ref())?;
    let behaviour = Behaviour::new(&config, &keypair)?;
    let settings = swarm::Config::with_tokio_executor()
        .with_idle_connection_timeout(IDLE_CONNECTION)
        .with_per_connection_event_buffer_size(CONNECTION_EVENTS);
    let mut swarm = Swarm::new(transport, behaviour, keypair.public().to_peer_id(), settings);
    let keyed = config.swarm_key.is_some();
    let only_quic = config.listen.iter().all(is_quic);
    let mut listeners = 0;
    for address in &config.listen {
        let failed = |reason: String| NetworkError::Listen { address: address.clone(), reason };
        if keyed && is_quic(address) {
            if only_quic {
                return Err(failed("a swarm with a key uses TCP only".to_string()));
            }
            debug!(%address, "a swarm with a key uses TCP only");
            continue;
        }
        if let Some(busy) = busy(address) {
            return Err(failed(busy.to_string()));
        }
        swarm.listen_on(address.clone()).map_err(|error| failed(error.to_string()))?;
        listeners += 1;
    }
    for address in &config.announce {
        swarm.add_external_address(address.clone());
    }
    let driver = Driver {
        entry_points: EntryPoints::new(&config.bootstrap, Instant::now()),
        swarm,
        name: config.swarm,
        queries: Queries::default(),
        lost_members: LostMembers::default(),
        outputs,
        _identity: config.identity,
    };
    tokio::spawn(driver.run(commands));
    Ok(listeners)
}

/// The addresses of `peer` that the DHT's table holds; `None` if it is not in it.
fn addresses_known(kad: &mut kad::Behaviour<StatementStore>, peer: PeerId) -> Option<kad::Addresses> {
    let bucket = kad.kbucket(peer)?;
    bucket.iter().find(|entry| *entry.node.key.preimage() == peer).map(|entry| entry.node.value.clone())
}

/// Whether another program listens on the TCP port already. libp2p shares ports, so the system would give half of the
/// callers to each of the two.
fn busy(address: &Multiaddr) -> Option<std::io::Error> {
    let mut parts = address.iter();
    let ip: std::net::IpAddr = match parts.next()? {
        Protocol::Ip4(ip) => ip.into(),
        Protocol::Ip6(ip) => ip.into(),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) if port != 0 => std::net::TcpListener::bind((ip, port)).err(),
        _ => None,
    }
}

fn is_quic(address: &Multiaddr) -> bool {
    address.iter().any(|part| matches!(part, libp2p::multiaddr::Protocol::QuicV1))
}

impl Driver {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        self.publish_statuses();
        loop {
            self.dial_entry_points();
            self.look_after_lost_members();
            let wake = self.next_wake();
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_event(event),
                command = commands.recv() => match command {
                    Some(Command::Stop { reply }) => {
                        // Closes every connection and frees the ports and the identity's lock, so that whoever waits can
                        // start anew at once; it may be gone.
                        drop((self, commands));
                        let _ = reply.send(());
                        return;
                    }
                    Some(command) => self.on_command(command),
                    None => return,
                },
                () = tokio::time::sleep_until(wake.into()) => {}
            }
            self.finish_overdue_queries();
        }
    }

    fn next_wake(&self) -> Instant {
        let deadlines = [self.queries.next_deadline(), self.entry_points.next_redial(), self.lost_members.next()];
        let latest = Instant::now() + HOUSEKEEPING;
        deadlines.into_iter().flatten().fold(latest, Instant::min)
    }

    fn on_command(&mut self, command: Command) {
        let behaviour = self.swarm.behaviour_mut();
        match command {
            Command::Open { peer, addresses, kind, reply } => {
                let request = Request { protocol: kind.protocol(&self.name), reply };
                behaviour.streams.open(peer, addresses, request);
            }
            Command::Put { key, value, every_way, reply } => {
                let record = Record::new(RecordKey::new(&key.0), value);
                match behaviour.kad.put_record(record.clone(), Quorum::One) {
                    Ok(id) => {
                        let at_once = self.put_at_once(record);
                        let ids: Vec<_> = [id].into_iter().chain(at_once).collect();
                        self.queries.began_put(&ids, every_way, reply);
                    }
                    Err(error) => {
                        let refusal = behaviour.kad.store_mut().take_refusal();
                        let reason = refusal.map_or_else(|| error.to_string(), |refusal| refusal.to_string());
                        let _ = reply.send(Err(super::QueryError::Refused(reason)));
                    }
                }
            }
            Command::Get { key, reply } => {
                let id = behaviour.kad.get_record(RecordKey::new(&key.0));
                self.queries.began_get(id, reply);
            }
            Command::Count { reply } => {
                // Who asked may have given up.
                let _ = reply.send(self.census());
            }
            Command::Retire => behaviour.kad.set_mode(Some(kad::Mode::Client)),
            Command::Stop { .. } => {}
        }
    }

    /// Gives a record to the nearest of the members that are connected.
    fn put_at_once(&mut self, record: Record) -> Option<kad::QueryId> {
        let target = kad::KBucketKey::new(record.key.clone());
        let nearest: Vec<PeerId> =
            self.swarm.behaviour_mut().kad.get_closest_local_peers(&target).map(|key| *key.preimage()).collect();
        let connected = nearest.into_iter().filter(|peer| self.swarm.is_connected(peer));
        let connected: Vec<PeerId> = connected.take(COPIES_AT_ONCE).collect();
        let some = !connected.is_empty();
        some.then(|| self.swarm.behaviour_mut().kad.put_record_to(record, connected.into_iter(), Quorum::One))
    }

    fn census(&mut self) -> Census {
        let connected_peers = self.swarm.connected_peers().count();
        let kad = &mut self.swarm.behaviour_mut().kad;
        let known_peers = kad.kbuckets().map(|bucket| bucket.num_entries()).sum();
        Census { connected_peers, known_peers, records: kad.store_mut().len() }
    }

    fn finish_overdue_queries(&mut self) {
        for id in self.queries.overdue(Instant::now()) {
            self.finish_query(id);
        }
    }

    fn finish_query(&mut self, id: kad::QueryId) {
        if let Some(mut query) = self.swarm.behaviour_mut().kad.query_mut(&id) {
            query.finish();
        }
    }

    fn dial_entry_points(&mut self) {
        for (peer, addresses) in self.entry_points.due(Instant::now()) {
            if self.swarm.is_connected(&peer) {
                continue;
            }
            let opts = DialOpts::peer_id(peer)
                .addresses(addresses)
                .condition(PeerCondition::DisconnectedAndNotDialing)
                .build();
            if let Err(error) = self.swarm.dial(opts) {
                self.on_dial_error(peer, &error);
            }
        }
    }

    fn look_after_lost_members(&mut self) {
        for (peer, addresses) in self.lost_members.due(Instant::now(), &mut rand::rng()) {
            let opts = DialOpts::peer_id(peer)
                .addresses(addresses)
                .extend_addresses_through_behaviour()
                .condition(PeerCondition::DisconnectedAndNotDialing)
                .build();
            if let Err(error) = self.swarm.dial(opts) {
                self.on_dial_error(peer, &error);
            }
        }
    }

    fn publish_statuses(&self) {
        self.outputs.bootstrap.send_replace(self.entry_points.statuses());
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Streams(inbound)) => self.on_inbound(inbound),
            SwarmEvent::Behaviour(BehaviourEvent::Kad(event)) => self.on_kad(event),
            SwarmEvent::Behaviour(BehaviourEvent::Identify(event)) => self.on_identify(event),
            SwarmEvent::Behaviour(BehaviourEvent::Ping(event)) => self.on_ping(event),
            SwarmEvent::Behaviour(BehaviourEvent::Mdns(mdns::Event::Discovered(found))) => self.on_discovered(found),
            SwarmEvent::NewListenAddr { .. } | SwarmEvent::ExpiredListenAddr { .. } => self.publish_listening(),
            SwarmEvent::ListenerClosed { addresses, reason, .. } => {
                warn!(?addresses, ?reason, "a listener ended");
                self.publish_listening();
            }
            SwarmEvent::OutgoingConnectionError { peer_id: Some(peer), error, .. } => self.on_dial_error(peer, &error),
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                debug!(from = %send_back_addr, %error, "an incoming connection failed its handshake");
            }
            SwarmEvent::ConnectionEstablished { peer_id, .. } => self.lost_members.met(peer_id),
            SwarmEvent::ConnectionClosed { peer_id, num_established: 0, cause, .. } => {
                debug!(peer = %peer_id, ?cause, "disconnected");
                // Who was closed here, for want of use, is there.
                if !matches!(cause, Some(ConnectionError::KeepAliveTimeout)) {
                    self.member_lost(peer_id);
                }
                let reason = cause.map_or_else(|| "it closed the connection".to_string(), |cause| cause.to_string());
                self.lost(peer_id, BootstrapStatus::Unreachable { reason });
            }
            _ => {}
        }
    }

    fn publish_listening(&self) {
        self.outputs.listening.send_replace(self.swarm.listeners().cloned().collect());
    }

    fn on_inbound(&mut self, inbound: Inbound) {
        let Inbound { peer, protocol, stream } = inbound;
        let Some(kind) = StreamKind::ALL.into_iter().find(|kind| kind.protocol(&self.name) == protocol) else {
            return;
        };
        if self.outputs.inbound.try_send(InboundStream { peer, kind, stream }).is_err() {
            warn!(%peer, ?kind, "too many streams wait to be accepted; one was reset");
        }
    }

    fn on_kad(&mut self, event: kad::Event) {
        let kad::Event::OutboundQueryProgressed { id, result, step, .. } = event else {
            return;
        };
        match result {
            QueryResult::GetRecord(result) => {
                let seen_enough = self.queries.got(id, result, step.last, Instant::now());
                if seen_enough {
                    self.finish_query(id);
                }
            }
            QueryResult::PutRecord(result) => self.queries.put_done(id, result),
            _ => {}
        }
    }

    /// A peer that lost its power or its network never closes a TCP connection: without this, streams would be opened on
    /// a dead one for a quarter of an hour. libp2p reports from the second miss on, and leaves the rest to us.
    fn on_ping(&mut self, event: ping::Event) {
        let ping::Event { peer, connection, result: Err(failure) } = event else {
            return;
        };
        if !matches!(failure, ping::Failure::Unsupported) {
            debug!(%peer, %failure, "a silent connection is closed");
            self.swarm.close_connection(connection);
        }
    }

    /// Only members of this swarm's DHT enter the table, with addresses that can be dialled from here.
    fn on_identify(&mut self, event: identify::Event) {
        let identify::Event::Received { peer_id, info, .. } = event else {
            return;
        };
        let ours = info.protocol_version == identify_version(&self.name);
        let member = ours && info.protocols.contains(&kad_protocol(&self.name));
        if !member {
            // It may have been one, and is about to leave.
            self.swarm.behaviour_mut().kad.remove_peer(&peer_id);
        }
        if ours && !member && self.entry_points.has(peer_id) {
            // Entry points keep the DHT until they leave: through this one nobody is found any more.
            return self.lost(peer_id, BootstrapStatus::Unreachable { reason: "it is about to leave".to_string() });
        }
        if self.entry_points.identified(peer_id, ours, &info.protocol_version) {
            let log = if ours { "joined through" } else { "not of this swarm" };
            info!(peer = %peer_id, speaks = %info.protocol_version, "{log}");
            self.publish_statuses();
        }
        if !member {
            return;
        }
        self.outputs.met.send_replace(true);
        let kad = &mut self.swarm.behaviour_mut().kad;
        let room = ADDRESSES_PER_MEMBER.saturating_sub(addresses_known(kad, peer_id).map_or(0, |known| known.len()));
        for address in dialable(&info.listen_addrs, &info.observed_addr).into_iter().take(room) {
            kad.add_address(&peer_id, address);
        }
    }

    fn on_discovered(&mut self, found: Vec<(PeerId, Multiaddr)>) {
        for (peer, address) in found {
            let opts = DialOpts::peer_id(peer)
                .addresses(vec![address])
                .condition(PeerCondition::DisconnectedAndNotDialing)
                .build();
            if let Err(error) = self.swarm.dial(opts) {
                debug!(%peer, %error, "a neighbour found by mDNS was not dialled");
            }
        }
    }

    fn on_dial_error(&mut self, peer: PeerId, error: &DialError) {
        let status = match error {
            // An attempt already under way ends in an event of its own.
            DialError::DialPeerConditionFalse(_) => return,
            DialError::WrongPeerId { obtained, .. } => BootstrapStatus::WrongPeer { obtained: *obtained },
            other => BootstrapStatus::Unreachable { reason: describe_dial_error(other) },
        };
        if !self.swarm.is_connected(&peer) {
            self.forget_if_dead(peer, error);
            self.lost(peer, status);
        }
    }

    /// Looks soon whether a member is still there. Only those who answer others' look-ups do.
    fn member_lost(&mut self, peer: PeerId) {
        let kad = &mut self.swarm.behaviour_mut().kad;
        if kad.mode() == kad::Mode::Server && addresses_known(kad, peer).is_some() {
            self.lost_members.lost(peer, Instant::now(), &mut rand::rng());
        }
    }

    /// Takes a member that cannot be reached off the DHT's table, unless it is this node that has lost its network.
    fn forget_if_dead(&mut self, peer: PeerId, error: &DialError) {
        if self.swarm.connected_peers().next().is_none() {
            return;
        }
        let kad = &mut self.swarm.behaviour_mut().kad;
        let Some(known) = addresses_known(kad, peer) else { return };
        if let DialError::WrongPeerId { address, .. } = error {
            // With its last address the member goes.
            known.iter().filter(|known| is_same(known, address)).for_each(|address| {
                kad.remove_address(&peer, address);
            });
        } else if all_dead(error, known.iter()) {
            debug!(%peer, "taken off the table: it cannot be reached");
            kad.remove_peer(&peer);
            let DialError::Transport(failed) = error else { return };
            // All that were dialled, not only the last one, which libp2p has left.
            let addresses = failed.iter().map(|(address, _)| address.clone()).collect();
            self.lost_members.forgotten(peer, addresses, Instant::now());
        }
    }

    fn lost(&mut self, peer: PeerId, status: BootstrapStatus) {
        self.entry_points.lost(peer, status, Instant::now(), &mut rand::rng());
        self.publish_statuses();
    }
}
