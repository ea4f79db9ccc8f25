//! The one task that owns admission: who has how much room, and until when.

use std::collections::HashMap;
use std::convert::Infallible;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use swarm_protocol::PeerId;
use swarm_protocol::session::{SessionId, TokenCount};
use swarm_protocol::wire::{PAGE_POSITIONS, Refusal};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::info;

use super::compute::{Compute, Slot};
use super::metrics::ServerMetrics;
use super::occupancy::Rooms;
use super::opening::on_the_wire;
use super::session::Visit;
use crate::admission::{Admission, AdmissionConfig};

/// Requests that may wait; each is answered within microseconds.
const REQUEST_CAPACITY: usize = 256;

/// Visits that may wait for one session: a feed, an import, and a piece of a hand-over.
const VISITS: usize = 4;

enum Request {
    Open { session: SessionId, owner: PeerId, tokens: TokenCount, reply: oneshot::Sender<Result<Lease, Refusal>> },
    Touch(SessionId),
    Find { session: SessionId, reply: oneshot::Sender<Option<mpsc::Sender<Visit>>> },
    Leave,
}

/// Room for one session. When it is dropped, however its holder ended, first the KV cache is freed and then the room is
/// given back.
#[derive(Debug)]
pub(super) struct Lease {
    /// The session's place in the compute thread.
    pub(super) slot: Slot,
    /// How many tokens it may hold.
    pub(super) tokens: TokenCount,
    /// Resolves when the session was silent for too long.
    pub(super) idle: oneshot::Receiver<()>,
    /// Other servers that come to feed the session.
    pub(super) visits: mpsc::Receiver<Visit>,
    _alive: oneshot::Sender<Infallible>,
}

/// Asks the registry.
#[derive(Debug, Clone)]
pub(super) struct Registry {
    requests: mpsc::Sender<Request>,
}

impl Registry {
    /// Starts the task.
    pub(super) fn start(
        config: AdmissionConfig,
        compute: Compute,
        metrics: ServerMetrics,
    ) -> (Self, watch::Receiver<Rooms>) {
        let (requests, queue) = mpsc::channel(REQUEST_CAPACITY);
        let (rooms_sender, rooms) = watch::channel(Rooms { sessions: 0, free: config.budget });
        let task = Task {
            budget: config.budget,
            metrics,
            admission: Admission::new(config),
            compute,
            start: Instant::now(),
            next_slot: 0,
            open: HashMap::new(),
            ending: FuturesUnordered::new(),
            rooms: rooms_sender,
        };
        tokio::spawn(task.run(queue));
        (Self { requests }, rooms)
    }

    /// Reserves room for a session of `owner`.
    ///
    /// # Errors
    /// [`Refusal`] as its client is to be told.
    pub(super) async fn open(&self, session: SessionId, owner: PeerId, tokens: TokenCount) -> Result<Lease, Refusal> {
        let (reply, answer) = oneshot::channel();
        let request = Request::Open { session, owner, tokens, reply };
        self.requests.send(request).await.map_err(|_| Refusal::Leaving)?;
        answer.await.unwrap_or(Err(Refusal::Leaving))
    }

    /// The session's client was heard.
    pub(super) async fn touch(&self, session: SessionId) {
        // Without a registry the server is gone, and every session with it.
        let _ = self.requests.send(Request::Touch(session)).await;
    }

    /// The way to a running session, for a server that has something for it.
    pub(super) async fn find(&self, session: SessionId) -> Option<mpsc::Sender<Visit>> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Find { session, reply }).await.ok()?;
        answer.await.ok()?
    }

    /// From now on every new session is refused.
    pub(super) async fn leave(&self) {
        let _ = self.requests.send(Request::Leave).await;
    }
}

/// How a running session is reached.
struct Entry {
    slot: Slot,
    /// Tells it that it was silent for too long.
    idle: oneshot::Sender<()>,
    visits: mpsc::Sender<Visit>,
}

struct Task {
    budget: TokenCount,
    metrics: ServerMetrics,
    admission: Admission,
    compute: Compute,
    start: Instant,
    next_slot: u64,
    open: HashMap<SessionId, Entry>,
    /// Each resolves when its lease was dropped and its KV cache freed.
    ending: FuturesUnordered<BoxFuture<'static, (SessionId, Slot)>>,
    rooms: watch::Sender<Rooms>,
}

impl Task {
    async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        loop {
            let sweep = self.admission.next_sweep().map(|at| self.start + at);
            tokio::select! {
                request = requests.recv() => match request {
                    Some(request) => self.on_request(request),
                    None => return,
                },
                Some((session, slot)) = self.ending.next() => self.ended(session, slot),
                () = sleep_until(sweep) => self.end_idle(),
            }
            self.publish();
        }
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn on_request(&mut self, request: Request) {
        match request {
            Request::Open { session, owner, tokens, reply } => {
                let lease = self.open(session, owner, tokens);
                if let Err(refusal) = &lease {
                    info!(%session, %owner, %tokens, %refusal, "a session was refused");
                }
                // Without a taker the lease is dropped, which gives the room back.
                let _ = reply.send(lease);
            }
            Request::Touch(session) => {
                self.admission.touch(session, self.now());
            }
            Request::Find { session, reply } => {
                let _ = reply.send(self.open.get(&session).map(|entry| entry.visits.clone()));
            }
            Request::Leave => self.admission.leave(),
        }
    }

    fn open(&mut self, session: SessionId, owner: PeerId, tokens: TokenCount) -> Result<Lease, Refusal> {
        // Its KV cache grows by whole pages.
        let reserved = TokenCount(tokens.0.next_multiple_of(PAGE_POSITIONS));
        let admitted = self.admission.open(session, owner, reserved, self.now());
        admitted.map_err(|refusal| on_the_wire(&refusal))?;
        let slot = Slot(self.next_slot);
        self.next_slot += 1;
        let (idle_sender, idle) = oneshot::channel();
        let (alive, dropped) = oneshot::channel::<Infallible>();
        let compute = self.compute.clone();
        let (visits_sender, visits) = mpsc::channel(VISITS);
        self.open.insert(session, Entry { slot, idle: idle_sender, visits: visits_sender });
        self.ending.push(Box::pin(async move {
            // Nothing is ever sent: this resolves when the lease is dropped.
            let _ = dropped.await;
            compute.close(slot).await;
            (session, slot)
        }));
        Ok(Lease { slot, tokens, idle, visits, _alive: alive })
    }

    /// Ends silent sessions. Their caches are freed as soon as their streams have let go, some milliseconds later.
    fn end_idle(&mut self) {
        for session in self.admission.sweep(self.now()) {
            if let Some(entry) = self.open.remove(&session) {
                info!(%session, "a session was silent for too long");
                let _ = entry.idle.send(());
            }
        }
    }

    /// Gives a session's room back, unless it was idle and its id has been taken by another one since.
    fn ended(&mut self, session: SessionId, slot: Slot) {
        if self.open.get(&session).is_some_and(|entry| entry.slot == slot) {
            self.open.remove(&session);
            self.admission.close(session);
        }
    }

    fn publish(&self) {
        let rooms = Rooms { sessions: self.admission.sessions() as u32, free: self.admission.free() };
        self.metrics.sessions_open.set(i64::from(rooms.sessions));
        self.metrics.kv_reserved_tokens.set(i64::from(self.budget.0.saturating_sub(rooms.free.0)));
        self.rooms.send_if_modified(|known| {
            let changed = *known != rooms;
            *known = rooms;
            changed
        });
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod soak;
