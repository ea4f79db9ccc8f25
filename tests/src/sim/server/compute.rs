//! The compute thread: one job after another.

use std::time::Duration;

use swarm_node::hop::Source;
use swarm_protocol::activations::Rows;
use swarm_protocol::session::SessionId;
use swarm_protocol::wire::{KvHeader, SessionReply, Step, StepDone, StepError};

use super::Server;
use crate::sim::message::Payload;
use crate::sim::network::{Net, StreamId, Timer};
use crate::sim::rows::Activations;
use crate::sim::scenario::Fault;

/// A row more takes that part of what a step of one row takes.
const ROWS_PER_STEP: u32 = 8;

pub(super) enum Job {
    Step { session: SessionId, source: Source, step: Step, rows: Activations, queued: Duration },
    Export { session: SessionId, epoch: u32, from: usize, count: usize, stream: StreamId },
    Import { session: SessionId, header: KvHeader, kv: Vec<Vec<u64>>, outputs: Option<Activations> },
}

impl Job {
    fn session(&self) -> SessionId {
        match self {
            Self::Step { session, .. } | Self::Export { session, .. } | Self::Import { session, .. } => *session,
        }
    }

    fn rows(&self) -> u32 {
        match self {
            Self::Step { rows, .. } => rows.rows() as u32,
            Self::Export { .. } | Self::Import { .. } => 1,
        }
    }
}

impl Server {
    /// Begins the next job, if none is under way. Those of sessions that are gone are nobody's.
    pub(super) fn work(&mut self, net: &mut Net) {
        self.jobs.retain(|job| self.sessions.contains_key(&job.session()));
        if self.current.is_some() {
            return;
        }
        let Some(job) = self.jobs.pop_front() else { return };
        let session = &self.sessions[&job.session()];
        let one = self.spec.block_time * session.blocks.len();
        let took = (one + one / ROWS_PER_STEP * job.rows()) * self.slowness(net.now);
        self.current = Some(job);
        net.timer(self.node, net.now + took, Timer::JobDone);
    }

    fn slowness(&mut self, now: Duration) -> u32 {
        let (factor, until) = self.slow;
        if now >= until {
            return 1;
        }
        self.counts.slow_steps += 1;
        factor
    }

    pub(super) fn on_job_done(&mut self, net: &mut Net) {
        let job = self.current.take();
        for (owner, nonce) in std::mem::take(&mut self.unheard) {
            net.say(self.node, owner, SessionReply::Pong { nonce }, Payload::None);
        }
        let Some(job) = job else { return };
        let Some(session) = self.sessions.get_mut(&job.session()) else { return };
        session.pending -= 1;
        match job {
            Job::Step { session, source, step, rows, queued } => self.compute(session, source, step, rows, queued, net),
            Job::Export { session: id, epoch, from, count, stream } => {
                let kv = session.kv.export(from..from + count);
                self.on_exported(id, epoch, from, kv, stream, net);
            }
            Job::Import { session, header, kv, outputs } => self.on_imported(session, &header, &kv, outputs, net),
        }
    }

    fn compute(
        &mut self,
        id: SessionId,
        source: Source,
        step: Step,
        rows: Activations,
        queued: Duration,
        net: &mut Net,
    ) {
        let fault = self.fault;
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let (position, count, have) = (step.position as usize, rows.rows() as u32, session.kv.len());
        if position > have && fault != Fault::ComputesOverGaps {
            session.state.failed(have);
            return self.not_computed(id, source, &step, StepError::Gap { have: have as u32 }, net);
        }
        if fault != Fault::KeepsStaleRows {
            session.kv.truncate(position);
        }
        let rows = session.kv.feed(rows);
        session.state.computed(step.epoch, position, step.wanted_from as usize, rows);
        self.send_frames(id, swarm_protocol::wire::Lane::Main, net);
        self.send_frames(id, swarm_protocol::wire::Lane::Mirror, net);
        let micros = u32::try_from(net.now.saturating_sub(queued).as_micros()).unwrap_or(u32::MAX);
        let Step { epoch, position, .. } = step;
        let done = StepDone { epoch, position, rows: count, queue_us: 0, compute_us: micros };
        self.say(id, SessionReply::Done(done), net);
    }
}
