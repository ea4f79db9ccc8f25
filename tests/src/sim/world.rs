//! Virtual time: the queue of events, the network between client and servers, and the checks.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use swarm_client::route::Candidate;
use swarm_node::placement::{self, Coverage};
use swarm_protocol::PeerId;
use swarm_protocol::block::BlockIndex;
use swarm_protocol::session::{SessionId, TokenCount};
use thiserror::Error;

use super::client::{Client, Counts, Out, Timer};
use super::message::{Reply, Request};
use super::scenario::{Fault, Hosting, Operation, Scenario, ServerSpec};
use super::server::Server;

/// Far more than any session of a random scenario takes.
const MOST_EVENTS: usize = 60_000;
/// How long the last replica of a block is away.
const LAST_REPLICA_AWAY: Duration = Duration::from_secs(2);
/// How long a leaving server still answers.
const FAREWELL: Duration = Duration::from_millis(500);
/// How long announcements of a dead server are still found.
const STALE_ANNOUNCEMENT: Duration = Duration::from_millis(700);

/// What a simulation found wrong.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Violation {
    /// An output differs from a run without faults, or came unasked.
    #[error("the output of position {position} is wrong, or came twice")]
    WrongOutput {
        /// Whose.
        position: usize,
    },
    /// A hop ended with a KV that is not the one of a run without faults.
    #[error("the KV of {peer} is wrong at the end")]
    WrongHistory {
        /// Whose.
        peer: PeerId,
    },
    /// An answer was used though its hop had been given up.
    #[error("a late answer was used")]
    AcceptedLate,
    /// Nothing happens any more, and the session is not finished.
    #[error("the session came to a standstill")]
    Standstill,
    /// Something goes round and round.
    #[error("the session did not end within {MOST_EVENTS} events")]
    Endless,
    /// Room was not given back.
    #[error("{peer} still has {tokens} tokens reserved at the end")]
    Leaked {
        /// Where.
        peer: PeerId,
        /// How many.
        tokens: TokenCount,
    },
    /// An error that cannot happen.
    #[error("unexpected: {0}")]
    Unexpected(String),
}

/// What a simulation was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// A hash of every event and its time.
    pub trace: u64,
    /// How many events there were.
    pub events: usize,
    /// When the session was finished.
    pub took: Duration,
    /// How often things happened.
    pub counts: Counts,
}

#[derive(Debug)]
enum Event {
    ToServer { peer: PeerId, session: SessionId, from: PeerId, request: Request },
    ToClient { peer: PeerId, session: SessionId, reply: Reply },
    Timer(Timer),
    Operation(usize),
    Back(PeerId),
    Farewell(PeerId),
    Sweep(PeerId),
}

struct World<'a> {
    scenario: &'a Scenario,
    rng: StdRng,
    now: Duration,
    /// Events of the same moment happen in the order in which they were caused.
    queue: BTreeMap<(Duration, u64), Event>,
    caused: u64,
    events: usize,
    trace: DefaultHasher,
    servers: BTreeMap<PeerId, Server>,
    /// In the order of joining.
    joined: Vec<PeerId>,
    /// Until when a dead server is still announced.
    announced: BTreeMap<PeerId, Duration>,
    client: Client,
    took: Option<Duration>,
}

/// Runs a scenario to its end.
///
/// # Errors
/// [`Violation`]: the first thing that is wrong.
pub fn run(scenario: &Scenario) -> Result<Report, Violation> {
    let mut world = World::new(scenario)?;
    while let Some(((at, _), event)) = world.queue.pop_first() {
        world.now = at;
        world.events += 1;
        if world.events > MOST_EVENTS {
            return Err(Violation::Endless);
        }
        format!("{at:?} {event:?}").hash(&mut world.trace);
        world.happen(event)?;
        world.drive()?;
    }
    world.report()
}

fn peer(number: usize) -> PeerId {
    let digest = [0, 2, (number >> 8) as u8, number as u8];
    PeerId::from_bytes(&digest).unwrap_or_else(|_| PeerId::random())
}

/// The simulation's one client.
const CLIENT: usize = 60_000;
/// Whoever else uses the servers.
const OTHERS: usize = 60_001;

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario) -> Result<Self, Violation> {
        let mut world = Self {
            scenario,
            rng: StdRng::seed_from_u64(scenario.seed ^ 0x5eed),
            now: Duration::ZERO,
            queue: BTreeMap::new(),
            caused: 0,
            events: 0,
            trace: DefaultHasher::new(),
            servers: BTreeMap::new(),
            joined: Vec::new(),
            announced: BTreeMap::new(),
            client: Client::new(scenario)?,
            took: None,
        };
        scenario.servers.iter().for_each(|spec| world.join(*spec));
        for (number, (at, _)) in scenario.operations.iter().enumerate() {
            world.cause(*at, Event::Operation(number));
        }
        world.drive()?;
        Ok(world)
    }

    fn cause(&mut self, at: Duration, event: Event) {
        self.caused += 1;
        self.queue.insert((at.max(self.now), self.caused), event);
    }

    fn join(&mut self, spec: ServerSpec) {
        let blocks = match spec.hosting {
            Hosting::Fixed(blocks) => blocks,
            Hosting::Chosen(count) => {
                let rate = |spec: &ServerSpec| 1.0 / spec.block_time.as_secs_f64();
                let mut coverage = Coverage::none(self.scenario.model);
                let staying = self.servers.values().filter(|server| !server.gone);
                staying.for_each(|server| coverage.add(server.blocks, rate(&server.spec)));
                placement::choose(&coverage, count, rate(&spec), &mut self.rng)
            }
        };
        let peer = peer(self.joined.len());
        self.joined.push(peer);
        self.servers.insert(peer, Server::new(blocks, spec, self.scenario.fault));
    }

    fn happen(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::ToServer { peer, session, from, request } => self.deliver(peer, session, from, request),
            Event::ToClient { peer, session, reply } => {
                let cut = self.servers.get(&peer).is_some_and(|server| server.cut.contains(&session));
                if !cut && self.took.is_none() {
                    self.client.hear(session, reply, self.now)?;
                }
            }
            Event::Timer(timer) if self.took.is_none() => self.client.wake(timer, self.now)?,
            Event::Timer(_) => {}
            Event::Operation(number) => self.operate(number),
            Event::Back(peer) => self.with(peer, |server| server.up = true),
            Event::Farewell(peer) => self.crash(peer, None, true),
            Event::Sweep(peer) => self.sweep(peer),
        }
        Ok(())
    }

    fn with(&mut self, peer: PeerId, change: impl FnOnce(&mut Server)) {
        if let Some(server) = self.servers.get_mut(&peer) {
            change(server);
        }
    }

    fn deliver(&mut self, peer: PeerId, session: SessionId, from: PeerId, request: Request) {
        let (now, client) = (self.now, self::peer(CLIENT));
        let Some(server) = self.servers.get_mut(&peer) else { return };
        let half = server.spec.rtt / 2;
        if !server.up {
            // Nobody listens: the connection is refused.
            return self.cause(now + half, Event::ToClient { peer, session, reply: Reply::Reset });
        }
        if server.cut.contains(&session) {
            return;
        }
        if now < server.stalled_until {
            let at = server.stalled_until;
            return self.cause(at, Event::ToServer { peer, session, from, request });
        }
        let opening = matches!(request, Request::Open { .. });
        let reply = server.handle(session, from, request, now);
        let next_sweep = server.admission.next_sweep().filter(|_| opening);
        if let Some((at, reply)) = reply.filter(|_| from == client) {
            self.cause(at + half, Event::ToClient { peer, session, reply });
        }
        if let Some(at) = next_sweep {
            self.cause(at, Event::Sweep(peer));
        }
    }

    fn sweep(&mut self, peer: PeerId) {
        let now = self.now;
        let Some(server) = self.servers.get_mut(&peer) else { return };
        if self.scenario.fault == Fault::LeaksReservations {
            return;
        }
        server.sweep(now);
        if let Some(at) = server.admission.next_sweep() {
            self.cause(at, Event::Sweep(peer));
        }
    }

    fn operate(&mut self, number: usize) {
        let Some((_, operation)) = self.scenario.operations.get(number) else { return };
        let (now, joined) = (self.now, self.joined.clone());
        let pick = |server: usize| joined[server % joined.len()];
        match *operation {
            Operation::Crash { server, back_after, reset } => self.crash(pick(server), back_after, reset),
            Operation::Stall { server, lasting } => self.with(pick(server), |server| {
                server.stalled_until = server.stalled_until.max(now + lasting);
            }),
            Operation::Cut { server } => self.with(pick(server), |server| {
                server.cut.extend(server.sessions.keys().copied());
            }),
            Operation::Forget { server, keep } => self.with(pick(server), |server| server.forget(keep)),
            Operation::Occupy { server, lasting } => self.occupy(pick(server), lasting),
            Operation::Leave { server } => self.leave(pick(server)),
            Operation::Join(spec) => self.join(spec),
        }
    }

    /// Whether some block would be served by nobody, for good, without the server.
    fn is_last_replica(&self, peer: PeerId) -> bool {
        let others = || self.servers.iter().filter(|(other, server)| **other != peer && !server.gone);
        let served = |block: BlockIndex| others().any(|(_, server)| server.blocks.contains(block));
        self.servers.get(&peer).is_some_and(|server| !server.blocks.blocks().all(served))
    }

    fn crash(&mut self, peer: PeerId, back_after: Option<Duration>, reset: bool) {
        let last = self.is_last_replica(peer);
        let now = self.now;
        let Some(server) = self.servers.get_mut(&peer).filter(|server| server.up) else { return };
        let (half, dying) = (server.spec.rtt / 2, server.crash());
        let back_after = back_after.or(last.then_some(LAST_REPLICA_AWAY));
        server.gone = back_after.is_none();
        self.announced.insert(peer, now + STALE_ANNOUNCEMENT);
        if let Some(after) = back_after {
            self.cause(now + after, Event::Back(peer));
        }
        for session in dying.into_iter().filter(|_| reset) {
            self.cause(now + half, Event::ToClient { peer, session, reply: Reply::Reset });
        }
    }

    fn leave(&mut self, peer: PeerId) {
        let now = self.now;
        let Some(server) = self.servers.get_mut(&peer).filter(|server| server.up && !server.leaving) else { return };
        server.leaving = true;
        server.admission.leave();
        let (half, sessions) = (server.spec.rtt / 2, server.sessions.keys().copied().collect::<Vec<_>>());
        for session in sessions {
            self.cause(now + half, Event::ToClient { peer, session, reply: Reply::Leaving });
        }
        self.cause(now + FAREWELL, Event::Farewell(peer));
    }

    /// Another client takes what is free, and gives it back after a while.
    fn occupy(&mut self, peer: PeerId, lasting: Duration) {
        let (now, from) = (self.now, self::peer(OTHERS));
        let session = SessionId::random(&mut self.rng);
        let Some(server) = self.servers.get(&peer) else { return };
        let request = Request::Open { blocks: server.blocks, tokens: server.admission.free() };
        self.cause(now, Event::ToServer { peer, session, from, request });
        self.cause(now + lasting, Event::ToServer { peer, session, from, request: Request::Close });
    }

    /// The servers that the DHT tells of, dead ones too for a while.
    fn known(&self) -> Vec<Candidate> {
        let announced = |peer, server: &Server| {
            (server.up && !server.leaving) || self.announced.get(&peer).is_some_and(|until| self.now < *until)
        };
        let found = self.servers.iter().filter(|(peer, server)| announced(**peer, server));
        let candidate = |(peer, server): (&PeerId, &Server)| Candidate {
            peer: *peer,
            blocks: server.blocks,
            rtt: server.spec.rtt,
            queue: Duration::ZERO,
            block_time: server.spec.block_time,
        };
        found.map(candidate).collect()
    }

    fn drive(&mut self) -> Result<(), Violation> {
        if self.took.is_some() {
            return Ok(());
        }
        let known = self.known();
        let mut outs = self.client.drive(&known, self.now)?;
        if self.client.finished {
            self.took = Some(self.now);
            self.check_histories()?;
            outs.extend(self.client.close());
        }
        for out in outs {
            match out {
                Out::Wake { at, timer } => self.cause(at, Event::Timer(timer)),
                Out::Send { peer, session, request } => {
                    let half = self.servers.get(&peer).map_or(Duration::ZERO, |server| server.spec.rtt / 2);
                    let from = self::peer(CLIENT);
                    self.cause(self.now + half, Event::ToServer { peer, session, from, request });
                }
            }
        }
        Ok(())
    }

    /// Every hop that is alive holds what it would hold in a run without faults: all of it, unless some server has
    /// forgotten something, and was perhaps not asked since.
    fn check_histories(&self) -> Result<(), Violation> {
        let whole = self.client.whole();
        let forgetful = |(_, operation): &(Duration, Operation)| matches!(operation, Operation::Forget { .. });
        let complete = !self.scenario.operations.iter().any(forgetful);
        for (peer, session) in self.client.claims() {
            let kv = self.servers.get(&peer).and_then(|server| server.sessions.get(&session));
            if kv.is_some_and(|kv| !kv.agrees_with(whole) || (complete && kv.len() < whole.len())) {
                return Err(Violation::WrongHistory { peer });
            }
        }
        Ok(())
    }

    fn report(self) -> Result<Report, Violation> {
        let took = self.took.ok_or(Violation::Standstill)?;
        for (peer, server) in &self.servers {
            let tokens = server.admission.reserved();
            if tokens != TokenCount(0) {
                return Err(Violation::Leaked { peer: *peer, tokens });
            }
        }
        let (trace, events, counts) = (self.trace.finish(), self.events, self.client.counts);
        Ok(Report { trace, events, took, counts })
    }
}
