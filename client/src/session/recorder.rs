//! What a session writes down for a trace, while one is wanted.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use swarm_protocol::PeerId;
use swarm_protocol::wire::StepDone;

use super::HopInfo;
use super::link::Link;
use crate::trace::TraceRecord;

/// Records that may wait to be taken. They are taken after each token, so only a prompt of millions of tokens comes near;
/// what is beyond is missing in the trace.
const MOST_RECORDS: usize = 1 << 18;

/// Writes records down if it is told to.
#[derive(Debug)]
pub(super) struct Recorder {
    enabled: bool,
    start: Instant,
    records: VecDeque<TraceRecord>,
}

impl Recorder {
    /// One that writes nothing.
    pub(super) fn off() -> Self {
        Self { enabled: false, start: Instant::now(), records: VecDeque::new() }
    }

    /// One that counts time from `start`.
    pub(super) fn since(start: Instant) -> Self {
        Self { enabled: true, start, ..Self::off() }
    }

    /// Whether it writes anything.
    pub(super) fn is_on(&self) -> bool {
        self.enabled
    }

    /// The oldest record that was not taken.
    pub(super) fn next(&mut self) -> Option<TraceRecord> {
        self.records.pop_front()
    }

    /// The client hands a step to the first hop, whose rows it began to embed at `began`.
    pub(super) fn step_sent(&mut self, position: u32, rows: u32, began: Instant) {
        let now = Instant::now();
        let embedding = now.saturating_duration_since(began);
        self.write(|since| TraceRecord::Step { position, rows, at: since(now), embedding });
    }

    /// A hop's word about a step is here since `at`.
    pub(super) fn hop_answered(&mut self, link: &Link, done: &StepDone, at: Instant) {
        let queue = Duration::from_micros(done.queue_us.into());
        let compute = Duration::from_micros(done.compute_us.into());
        let (peer, blocks, rtt) = (link.peer, link.blocks, link.rtt);
        let StepDone { position, rows, .. } = *done;
        self.write(|since| TraceRecord::Hop {
            peer,
            blocks,
            position,
            rows,
            queue,
            compute,
            acknowledged: since(at),
            rtt,
        });
    }

    /// The last hop's output is here since `at`.
    pub(super) fn output_arrived(&mut self, position: u32, at: Instant) {
        self.write(|since| TraceRecord::Output { position, at: since(at) });
    }

    /// A server was replaced.
    pub(super) fn rerouted(&mut self, lost: PeerId, reason: &str, took: Duration) {
        let now = Instant::now();
        self.write(|since| TraceRecord::Reroute { lost, reason: reason.to_string(), at: since(now), took });
    }

    /// The route is this now.
    pub(super) fn routed(&mut self, hops: &[HopInfo]) {
        let now = Instant::now();
        self.write(|since| TraceRecord::Route { hops: hops.to_vec(), at: since(now) });
    }

    fn write(&mut self, record: impl FnOnce(&dyn Fn(Instant) -> Duration) -> TraceRecord) {
        if self.enabled && self.records.len() < MOST_RECORDS {
            let start = self.start;
            self.records.push_back(record(&|at| at.saturating_duration_since(start)));
        }
    }
}
