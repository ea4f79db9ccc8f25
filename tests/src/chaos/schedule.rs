//! What happens when: drawn from a seed before anything runs. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};

use super::agenda::Agenda;
use super::state::State;
use super::{INITIAL, SLOTS};

/// A place where a server may run; the servers there come and go.
pub type Slot = usize;

/// Something on the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    /// The bootstrap peer.
    Entry,
    /// All clients.
    Clients,
    /// A place for a server.
    Server(Slot),
}

impl Host {
    /// Its name in a wide-area network.
    pub fn name(self) -> String {
        match self {
            Self::Entry => "entry".to_string(),
            Self::Clients => "clients".to_string(),
            Self::Server(slot) => format!("s{slot}"),
        }
    }
}

/// One thing that is done to the swarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// A server of these blocks begins to start, with the identity of the last one there, or a new one.
    Start(Slot, (u32, u32), Identity),
    /// It is waited for.
    AwaitReady(Slot),
    /// A server is gone at once.
    Kill(Slot),
    /// A server is silent; its connections stay open.
    Freeze(Slot),
    /// It goes on.
    Thaw(Slot),
    /// A server is asked to leave.
    Terminate(Slot),
    /// It must have ended well.
    AwaitExit(Slot),
    /// Packets between two hosts, or between one and all others, are lost.
    Cut(Host, Option<Host>),
    /// No more.
    Heal(Host, Option<Host>),
    /// The link between two hosts becomes slow and far.
    Slow(Host, Host),
    /// It is as before.
    Quicken(Host, Host),
}

/// Who a starting server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// Somebody new.
    New,
    /// The server that was there before: a restart.
    Same,
}

/// A kind of disturbance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A server is killed.
    Kill,
    /// A server is frozen for some seconds.
    Freeze,
    /// A server is asked to leave.
    Leave,
    /// A new server joins.
    Join,
    /// A server that ended comes back under its identity.
    Restart,
    /// A block has no server for a moment.
    Blackout,
    /// Two servers, or a server and the entry point, do not hear each other for some seconds.
    CutServers,
    /// A server and the clients do not.
    CutClients,
    /// A server hears nobody for some seconds.
    CutOff,
    /// A link is slow for some seconds.
    Slow,
}

/// What is drawn in turn, in random order, where servers are processes on one machine.
pub const PROCESS_KINDS: [Kind; 14] = [
    Kind::Kill,
    Kind::Kill,
    Kind::Kill,
    Kind::Freeze,
    Kind::Freeze,
    Kind::Freeze,
    Kind::Leave,
    Kind::Leave,
    Kind::Leave,
    Kind::Join,
    Kind::Join,
    Kind::Restart,
    Kind::Restart,
    Kind::Blackout,
];

/// The same where they are hosts of a network.
pub const NETWORK_KINDS: [Kind; 16] = [
    Kind::Kill,
    Kind::Kill,
    Kind::Freeze,
    Kind::Leave,
    Kind::Leave,
    Kind::Join,
    Kind::Restart,
    Kind::Restart,
    Kind::Blackout,
    Kind::CutServers,
    Kind::CutServers,
    Kind::CutServers,
    Kind::CutClients,
    Kind::CutClients,
    Kind::CutOff,
    Kind::Slow,
];

/// Ranges of servers that join.
const RANGES: [(u32, u32); 5] = [(0, 4), (4, 8), (8, 12), (0, 6), (6, 12)];

/// Milliseconds from one disturbance to the next.
const GAP: std::ops::Range<u64> = 100..800;

/// Milliseconds until a frozen server, a cut link or a slow one is as before: less and more than it takes to be noticed.
const TROUBLE: std::ops::Range<u64> = 500..8000;

/// Milliseconds without any server of a block: sessions must wait that long.
const DARK: std::ops::Range<u64> = 1000..3000;

/// Milliseconds until a starting server is waited for: a little more than it takes.
const STARTING: u64 = 2000;

/// Milliseconds until a leaving server is waited for: it may have sessions to hand over.
const LEAVING: u64 = 6000;

/// Fewer servers than this are too few to take one away.
const FEWEST: usize = 6;

/// Everything that happens, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// What it was drawn from.
    pub seed: u64,
    /// Each operation with the time since the one before.
    pub operations: Vec<(Duration, Operation)>,
    kinds: Vec<Kind>,
}

impl Schedule {
    /// What happens within `length`, of these kinds, and how it is undone. Each block keeps a server that runs and hears
    /// the clients, except in a [`Kind::Blackout`].
    pub fn draw(seed: u64, length: Duration, kinds: &[Kind]) -> Self {
        let mut drawing = Drawing {
            rng: StdRng::seed_from_u64(seed),
            now: 0,
            last: 0,
            light_at: 0,
            state: State::new(SLOTS, &INITIAL),
            agenda: Agenda::default(),
            all: kinds.to_vec(),
            bag: Vec::new(),
            schedule: Self { seed, operations: Vec::new(), kinds: Vec::new() },
        };
        drawing.run(length.as_millis() as u64);
        drawing.schedule
    }

    /// How often each kind of disturbance happens.
    pub fn counts(&self) -> BTreeMap<Kind, usize> {
        self.kinds.iter().fold(BTreeMap::new(), |mut counts, kind| {
            *counts.entry(*kind).or_default() += 1;
            counts
        })
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.operations.iter().try_for_each(|(after, operation)| writeln!(f, "{after:>7?} {operation:?}"))
    }
}

struct Drawing {
    rng: StdRng,
    /// Milliseconds.
    now: u64,
    /// When the last operation is.
    last: u64,
    /// When the last blackout is over.
    light_at: u64,
    state: State,
    /// What undoes what was done.
    agenda: Agenda,
    all: Vec<Kind>,
    /// What is drawn before any kind is drawn again.
    bag: Vec<Kind>,
    schedule: Schedule,
}

impl Drawing {
    fn run(&mut self, length: u64) {
        let mut next = self.rng.random_range(GAP);
        loop {
            match self.agenda.next() {
                Some(at) if at <= next || next >= length => {
                    self.now = self.now.max(at);
                    self.agenda.take().into_iter().for_each(|operation| self.emit(operation));
                }
                _ if next >= length => return,
                _ => {
                    self.now = self.now.max(next);
                    if self.now >= self.light_at {
                        self.disturb();
                    }
                    next = self.now + self.rng.random_range(GAP);
                }
            }
        }
    }

    fn emit(&mut self, operation: Operation) {
        self.state.apply(operation);
        self.schedule.operations.push((Duration::from_millis(self.now - self.last), operation));
        self.last = self.now;
    }

    /// The first of the bag that can happen now.
    fn disturb(&mut self) {
        if self.state.present() < FEWEST && (self.start(Kind::Restart) || self.start(Kind::Join)) {
            return;
        }
        if self.bag.is_empty() {
            self.bag = self.all.clone();
            self.bag.shuffle(&mut self.rng);
        }
        for (place, kind) in self.bag.clone().into_iter().enumerate() {
            if self.try_kind(kind) {
                self.bag.remove(place);
                return;
            }
        }
    }

    /// Whether it happened.
    fn try_kind(&mut self, kind: Kind) -> bool {
        let happened = match kind {
            Kind::Join | Kind::Restart => return self.start(kind),
            Kind::Kill => self.kill(),
            Kind::Leave => self.leave(),
            Kind::Freeze => self.trouble_one(Operation::Freeze, Operation::Thaw),
            Kind::CutClients => {
                let between = |slot| (Host::Server(slot), Some(Host::Clients));
                self.trouble_one(|slot| cut(between(slot)), |slot| heal(between(slot)))
            }
            Kind::CutOff => {
                let whole = |slot| (Host::Server(slot), None);
                self.trouble_one(|slot| cut(whole(slot)), |slot| heal(whole(slot)))
            }
            Kind::CutServers => self.cut_servers(),
            Kind::Slow => self.slow(),
            Kind::Blackout => self.blackout(),
        };
        if happened {
            self.schedule.kinds.push(kind);
        }
        happened
    }

    fn start(&mut self, kind: Kind) -> bool {
        let free = self.state.free(kind == Kind::Restart);
        let Some((slot, before)) = free.choose(&mut self.rng).copied() else {
            return false;
        };
        let (blocks, identity) = match before {
            Some(blocks) if kind == Kind::Restart => (blocks, Identity::Same),
            _ => (*RANGES.choose(&mut self.rng).unwrap_or(&RANGES[0]), Identity::New),
        };
        self.emit(Operation::Start(slot, blocks, identity));
        self.agenda.add(self.now + STARTING, Operation::AwaitReady(slot));
        self.schedule.kinds.push(kind);
        true
    }

    fn kill(&mut self) -> bool {
        let mut victims = self.state.spare();
        victims.extend(self.state.leaving());
        let Some(slot) = victims.choose(&mut self.rng).copied() else {
            return false;
        };
        self.agenda.forget(Operation::AwaitExit(slot));
        self.emit(Operation::Kill(slot));
        true
    }

    fn leave(&mut self) -> bool {
        let Some(slot) = self.state.spare().choose(&mut self.rng).copied() else {
            return false;
        };
        self.emit(Operation::Terminate(slot));
        self.agenda.add(self.now + LEAVING, Operation::AwaitExit(slot));
        true
    }

    /// Something that is undone later happens to a server that can be spared.
    fn trouble_one(&mut self, done: impl Fn(Slot) -> Operation, undone: impl Fn(Slot) -> Operation) -> bool {
        let Some(slot) = self.state.spare().choose(&mut self.rng).copied() else {
            return false;
        };
        self.trouble(done(slot), undone(slot));
        true
    }

    fn trouble(&mut self, done: Operation, undone: Operation) {
        self.emit(done);
        let undone_at = self.now + self.rng.random_range(TROUBLE);
        self.agenda.add(undone_at, undone);
    }

    fn cut_servers(&mut self) -> bool {
        let serving = self.state.serving();
        let Some(one) = serving.choose(&mut self.rng).copied() else {
            return false;
        };
        let servers = serving.into_iter().filter(|other| *other != one).map(Host::Server);
        let others: Vec<Host> = servers.chain([Host::Entry]).collect();
        let other = others.choose(&mut self.rng).copied();
        self.trouble(cut((Host::Server(one), other)), heal((Host::Server(one), other)));
        true
    }

    fn slow(&mut self) -> bool {
        let serving = self.state.serving();
        let Some(one) = serving.choose(&mut self.rng).copied() else {
            return false;
        };
        let servers = serving.into_iter().filter(|other| *other != one).map(Host::Server);
        let others: Vec<Host> = servers.chain([Host::Clients]).collect();
        let (one, other) = (Host::Server(one), *others.choose(&mut self.rng).unwrap_or(&Host::Clients));
        self.trouble(Operation::Slow(one, other), Operation::Quicken(one, other));
        true
    }

    /// All servers of a block are silent, or all clients are cut off; nothing else happens meanwhile.
    fn blackout(&mut self) -> bool {
        let off = (Host::Clients, None);
        let block = self.rng.random_range(0..INITIAL[INITIAL.len() - 1].1);
        let servers: Vec<Slot> =
            self.state.serving().into_iter().filter(|slot| self.state.hosts(*slot, block)).collect();
        let length = self.rng.random_range(DARK);
        self.light_at = self.now + length;
        self.agenda.postpone(self.light_at, length);
        let of_network = self.all.contains(&Kind::CutOff);
        if of_network && self.rng.random_bool(0.5) {
            self.emit(cut(off));
            self.agenda.add(self.light_at, heal(off));
            return true;
        }
        for slot in servers {
            self.emit(Operation::Freeze(slot));
            self.agenda.add(self.light_at, Operation::Thaw(slot));
        }
        true
    }
}

fn cut((host, other): (Host, Option<Host>)) -> Operation {
    Operation::Cut(host, other)
}

fn heal((host, other): (Host, Option<Host>)) -> Operation {
    Operation::Heal(host, other)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_secs(20);

    fn schedules() -> impl Iterator<Item = Schedule> {
        let of = |kinds: &'static [Kind]| (0..100).map(move |seed| Schedule::draw(seed, LENGTH, kinds));
        of(&PROCESS_KINDS).chain(of(&NETWORK_KINDS))
    }

    #[test]
    fn a_seed_says_all() {
        let draw = |seed| Schedule::draw(seed, LENGTH, &NETWORK_KINDS);
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7).operations, draw(8).operations);
    }

    #[test]
    fn every_kind_happens_again_and_again() {
        for schedule in schedules() {
            let network = schedule.counts().contains_key(&Kind::CutServers);
            let kinds: &[Kind] = if network { &NETWORK_KINDS } else { &PROCESS_KINDS };
            for kind in kinds {
                assert!(schedule.counts()[kind] >= 1, "{kind:?} with seed {}:\n{schedule}", schedule.seed);
            }
            assert!(schedule.counts().values().sum::<usize>() >= 18, "seed {}: {:?}", schedule.seed, schedule.counts());
        }
    }

    #[test]
    fn a_block_is_without_servers_for_a_moment_only() {
        let mut darkest = 0;
        for schedule in schedules() {
            let mut state = State::new(SLOTS, &INITIAL);
            let (mut now, mut dark) = (0, None);
            for (after, operation) in &schedule.operations {
                now += after.as_millis() as u64;
                if let Some(since) = dark {
                    assert!(now - since <= DARK.end, "seed {}:\n{schedule}", schedule.seed);
                    darkest = darkest.max(now - since);
                    let waits = matches!(operation, Operation::AwaitReady(_) | Operation::AwaitExit(_));
                    assert!(!waits, "{operation:?} may take long:\n{schedule}");
                }
                state.apply(*operation);
                dark = if state.is_covered(None) { None } else { dark.or(Some(now)) };
            }
            assert_eq!(dark, None);
        }
        assert!(darkest > DARK.start, "blocks do lose all their servers");
    }

    #[test]
    fn all_is_undone_at_the_end() {
        for schedule in schedules() {
            let mut state = State::new(SLOTS, &INITIAL);
            schedule.operations.iter().for_each(|(_, operation)| state.apply(*operation));
            assert!(state.is_at_rest(), "seed {}:\n{schedule}", schedule.seed);
        }
    }
}
