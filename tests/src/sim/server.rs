//! A simulated server: real admission, KV caches of hashes, and a worker that takes its time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use swarm_client::chain::{OutputRows, WorkId};
use swarm_node::admission::{Admission, AdmissionConfig};
use swarm_protocol::PeerId;
use swarm_protocol::block::BlockRange;
use swarm_protocol::session::{SessionId, TokenCount};

use super::message::{Reply, Request};
use super::rows::{Activations, Kv};
use super::scenario::{Fault, ServerSpec};

/// How long a session may be silent, in simulated time.
const IDLE: Duration = Duration::from_secs(5);

pub(super) struct Server {
    pub(super) blocks: BlockRange,
    pub(super) spec: ServerSpec,
    pub(super) admission: Admission,
    pub(super) sessions: BTreeMap<SessionId, Kv>,
    /// Sessions whose connection broke without a word.
    pub(super) cut: BTreeSet<SessionId>,
    pub(super) up: bool,
    pub(super) leaving: bool,
    /// It will never be back.
    pub(super) gone: bool,
    /// What arrives before this moment waits.
    pub(super) stalled_until: Duration,
    /// When its worker is free.
    busy_until: Duration,
    fault: Fault,
}

impl Server {
    pub(super) fn new(blocks: BlockRange, spec: ServerSpec, fault: Fault) -> Self {
        Self {
            blocks,
            spec,
            admission: Self::empty(spec.budget),
            sessions: BTreeMap::new(),
            cut: BTreeSet::new(),
            up: true,
            leaving: false,
            gone: false,
            stalled_until: Duration::ZERO,
            busy_until: Duration::ZERO,
            fault,
        }
    }

    fn empty(budget: TokenCount) -> Admission {
        Admission::new(AdmissionConfig { idle: IDLE, ..AdmissionConfig::of(budget) })
    }

    /// The process dies, and with it all it knew; says whose connections it takes along.
    pub(super) fn crash(&mut self) -> Vec<SessionId> {
        self.up = false;
        self.leaving = false;
        self.admission = Self::empty(self.spec.budget);
        self.cut.clear();
        std::mem::take(&mut self.sessions).into_keys().collect()
    }

    pub(super) fn sweep(&mut self, now: Duration) {
        for session in self.admission.sweep(now) {
            self.sessions.remove(&session);
        }
    }

    /// Every KV cache loses what lies beyond `keep`.
    pub(super) fn forget(&mut self, keep: usize) {
        self.sessions.values_mut().for_each(|kv| kv.truncate(keep));
    }

    /// What it answers, and when.
    pub(super) fn handle(
        &mut self,
        session: SessionId,
        client: PeerId,
        request: Request,
        now: Duration,
    ) -> Option<(Duration, Reply)> {
        match request {
            Request::Open { blocks, tokens } => {
                if !self.blocks.covers(blocks) {
                    return Some((now, Reply::Reset));
                }
                match self.admission.open(session, client, tokens, now) {
                    Ok(()) => {
                        self.sessions.insert(session, Kv::new(blocks));
                        Some((now, Reply::Opened))
                    }
                    Err(refusal) => Some((now, Reply::Refused(refusal))),
                }
            }
            Request::Close => {
                self.sessions.remove(&session);
                if self.fault != Fault::LeaksReservations {
                    self.admission.close(session);
                }
                None
            }
            Request::Step { work, from, rows, output } => Some(self.step(session, work, from, rows, output, now)),
        }
    }

    fn step(
        &mut self,
        session: SessionId,
        work: WorkId,
        from: TokenCount,
        rows: Activations,
        output: OutputRows,
        now: Duration,
    ) -> (Duration, Reply) {
        let room = self.admission.tokens(session).unwrap_or_default();
        let count = rows.0.len();
        let Some(kv) = self.sessions.get_mut(&session).filter(|_| from.as_usize() + count <= room.as_usize()) else {
            return (now, Reply::Reset);
        };
        self.admission.touch(session, now);
        if from.as_usize() > kv.len() && self.fault != Fault::ComputesOverGaps {
            return (now, Reply::Behind { work, kv: TokenCount(kv.len() as u32) });
        }
        if self.fault != Fault::KeepsStaleRows {
            kv.truncate(from.as_usize());
        }
        let mut answer = kv.feed(rows.0);
        let answer = answer.split_off(answer.len() - output.of(count));
        let compute = self.spec.block_time * self.blocks.len() + self.spec.block_time / 8 * count as u32;
        self.busy_until = self.busy_until.max(now) + compute;
        let rows = (!answer.is_empty()).then_some(Activations(answer));
        (self.busy_until, Reply::Answer { work, rows })
    }
}
