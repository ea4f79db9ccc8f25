//! Virtual time: what happens to the swarm, and the checks.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use swarm_client::route::{Candidate, Links};
use swarm_node::placement::{self, Coverage};
use swarm_protocol::PeerId;
use swarm_protocol::block::BlockIndex;
use swarm_protocol::session::SessionId;

use super::client::Client;
use super::message::{Message, node_of, peer_of};
use super::network::{CLIENT, Happening, Net, Node, StreamId, Timer};
use super::report::{MOST_EVENTS, Report, Violation};
use super::scenario::{Fault, Hosting, Operation, Scenario, ServerSpec};
use super::server::Server;

/// How long the last replica of a block is away.
const LAST_REPLICA_AWAY: Duration = Duration::from_secs(2);

/// How long announcements of a dead server are still found.
const STALE_ANNOUNCEMENT: Duration = Duration::from_millis(700);

/// Whoever else uses the servers.
const OTHERS: Node = 60_000;

/// Two servers that cannot reach one another.
struct Apart {
    /// What waits until they can.
    held: Vec<Happening>,
    /// When that is, if ever.
    until: Option<Duration>,
    refused: bool,
}

struct World<'a> {
    scenario: &'a Scenario,
    rng: StdRng,
    net: Net,
    events: usize,
    trace: DefaultHasher,
    /// What happened, if somebody wants to read it.
    story: Option<Vec<String>>,
    servers: BTreeMap<Node, Server>,
    /// Until when a dead server is still announced.
    announced: BTreeMap<Node, Duration>,
    apart: BTreeMap<(Node, Node), Apart>,
    /// Sessions of others.
    others: u32,
    client: Client,
    took: Option<Duration>,
}

/// Runs a scenario to its end.
///
/// # Errors
/// [`Violation`] says what went wrong.
pub fn run(scenario: &Scenario) -> Result<Report, Violation> {
    World::new(scenario)?.run()
}

/// Runs a scenario, and tells every event of it.
pub fn tell(scenario: &Scenario) -> Vec<String> {
    let Ok(mut world) = World::new(scenario) else { return Vec::new() };
    world.story = Some(Vec::new());
    let outcome = world.go_on();
    let mut story = world.story.take().unwrap_or_default();
    story.push(format!("{:?} {outcome:?}", world.net.now));
    story
}

/// What the client can learn of the swarm, and what only a judge knows.
pub(super) struct Known<'a> {
    servers: &'a BTreeMap<Node, Server>,
    announced: &'a BTreeMap<Node, Duration>,
    fault: Fault,
}

impl Known<'_> {
    /// The servers that the DHT tells of, dead ones too for a while.
    pub(super) fn candidates(&self, net: &Net) -> Vec<Candidate> {
        let announced = |node, server: &Server| {
            (server.up && !server.leaving) || self.announced.get(&node).is_some_and(|until| net.now < *until)
        };
        let found = self.servers.iter().filter(|(node, server)| announced(**node, server));
        let candidate = |(node, server): (&Node, &Server)| Candidate {
            peer: peer_of(*node),
            blocks: server.blocks,
            rtt: server.spec.rtt,
            queue: Duration::ZERO,
            block_time: server.spec.block_time,
        };
        found.map(candidate).collect()
    }

    /// Some servers have measured the way to one another.
    pub(super) fn links(&self, net: &Net) -> Links {
        let pairs = self.servers.keys().flat_map(|one| self.servers.keys().map(move |two| (*one, *two)));
        let measured = pairs.filter(|(one, two)| one < two && (one + two) % 3 > 0);
        let rtts: HashMap<_, _> =
            measured.map(|(one, two)| ((peer_of(one), peer_of(two)), net.rtt(one, two))).collect();
        Links::Direct(rtts)
    }

    pub(super) fn has_bugs(&self) -> bool {
        self.fault != Fault::None
    }

    /// Whether a server may be found to break the protocol.
    pub(super) fn may_be_wrong(&self, peer: PeerId) -> bool {
        self.has_bugs() || self.servers.get(&node_of(peer)).is_some_and(|server| server.forgetful)
    }

    /// A server is given up for being silent, or too slow.
    pub(super) fn accuse(&self, peer: PeerId, reason: &str) -> Result<(), Violation> {
        let server = self.servers.get(&node_of(peer));
        let innocent = server.is_some_and(|server| !server.troubled);
        let excused = self.has_bugs() && self.fault != Fault::DeafWhileComputing;
        match innocent && !excused {
            true => Err(Violation::Innocent { peer, reason: reason.to_string() }),
            false => Ok(()),
        }
    }
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario) -> Result<Self, Violation> {
        let mut world = Self {
            scenario,
            rng: StdRng::seed_from_u64(scenario.seed ^ 0x5eed),
            net: Net::new(scenario),
            events: 0,
            trace: DefaultHasher::new(),
            story: None,
            servers: BTreeMap::new(),
            announced: BTreeMap::new(),
            apart: BTreeMap::new(),
            others: 0,
            client: Client::new(scenario)?,
            took: None,
        };
        scenario.servers.iter().for_each(|spec| world.join(*spec));
        for (number, (at, _)) in scenario.operations.iter().enumerate() {
            world.net.cause(*at, Happening::Operation(number));
        }
        world.net.timer(CLIENT, Duration::ZERO, Timer::Look);
        Ok(world)
    }

    fn run(mut self) -> Result<Report, Violation> {
        self.go_on()?;
        let took = self.took.ok_or(Violation::Standstill)?;
        self.servers.values().try_for_each(Server::check_empty)?;
        let mut counts = self.client.counts;
        self.servers.values().for_each(|server| counts += server.counts);
        self.client.check_effort(self.scenario.troubles())?;
        Ok(Report { trace: self.trace.finish(), events: self.events, took, counts })
    }

    fn go_on(&mut self) -> Result<(), Violation> {
        while let Some(happening) = self.net.next() {
            self.events += 1;
            if self.events > MOST_EVENTS {
                return Err(Violation::Endless);
            }
            self.happen(happening)?;
        }
        Ok(())
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
        let node = self.net.join(spec);
        self.servers.insert(node, Server::new(node, blocks, spec, self.scenario.fault));
    }

    fn note(&mut self, happening: &Happening) {
        self.net.now.hash(&mut self.trace);
        match happening {
            Happening::Arrive { stream, side, message } => {
                (stream, side).hash(&mut self.trace);
                message.trace(&mut self.trace);
            }
            Happening::Timer { node, timer, .. } => (node, timer).hash(&mut self.trace),
            Happening::Operation(number) => number.hash(&mut self.trace),
            _ => {}
        }
        if let Some(story) = &mut self.story {
            let told = match happening {
                Happening::Arrive { stream, side, message } => {
                    let ends = self.net.ends(*stream);
                    format!("{stream:?} {} -> {}: {message:?}", ends[1 - side], ends[*side])
                }
                Happening::Operation(number) => format!("{:?}", self.scenario.operations.get(*number)),
                other => format!("{other:?}"),
            };
            story.push(format!("{:?} {told}", self.net.now));
        }
    }

    fn happen(&mut self, happening: Happening) -> Result<(), Violation> {
        match happening {
            Happening::Arrive { stream, side, message } => self.arrive(stream, side, message)?,
            Happening::Timer { node: CLIENT, timer, life } => {
                self.note(&Happening::Timer { node: CLIENT, timer, life });
                self.with_client(|client, known, net| client.wake(timer, known, net))?;
            }
            Happening::Timer { node, life, timer } => self.wake(node, life, timer),
            Happening::Operation(number) => {
                self.note(&Happening::Operation(number));
                self.operate(number);
            }
            Happening::Heal(one, two) => {
                let healed = self.apart.get(&(one, two)).is_some_and(|apart| apart.until <= Some(self.net.now));
                if let Some(apart) = self.apart.remove(&(one, two)).filter(|_| healed) {
                    apart.held.into_iter().try_for_each(|happening| self.happen(happening))?;
                }
            }
            Happening::Resume(node) => {
                let now = self.net.now;
                let Some(server) = self.servers.get_mut(&node) else { return Ok(()) };
                if server.stalled_until.take_if(|until| *until <= now).is_some() {
                    let inbox = std::mem::take(&mut server.inbox);
                    inbox.into_iter().try_for_each(|happening| match happening {
                        Happening::Arrive { stream, side, message } => self.reach(stream, side, message),
                        other => self.happen(other),
                    })?;
                }
            }
            Happening::Back(node) => {
                if let Some(server) = self.servers.get_mut(&node) {
                    server.up = true;
                }
            }
            Happening::Vacate(node, life, number) => {
                if self.net.lives[node] == life
                    && let Some(server) = self.servers.get_mut(&node)
                {
                    server.admission.close(others_session(number));
                }
            }
        }
        Ok(())
    }

    /// A message reaches the other end of its stream, if it does.
    fn arrive(&mut self, stream: StreamId, side: usize, message: Message) -> Result<(), Violation> {
        let ends = self.net.ends(stream);
        let pair = (ends[0].min(ends[1]), ends[0].max(ends[1]));
        if let Some(apart) = self.apart.get_mut(&pair) {
            if apart.refused && !matches!(message, Message::Broken) {
                // Each end's own machine says so.
                self.net.reset(stream, side);
                return self.arrive(stream, side, Message::Broken);
            }
            if apart.until.is_some() && !apart.refused {
                apart.held.push(Happening::Arrive { stream, side, message });
                return Ok(());
            }
            if !apart.refused {
                return Ok(());
            }
        }
        self.reach(stream, side, message)
    }

    /// A message has reached the machine of a node.
    fn reach(&mut self, stream: StreamId, side: usize, message: Message) -> Result<(), Violation> {
        let node = self.net.ends(stream)[side];
        let happening = Happening::Arrive { stream, side, message };
        if let Some(server) = self.servers.get_mut(&node) {
            if !server.up {
                if server.resets && !matches!(happening, Happening::Arrive { message: Message::Broken, .. }) {
                    self.net.reset(stream, side);
                }
                return Ok(());
            }
            if server.stalled_until.is_some() {
                server.inbox.push(happening);
                return Ok(());
            }
        }
        self.note(&happening);
        let Happening::Arrive { message, .. } = happening else { return Ok(()) };
        let ends_it = matches!(message, Message::End | Message::Broken);
        if !self.net.is_alive(stream, side) {
            if !ends_it {
                self.net.reset(stream, side);
            }
            return Ok(());
        }
        if ends_it {
            self.net.lose(stream, side);
        }
        if node == CLIENT {
            return self.with_client(|client, _, net| {
                client.hear(stream, message, net);
                Ok(())
            });
        }
        let Some(server) = self.servers.get_mut(&node) else { return Ok(()) };
        server.hear(stream, message, &mut self.net);
        server.check()
    }

    fn wake(&mut self, node: Node, life: u32, timer: Timer) {
        if self.net.lives[node] != life {
            return;
        }
        let Some(server) = self.servers.get_mut(&node) else { return };
        if server.stalled_until.is_some() {
            return server.inbox.push(Happening::Timer { node, life, timer });
        }
        self.note(&Happening::Timer { node, life, timer });
        if timer == Timer::Farewell {
            return self.farewell(node);
        }
        if let Some(server) = self.servers.get_mut(&node) {
            server.wake(timer, &mut self.net);
        }
    }

    fn with_client(
        &mut self,
        act: impl FnOnce(&mut Client, &Known, &mut Net) -> Result<(), Violation>,
    ) -> Result<(), Violation> {
        if self.took.is_some() {
            return Ok(());
        }
        let known = Known { servers: &self.servers, announced: &self.announced, fault: self.scenario.fault };
        act(&mut self.client, &known, &mut self.net)?;
        self.client.drive(&known, &mut self.net)?;
        if self.client.is_over() {
            self.took = Some(self.net.now);
            self.check_histories()?;
            self.client.close(&mut self.net);
        }
        Ok(())
    }

    fn operate(&mut self, number: usize) {
        let Some((_, operation)) = self.scenario.operations.get(number) else { return };
        let (now, joined) = (self.net.now, self.servers.len());
        let pick = |server: usize| server % joined + 1;
        match *operation {
            Operation::Crash { server, back_after, reset } => self.crash(pick(server), back_after, reset),
            Operation::Stall { server, lasting } => self.stall(pick(server), now + lasting),
            Operation::Slow { server, factor, lasting } => {
                if let Some(server) = self.servers.get_mut(&pick(server)) {
                    server.slow_down(factor, now + lasting);
                }
            }
            Operation::Swallow { server, lasting, everything } => {
                if let Some(server) = self.servers.get_mut(&pick(server)) {
                    server.swallow(now + lasting, everything);
                }
            }
            Operation::Cut { server, lasting } => self.part(CLIENT, pick(server), Some(lasting), false),
            Operation::Part { one, other, lasting, refused } => self.part(pick(one), pick(other), lasting, refused),
            Operation::Forget { server, keep } => {
                if let Some(server) = self.servers.get_mut(&pick(server)) {
                    server.forget(keep);
                }
            }
            Operation::Occupy { server, lasting } => self.occupy(pick(server), lasting),
            Operation::Leave { server, within } => self.leave(pick(server), within),
            Operation::Join(spec) => self.join(spec),
        }
    }

    /// Whether some block would be served by nobody, for good, without the server.
    fn is_last_replica(&self, node: Node) -> bool {
        let others = || self.servers.iter().filter(|(other, server)| **other != node && !server.gone);
        let served = |block: BlockIndex| others().any(|(_, server)| server.blocks.contains(block));
        self.servers.get(&node).is_some_and(|server| !server.blocks.blocks().all(served))
    }

    fn crash(&mut self, node: Node, back_after: Option<Duration>, reset: bool) {
        let last = self.is_last_replica(node);
        let now = self.net.now;
        let Some(server) = self.servers.get_mut(&node).filter(|server| server.up) else { return };
        server.crash();
        let back_after = back_after.or(last.then_some(LAST_REPLICA_AWAY));
        server.gone = back_after.is_none();
        server.resets = reset;
        self.net.crash(node, reset);
        self.announced.insert(node, now + STALE_ANNOUNCEMENT);
        if let Some(after) = back_after {
            self.net.cause(now + after, Happening::Back(node));
        }
    }

    fn stall(&mut self, node: Node, until: Duration) {
        let Some(server) = self.servers.get_mut(&node).filter(|server| server.up) else { return };
        server.troubled = true;
        server.stalled_until = server.stalled_until.max(Some(until));
        self.net.cause(until, Happening::Resume(node));
    }

    fn part(&mut self, one: Node, two: Node, lasting: Option<Duration>, refused: bool) {
        let pair = (one.min(two), one.max(two));
        if one == two || self.apart.contains_key(&pair) {
            return;
        }
        for node in [one, two] {
            if let Some(server) = self.servers.get_mut(&node) {
                server.troubled = true;
            }
        }
        let until = lasting.map(|lasting| self.net.now + lasting);
        self.apart.insert(pair, Apart { held: Vec::new(), until, refused });
        if let Some(until) = until {
            self.net.cause(until, Happening::Heal(pair.0, pair.1));
        }
    }

    fn leave(&mut self, node: Node, within: Duration) {
        let Some(server) = self.servers.get_mut(&node).filter(|server| server.up && !server.leaving) else { return };
        if server.stalled_until.is_none() {
            server.leave(within, &mut self.net);
        }
    }

    fn farewell(&mut self, node: Node) {
        if let Some(server) = self.servers.get_mut(&node) {
            server.say_farewell(&mut self.net);
        }
        self.crash(node, None, true);
    }

    /// Another client takes what is free, and gives it back after a while.
    fn occupy(&mut self, node: Node, lasting: Duration) {
        let now = self.net.now;
        let Some(server) = self.servers.get_mut(&node).filter(|server| server.up) else { return };
        self.others += 1;
        let (free, life) = (server.admission.free(), self.net.lives[node]);
        let taken = server.admission.open(others_session(self.others), peer_of(OTHERS), free, now);
        if taken.is_ok() {
            self.net.cause(now + lasting, Happening::Vacate(node, life, self.others));
        }
    }

    /// Every hop that is alive holds what it would hold in a run without faults, as far as the client counts on it.
    fn check_histories(&self) -> Result<(), Violation> {
        let whole = self.client.whole();
        for (node, session, held) in self.client.claims() {
            let session = self.servers.get(&node).and_then(|server| server.sessions.get(&session));
            if session.is_some_and(|session| !session.kv.agrees_with(whole, held)) {
                return Err(Violation::WrongHistory { peer: peer_of(node) });
            }
        }
        Ok(())
    }
}

fn others_session(number: u32) -> SessionId {
    let mut id = [0xff; 16];
    id[..4].copy_from_slice(&number.to_le_bytes());
    SessionId(id)
}
