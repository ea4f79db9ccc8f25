//! The swarm that it all happens to.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use swarm_protocol::p2p::BootstrapPeer;
use tokio::runtime::{Builder, Runtime};

use super::outcome::Left;
use super::schedule::{Host, Identity, Operation, Schedule, Slot};
use super::teller::Crowd;
use super::{INITIAL, SLOTS};
use crate::harness::{Process, Server, TestSwarm, eventually_within, leftovers, ready};
use crate::wan::{Link, Place, Wan, WanError};

/// Links of a network as they are before any trouble: a few hundred kilometres.
pub const NEAR: Link = Link::of_delay(Duration::from_millis(5));

/// A slow link: one way takes so long, at so many megabits a second.
const FAR: Link = Link::of_delay(Duration::from_millis(100)).with_rate(2.0);

/// How long a server may hold what a client left behind while it was cut off: two checks of a quiet connection must fail,
/// which takes up to 70 s, and it must be closed.
const IDLE: Duration = Duration::from_secs(150);

/// Threads of all clients together.
const CLIENT_THREADS: usize = 2;

/// What is at a place for a server.
#[derive(Default)]
struct Stand {
    identity: PathBuf,
    guest: Guest,
}

/// Who.
#[derive(Default)]
enum Guest {
    #[default]
    Nobody,
    Starting(Process),
    Serving(Box<Serving>),
}

/// A server, and what it took when it was ready.
struct Serving {
    server: Server,
    memory: u64,
    files: usize,
}

/// A swarm whose members are disturbed.
pub(super) struct Field {
    stands: Vec<Stand>,
    /// Who has ended: for their logs.
    gone: Vec<Process>,
    swarm: TestSwarm,
    /// After all that runs there.
    wan: Option<Wan>,
}

impl Field {
    /// The swarm as it is before anything happens.
    pub(super) fn new(wan: Option<Wan>) -> Self {
        let entry = place(wan.as_ref(), Host::Entry);
        let swarm = TestSwarm::empty_at(&entry, "demo", &[]);
        let stands = (0..SLOTS).map(|_| Stand::default()).collect();
        let mut field = Self { stands, gone: Vec::new(), swarm, wan };
        INITIAL.iter().enumerate().for_each(|(slot, blocks)| field.start(slot, *blocks, Identity::New));
        (0..INITIAL.len()).for_each(|slot| field.await_ready(slot));
        field
    }

    pub(super) fn entry(&self) -> BootstrapPeer {
        self.swarm.entry()
    }

    /// A runtime on the clients' host.
    pub(super) fn runtime_of_clients(&self) -> Runtime {
        let wan = self.wan.as_ref();
        let build = || {
            if let Some(wan) = wan {
                wan.enter(&Host::Clients.name()).expect("the clients' host");
            }
            // Its threads are made by this one, hence there too.
            Builder::new_multi_thread().worker_threads(CLIENT_THREADS).enable_all().build().expect("a runtime")
        };
        std::thread::scope(|scope| scope.spawn(build).join()).expect("a runtime")
    }

    /// Lets everything happen while clients tell texts; ends early if one of them fails.
    pub(super) fn carry_out(&mut self, schedule: &Schedule, crowd: &Crowd) {
        let start = Instant::now();
        for (after, operation) in &schedule.operations {
            if !crowd.is_telling() {
                eprintln!("{:>9.3?} a client has failed", start.elapsed());
                return;
            }
            std::thread::sleep(*after);
            let named = self.name(*operation);
            eprintln!("{:>9.3?} {operation:?} {named}", start.elapsed());
            self.operate(*operation);
        }
    }

    /// The server that an operation is about.
    fn name(&self, operation: Operation) -> String {
        let slot = match operation {
            Operation::Kill(slot) | Operation::Freeze(slot) | Operation::Thaw(slot) => slot,
            Operation::Terminate(slot) | Operation::AwaitExit(slot) => slot,
            Operation::Cut(Host::Server(slot), _) | Operation::Slow(Host::Server(slot), _) => slot,
            _ => return String::new(),
        };
        match &self.stands[slot].guest {
            Guest::Serving(serving) => format!("{} {}", serving.server.peer, serving.server.blocks),
            _ => String::new(),
        }
    }

    fn operate(&mut self, operation: Operation) {
        match operation {
            Operation::Start(slot, blocks, identity) => self.start(slot, blocks, identity),
            Operation::AwaitReady(slot) => self.await_ready(slot),
            Operation::Kill(slot) => {
                let mut process = self.leave(slot);
                process.kill();
                self.gone.push(process);
            }
            Operation::Freeze(slot) => self.process(slot).freeze(),
            Operation::Thaw(slot) => self.process(slot).thaw(),
            Operation::Terminate(slot) => self.process(slot).terminate(),
            Operation::AwaitExit(slot) => self.await_exit(slot),
            Operation::Cut(host, other) => self.wire(|wan| match other {
                Some(other) => wan.cut(&host.name(), &other.name()),
                None => wan.cut_off(&host.name()),
            }),
            Operation::Heal(host, other) => self.wire(|wan| match other {
                Some(other) => wan.heal(&host.name(), &other.name()),
                None => wan.heal_all(&host.name()),
            }),
            Operation::Slow(host, other) => self.wire(|wan| wan.set_link(&host.name(), &other.name(), FAR)),
            Operation::Quicken(host, other) => self.wire(|wan| wan.set_link(&host.name(), &other.name(), NEAR)),
        }
    }

    fn wire(&mut self, order: impl FnOnce(&mut Wan) -> Result<(), WanError>) {
        let wan = self.wan.as_mut().expect("a schedule for a network, and a network");
        order(wan).expect("the hub obeys");
    }

    fn start(&mut self, slot: Slot, blocks: (u32, u32), identity: Identity) {
        if identity == Identity::New {
            self.stands[slot].identity = self.swarm.new_identity();
        }
        let place = place(self.wan.as_ref(), Host::Server(slot));
        let (start, end) = blocks;
        let command = self.swarm.serve_command_at(&place, &self.stands[slot].identity, &format!("{start}..{end}"));
        let process = self.swarm.start(&format!("s{slot}-{start}-{end}"), command);
        self.stands[slot].guest = Guest::Starting(process);
    }

    fn await_ready(&mut self, slot: Slot) {
        let Guest::Starting(process) = std::mem::take(&mut self.stands[slot].guest) else {
            panic!("no server is starting at {slot}");
        };
        let server = ready(process);
        eprintln!("          ready: {} {} at {slot}", server.peer, server.blocks);
        let (memory, files) = (server.process.memory(), server.process.files());
        self.stands[slot].guest = Guest::Serving(Box::new(Serving { server, memory, files }));
    }

    fn await_exit(&mut self, slot: Slot) {
        let mut process = self.leave(slot);
        let exit = process.exit();
        assert_eq!((exit.code, exit.signal), (Some(0), None), "a server that was asked to leave:\n{}", exit.stderr);
        self.gone.push(process);
    }

    fn leave(&mut self, slot: Slot) -> Process {
        match std::mem::take(&mut self.stands[slot].guest) {
            Guest::Serving(serving) => serving.server.process,
            _ => panic!("no server at {slot}"),
        }
    }

    fn process(&self, slot: Slot) -> &Process {
        match &self.stands[slot].guest {
            Guest::Serving(serving) => &serving.server.process,
            _ => panic!("no server at {slot}"),
        }
    }

    /// Waits until every server is idle, lets the clients and then the servers go; nothing of them may stay.
    pub(super) fn clean_up(mut self, crowd: Crowd) -> Vec<Left> {
        let slots: Vec<Slot> =
            (0..SLOTS).filter(|slot| matches!(self.stands[*slot].guest, Guest::Serving(_))).collect();
        let left = slots.iter().map(|slot| self.idle(*slot, &crowd)).collect();
        crowd.go();
        slots.iter().for_each(|slot| self.process(*slot).terminate());
        slots.iter().for_each(|slot| self.await_exit(*slot));
        let folder = self.swarm.folder().to_path_buf();
        drop(self);
        assert!(leftovers(&folder).is_empty(), "processes outlived the swarm");
        left
    }

    /// Waits until a server has no session and all its room.
    fn idle(&self, slot: Slot, crowd: &Crowd) -> Left {
        let Guest::Serving(serving) = &self.stands[slot].guest else {
            panic!("no server at {slot}");
        };
        let Serving { server, memory, files } = serving.as_ref();
        eventually_within(IDLE, &format!("{} {} at {slot} is idle", server.peer, server.blocks), || {
            let load = crowd.load(server)?;
            (load.sessions == 0 && load.free_tokens == load.total_tokens).then_some(())
        });
        Left {
            memory_before: *memory,
            memory: server.process.memory(),
            files_before: *files,
            files: server.process.files(),
        }
    }
}

fn place(wan: Option<&Wan>, host: Host) -> Place {
    wan.map_or_else(Place::loopback, |wan| wan.place(&host.name()).expect("a host of the network"))
}
