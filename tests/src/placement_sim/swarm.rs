//! Virtual time: servers join, look at each other, move, leave and die; and the checks.

use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use swarm_node::placement::{Claim, Coverage, Patience, Plan, Standing, choose, rechoose, still_right};
use swarm_protocol::PeerId;
use swarm_protocol::block::{BlockIndex, BlockRange};
use thiserror::Error;

use super::search::worst;
use super::views::{Snapshot, Views};
use super::{Churn, Scenario, Spec};

/// The time between two looks of a server, and how far it may deviate.
const LOOK: Duration = Duration::from_secs(60);
const JITTER: f64 = 0.1;

/// How long a word needs to reach its holders, in milliseconds.
const REACHES_MS: Range<u64> = 300..3000;
/// How long ago, in milliseconds, it was that holders said what a server sees now; up to a second is added to it.
const LAG_MS: Range<u64> = 0..1900;
/// How long a server waits after it has said that it will move: longer than both together.
const SETTLE_MS: Range<u64> = 6000..9000;
/// How long the dead are still announced.
const TTL: Duration = Duration::from_secs(240);
/// Loading blocks, in milliseconds.
const LOAD_MS: Range<u64> = 15_000..90_000;
/// Handing sessions over, in milliseconds.
const DRAIN_MS: Range<u64> = 0..30_000;
/// A joining server looks this often whether others took the same blocks meanwhile, with such pauses, in milliseconds.
const RECONSIDERATIONS: u32 = 8;
const RECONSIDER_MS: Range<u64> = 400..2000;
/// A swarm in which nobody has moved for so long is at rest: everybody has looked some twenty times.
const REST: Duration = Duration::from_secs(20 * 60);
/// A swarm that has not come to rest so long after the last churn never does.
const RESTLESS: Duration = Duration::from_secs(8 * 3600);

/// What a simulation found wrong.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum Violation {
    /// A server left a block that it was the last to serve.
    #[error("at {at:?}, {peer} left block {block} for {to}, and nobody serves it any more")]
    LastReplicaLeft {
        /// When.
        at: Duration,
        /// Who.
        peer: PeerId,
        /// What it left.
        block: BlockIndex,
        /// What for.
        to: BlockRange,
    },
    /// A pinned server moved.
    #[error("{0} moved, though it is pinned")]
    PinnedMoved(PeerId),
    /// Servers keep moving though nothing happens.
    #[error("the swarm did not come to rest within {RESTLESS:?}; {0} moves")]
    Restless(usize),
}

/// How a simulation ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The throughput of the worst-served block when the swarm was at rest.
    pub bottleneck: f64,
    /// What it would be if nobody had moved: every server where it is, had it stayed where it settled first.
    pub without_moves: f64,
    /// The servers that are left.
    pub servers: Vec<Spec>,
    /// What each of them hosts.
    pub placed: Vec<BlockRange>,
    /// Joins, leaves and deaths after the founding.
    pub events: usize,
    /// Moves by the end of the founding, a quarter of an hour of rest included.
    pub founding_moves: usize,
    /// Moves after it.
    pub moves: usize,
    /// The most moves between an event and the next.
    pub most_moves: usize,
    /// Moves that were announced and then taken back.
    pub taken_back: usize,
}

#[derive(Debug, Clone)]
enum State {
    Joining {
        looks: u32,
    },
    Serving,
    /// It serves, and has said that it will move.
    Going {
        plan: Plan,
        to: BlockRange,
        counted: Rc<Snapshot>,
    },
    Loading,
    Gone,
}

#[derive(Debug)]
struct Server {
    spec: Spec,
    claim: Claim,
    first: BlockRange,
    state: State,
    patience: Patience,
    sequence: u64,
}

#[derive(Debug)]
enum Event {
    Churn(usize),
    Reached { peer: PeerId, sequence: u64, claim: Option<Claim> },
    Reconsider(PeerId),
    Loaded(PeerId),
    Look(PeerId),
    Settled(PeerId),
}

struct World<'a> {
    scenario: &'a Scenario,
    model: BlockRange,
    rng: StdRng,
    now: Duration,
    queue: BTreeMap<(Duration, u64), Event>,
    caused: u64,
    servers: BTreeMap<PeerId, Server>,
    views: Views,
    /// When something last changed: an event, a move, a word.
    changed: Duration,
    churned: usize,
    moves: Vec<usize>,
    taken_back: usize,
}

/// Runs a scenario until the swarm is at rest.
///
/// # Errors
/// [`Violation`]: the first thing that is wrong.
pub fn run(scenario: &Scenario) -> Result<Outcome, Violation> {
    let mut world = World::new(scenario);
    while let Some(((at, _), event)) = world.queue.pop_first() {
        let over = world.churned == scenario.churn.len();
        if over && at > world.changed + REST {
            break;
        }
        if over && world.last_churn() + RESTLESS < at {
            return Err(Violation::Restless(world.moves.iter().sum()));
        }
        world.now = at;
        world.handle(event)?;
    }
    Ok(world.outcome())
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario) -> Self {
        let model = BlockRange::new(0, scenario.blocks).unwrap_or_else(|_| unreachable!("a model has blocks"));
        let mut world = Self {
            scenario,
            model,
            rng: StdRng::seed_from_u64(scenario.seed),
            now: Duration::ZERO,
            queue: BTreeMap::new(),
            caused: 0,
            servers: BTreeMap::new(),
            views: Views::new(Duration::from_millis(LAG_MS.end + 1000)),
            changed: Duration::ZERO,
            churned: 0,
            moves: vec![0],
            taken_back: 0,
        };
        let mut at = Duration::ZERO;
        for (index, (pause, _)) in scenario.churn.iter().enumerate() {
            at += *pause;
            if index == scenario.founding {
                // The founders come to rest before the churn begins.
                at += REST;
            }
            world.cause(at, Event::Churn(index));
        }
        world
    }

    fn last_churn(&self) -> Duration {
        self.scenario.churn.iter().map(|(pause, _)| *pause).sum::<Duration>() + REST
    }

    fn cause(&mut self, at: Duration, event: Event) {
        self.queue.insert((at, self.caused), event);
        self.caused += 1;
    }

    fn soon(&mut self, millis: Range<u64>, event: Event) {
        let at = self.now + Duration::from_millis(self.rng.random_range(millis));
        self.cause(at, event);
    }

    fn handle(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Churn(index) => self.churn(index),
            Event::Reached { peer, sequence, claim } => self.views.reached(peer, sequence, claim, self.now),
            Event::Reconsider(peer) => self.reconsider(peer),
            Event::Loaded(peer) => self.loaded(peer),
            Event::Look(peer) => self.look(peer),
            Event::Settled(peer) => self.settled(peer)?,
        }
        Ok(())
    }

    fn churn(&mut self, index: usize) {
        self.churned += 1;
        self.changed = self.now;
        if index >= self.scenario.founding {
            self.moves.push(0);
        }
        let Some((_, churn)) = self.scenario.churn.get(index) else {
            return;
        };
        let serving: Vec<PeerId> =
            self.servers.values().filter(|server| server.serves()).map(|server| server.claim.peer).collect();
        let chosen = |number: usize| serving.get(number % serving.len().max(1)).copied();
        match *churn {
            Churn::Join(spec) => self.join(spec),
            Churn::Leave(number) => chosen(number).into_iter().for_each(|peer| self.gone(peer, true)),
            Churn::Die(number) => chosen(number).into_iter().for_each(|peer| self.gone(peer, false)),
        }
    }

    /// What can be seen of the swarm now.
    fn seen(&mut self) -> Rc<Snapshot> {
        let lag = Duration::from_millis(self.rng.random_range(LAG_MS));
        // Whole seconds: those who look together see the same, and the plan for it is worked out once.
        self.views.at(Duration::from_secs(self.now.saturating_sub(lag).as_secs()))
    }

    fn join(&mut self, spec: Spec) {
        let mut id = [0u8, 8, 0, 0, 0, 0, 0, 0, 0, 0];
        self.rng.fill(&mut id[2..]);
        let peer = PeerId::from_bytes(&id).unwrap_or_else(|_| PeerId::random());
        let seen = self.seen();
        let chosen = choose(&coverage(self.model, &seen.claims), spec.blocks, spec.rate, &mut self.rng);
        let blocks = spec.pinned.unwrap_or(chosen);
        let claim = Claim { peer, blocks, tokens_per_second: spec.rate, standing: Standing::Joining };
        let state = State::Joining { looks: 0 };
        let server = Server { spec, claim, first: blocks, state, patience: Patience::default(), sequence: 0 };
        self.servers.insert(peer, server);
        self.say(peer);
        self.soon(RECONSIDER_MS, Event::Reconsider(peer));
    }

    /// Puts what a server is into the DHT.
    fn say(&mut self, peer: PeerId) {
        let Some(server) = self.servers.get_mut(&peer) else {
            return;
        };
        server.sequence += 1;
        let mut claim = server.claim.clone();
        if let State::Going { to, .. } = server.state {
            (claim.blocks, claim.standing) = (to, Standing::Joining);
        }
        let sequence = server.sequence;
        self.changed = self.now;
        self.soon(REACHES_MS, Event::Reached { peer, sequence, claim: Some(claim) });
    }

    fn gone(&mut self, peer: PeerId, says_so: bool) {
        let Some(server) = self.servers.get_mut(&peer) else {
            return;
        };
        server.state = State::Gone;
        server.sequence += 1;
        let event = Event::Reached { peer, sequence: server.sequence, claim: None };
        if says_so {
            self.soon(REACHES_MS, event);
        } else {
            self.cause(self.now + TTL, event);
        }
    }

    fn reconsider(&mut self, peer: PeerId) {
        let seen = self.seen();
        let others: Vec<Claim> = seen.claims.iter().filter(|claim| claim.peer != peer).cloned().collect();
        let Some(server) = self.servers.get_mut(&peer) else {
            return;
        };
        let State::Joining { looks } = &mut server.state else {
            return;
        };
        *looks += 1;
        let pinned = server.spec.pinned.is_some();
        let better = rechoose(self.model, &server.claim, &others, &mut self.rng);
        match better.filter(|_| !pinned && *looks <= RECONSIDERATIONS) {
            Some(blocks) => {
                (server.claim.blocks, server.first) = (blocks, blocks);
                self.say(peer);
                self.soon(RECONSIDER_MS, Event::Reconsider(peer));
            }
            None => self.soon(LOAD_MS, Event::Loaded(peer)),
        }
    }

    fn loaded(&mut self, peer: PeerId) {
        let Some(server) = self.servers.get_mut(&peer).filter(|server| !matches!(server.state, State::Gone)) else {
            return;
        };
        (server.state, server.claim.standing) = (State::Serving, Standing::Serving);
        server.patience.settle();
        let pinned = server.spec.pinned.is_some();
        self.say(peer);
        if !pinned {
            self.look_later(peer);
        }
    }

    fn look_later(&mut self, peer: PeerId) {
        let pause = LOOK.mul_f64(self.rng.random_range(1.0 - JITTER..1.0 + JITTER));
        self.cause(self.now + pause, Event::Look(peer));
    }

    fn look(&mut self, peer: PeerId) {
        let seen = self.seen();
        let Some(server) = self.servers.get_mut(&peer).filter(|server| matches!(server.state, State::Serving)) else {
            return;
        };
        // What others know of it is old; by its next look it is not.
        let known = seen.claim(peer) == Some(&server.claim);
        let decided = known.then(|| {
            let common = seen.plan(self.model);
            server.patience.look_at(self.model, common, peer, &seen.claims, &mut self.rng)
        });
        match decided.flatten() {
            Some((plan, step)) => {
                server.state = State::Going { plan, to: step.to, counted: seen };
                self.say(peer);
                self.soon(SETTLE_MS, Event::Settled(peer));
            }
            None => self.look_later(peer),
        }
    }

    fn settled(&mut self, peer: PeerId) -> Result<(), Violation> {
        let seen = self.seen();
        // It asks the servers that it leaves its blocks to: the dead do not answer.
        let answers = |claim: &&Claim| {
            claim.standing == Standing::Joining || self.servers.get(&claim.peer).is_some_and(Server::serves)
        };
        let seen: Vec<Claim> = seen.claims.iter().filter(answers).cloned().collect();
        let Some(server) = self.servers.get_mut(&peer) else {
            return Ok(());
        };
        let State::Going { plan, to, counted } = &server.state else {
            return Ok(());
        };
        let to = *to;
        if still_right(self.model, &server.claim, (plan, to), &counted.claims, &seen) {
            self.check_leaving(peer, to)?;
            self.go(peer, to);
        } else {
            server.state = State::Serving;
            self.taken_back += 1;
            self.say(peer);
            self.look_later(peer);
        }
        Ok(())
    }

    fn go(&mut self, peer: PeerId, to: BlockRange) {
        let Some(server) = self.servers.get_mut(&peer) else {
            return;
        };
        server.state = State::Loading;
        (server.claim.blocks, server.claim.standing) = (to, Standing::Joining);
        self.moves.last_mut().into_iter().for_each(|moves| *moves += 1);
        self.changed = self.now;
        self.soon(DRAIN_MS.start + LOAD_MS.start..DRAIN_MS.end + LOAD_MS.end, Event::Loaded(peer));
    }

    fn check_leaving(&self, peer: PeerId, to: BlockRange) -> Result<(), Violation> {
        let serving = || self.servers.values().filter(|server| server.serves());
        let Some(mine) = self.servers.get(&peer) else {
            return Ok(());
        };
        if mine.spec.pinned.is_some() {
            return Err(Violation::PinnedMoved(peer));
        }
        let others = |block| serving().any(|server| server.claim.peer != peer && server.claim.blocks.contains(block));
        let whole = self.model.blocks().all(|block| serving().any(|server| server.claim.blocks.contains(block)));
        // A model that lacks blocks is of use to nobody.
        match mine.claim.blocks.blocks().find(|block| whole && !others(*block)) {
            Some(block) => Err(Violation::LastReplicaLeft { at: self.now, peer, block, to }),
            None => Ok(()),
        }
    }

    fn outcome(&self) -> Outcome {
        let left = || self.servers.values().filter(|server| server.serves());
        let placed = |blocks: fn(&Server) -> BlockRange| {
            worst(self.scenario.blocks, left().map(|server| (blocks(server), server.spec.rate)))
        };
        let churn = self.moves.get(1..).unwrap_or_default();
        Outcome {
            bottleneck: placed(|server| server.claim.blocks),
            without_moves: placed(|server| server.first),
            servers: left().map(|server| server.spec).collect(),
            placed: left().map(|server| server.claim.blocks).collect(),
            events: churn.len(),
            founding_moves: self.moves.first().copied().unwrap_or(0),
            moves: churn.iter().sum(),
            most_moves: churn.iter().copied().max().unwrap_or(0),
            taken_back: self.taken_back,
        }
    }
}

impl Server {
    /// Whether sessions are welcome, or at least still served.
    fn serves(&self) -> bool {
        matches!(self.state, State::Serving | State::Going { .. })
    }
}

fn coverage(model: BlockRange, claims: &[Claim]) -> Coverage {
    let mut coverage = Coverage::none(model);
    claims.iter().for_each(|claim| coverage.add(claim.blocks, claim.tokens_per_second));
    coverage
}
