//! The simulated network: time, the queue of what will happen, and streams.
//!
//! What is sent over a stream arrives in order; different streams overtake one another. Each pair of nodes shares a link
//! of some rate, each way.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::message::{Message, Payload};
use super::rows::mix;
use super::scenario::{Scenario, ServerSpec};
use swarm_protocol::wire::{SessionReply, SessionRequest};

/// The client is 0, servers follow in the order of joining.
pub(super) type Node = usize;

/// The simulation's one client.
pub(super) const CLIENT: Node = 0;

/// The most by which a message is late: other traffic.
const JITTER: Duration = Duration::from_millis(4);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct StreamId(pub(super) u32);

/// What a node reminds itself of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Timer {
    // A server's.
    /// The compute thread is done with its job.
    JobDone,
    /// Sessions may have been silent for too long.
    Sweep,
    /// The other end should have said that it expects this server.
    Opening(StreamId),
    /// A frame has left.
    Written(StreamId),
    /// The other end should have received something.
    Watch(StreamId),
    /// The owner should have named the one who came.
    Expected(StreamId),
    /// Whoever feeds should be told that this server lives.
    StillHere(StreamId),
    /// The other end should have stored more than that.
    Piece(StreamId, usize),
    /// The server is gone.
    Farewell,
    // The client's.
    /// Something came, or may be done now.
    Look,
    /// Look at the hops, if that is still the newest such timer.
    Check(u32),
    /// The server should have opened by now.
    Opened(StreamId),
    /// The user changes their mind, if it is still that turn.
    Regret(usize),
    /// The rows are embedded.
    Embedded,
}

#[derive(Debug)]
pub(super) enum Happening {
    Arrive {
        stream: StreamId,
        side: usize,
        message: Message,
    },
    Timer {
        node: Node,
        life: u32,
        timer: Timer,
    },
    /// Something that goes wrong, or right.
    Operation(usize),
    /// The pair may talk again.
    Heal(Node, Node),
    /// The process goes on, if nothing has stopped it again.
    Resume(Node),
    /// The process is started again.
    Back(Node),
    /// Another client gives back what it took.
    Vacate(Node, u32, u32),
}

struct Stream {
    ends: [Node; 2],
    alive: [bool; 2],
    /// When the newest message arrives at each end.
    last: [Duration; 2],
}

pub(super) struct Net {
    pub(super) now: Duration,
    /// Events of the same moment happen in the order in which they were caused.
    queue: BTreeMap<(Duration, u64), Happening>,
    caused: u64,
    streams: Vec<Stream>,
    /// When a link, in one direction, is free.
    free_at: BTreeMap<(Node, Node), Duration>,
    specs: Vec<ServerSpec>,
    /// How often each node was started.
    pub(super) lives: Vec<u32>,
    seed: u64,
    rng: StdRng,
}

impl Net {
    pub(super) fn new(scenario: &Scenario) -> Self {
        Self {
            now: Duration::ZERO,
            queue: BTreeMap::new(),
            caused: 0,
            streams: Vec::new(),
            free_at: BTreeMap::new(),
            specs: Vec::new(),
            lives: vec![0],
            seed: scenario.seed,
            rng: StdRng::seed_from_u64(scenario.seed ^ 0x2e7),
        }
    }

    pub(super) fn join(&mut self, spec: ServerSpec) -> Node {
        self.specs.push(spec);
        self.lives.push(0);
        self.specs.len()
    }

    pub(super) fn cause(&mut self, at: Duration, happening: Happening) {
        self.caused += 1;
        self.queue.insert((at.max(self.now), self.caused), happening);
    }

    pub(super) fn timer(&mut self, node: Node, at: Duration, timer: Timer) {
        let life = self.lives[node];
        self.cause(at, Happening::Timer { node, life, timer });
    }

    /// The next thing that happens; it is then.
    pub(super) fn next(&mut self) -> Option<Happening> {
        let ((at, _), happening) = self.queue.pop_first()?;
        self.now = at;
        Some(happening)
    }

    /// There and back between two nodes. Two servers may be neighbours or far apart, whatever the client's way to them.
    pub(super) fn rtt(&self, one: Node, two: Node) -> Duration {
        let (low, high) = (one.min(two), one.max(two));
        match low {
            CLIENT => self.specs[high - 1].rtt,
            _ => {
                let longest = self.specs[low - 1].rtt + self.specs[high - 1].rtt;
                longest * (1 + (mix(self.seed ^ low as u64, high as u64) >> 40) as u32 % 15) / 16
            }
        }
    }

    /// Bytes a second between two nodes.
    fn rate(&self, one: Node, two: Node) -> u64 {
        let rate = |node: Node| node.checked_sub(1).map_or(u64::MAX, |server| self.specs[server].rate);
        rate(one).min(rate(two))
    }

    pub(super) fn open(&mut self, from: Node, to: Node) -> StreamId {
        let stream = StreamId(self.streams.len() as u32);
        // Nobody dials themselves.
        self.streams.push(Stream { ends: [from, to], alive: [true, from != to], last: [Duration::ZERO; 2] });
        if from == to {
            self.cause(self.now, Happening::Arrive { stream, side: 0, message: Message::Broken });
        }
        stream
    }

    pub(super) fn ends(&self, stream: StreamId) -> [Node; 2] {
        self.streams[stream.0 as usize].ends
    }

    fn side(&self, stream: StreamId, node: Node) -> usize {
        usize::from(self.streams[stream.0 as usize].ends[0] != node)
    }

    pub(super) fn is_alive(&self, stream: StreamId, side: usize) -> bool {
        self.streams[stream.0 as usize].alive[side]
    }

    /// Whether the stream is open on that node's side.
    pub(super) fn has(&self, node: Node, stream: StreamId) -> bool {
        self.is_alive(stream, self.side(stream, node))
    }

    /// Sends a message; says when it has left.
    pub(super) fn send(&mut self, from: Node, stream: StreamId, message: Message) -> Duration {
        let side = self.side(stream, from);
        let (to, known) = (1 - side, &self.streams[stream.0 as usize]);
        let (other, alive) = (known.ends[to], known.alive[side]);
        if !alive || other == from {
            return self.now;
        }
        let took = Duration::from_nanos(message.bytes() as u64 * 1_000_000_000 / self.rate(from, other));
        let leaves = self.free_at.get(&(from, other)).map_or(self.now, |free| self.now.max(*free)) + took;
        self.free_at.insert((from, other), leaves);
        let late = JITTER.mul_f64(self.rng.random_range(0.0..1.0_f64).powi(4));
        let arrives = (leaves + self.rtt(from, other) / 2 + late).max(self.streams[stream.0 as usize].last[to]);
        self.streams[stream.0 as usize].last[to] = arrives;
        self.cause(arrives, Happening::Arrive { stream, side: to, message });
        leaves
    }

    pub(super) fn ask(&mut self, from: Node, stream: StreamId, request: SessionRequest, payload: Payload) -> Duration {
        self.send(from, stream, Message::Request(request, payload))
    }

    pub(super) fn say(&mut self, from: Node, stream: StreamId, reply: SessionReply, payload: Payload) -> Duration {
        self.send(from, stream, Message::Reply(reply, payload))
    }

    /// Ends a stream: the other side reads all that was sent, and then its end.
    pub(super) fn close(&mut self, from: Node, stream: StreamId) {
        self.send(from, stream, Message::End);
        let side = self.side(stream, from);
        self.streams[stream.0 as usize].alive[side] = false;
    }

    /// The stream is gone on that side.
    pub(super) fn lose(&mut self, stream: StreamId, side: usize) {
        self.streams[stream.0 as usize].alive[side] = false;
    }

    /// Tells the other side that nobody is here any more.
    pub(super) fn reset(&mut self, stream: StreamId, side: usize) {
        let known = &self.streams[stream.0 as usize];
        let ([one, two], other) = (known.ends, 1 - side);
        if known.alive[other] && one != two {
            let arrives = (self.now + self.rtt(one, two) / 2).max(known.last[other]);
            self.cause(arrives, Happening::Arrive { stream, side: other, message: Message::Broken });
        }
    }

    /// The process of a node is gone, with its end of every stream; `resets` tells the other ends.
    pub(super) fn crash(&mut self, node: Node, resets: bool) {
        for number in 0..self.streams.len() {
            for side in 0..2 {
                let known = &mut self.streams[number];
                if known.ends[side] == node && std::mem::take(&mut known.alive[side]) && resets {
                    self.reset(StreamId(number as u32), side);
                }
            }
        }
        self.lives[node] += 1;
    }
}
