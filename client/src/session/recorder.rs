//! What a session writes down for a trace, while one is wanted.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use swarm_protocol::PeerId;
use swarm_protocol::wire::StepOutput;

use super::HopInfo;
use super::link::{Flight, Link};
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
    /// The shortest way to each server and back that was seen: what steps in a row have besides is waiting.
    rtts: HashMap<PeerId, Duration>,
}

impl Recorder {
    /// One that writes nothing.
    pub(super) fn off() -> Self {
        Self { enabled: false, start: Instant::now(), records: VecDeque::new(), rtts: HashMap::new() }
    }

    /// One that counts time from `start`.
    pub(super) fn since(start: Instant) -> Self {
        Self { enabled: true, start, ..Self::off() }
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

    /// A hop has answered a step, at `at`; `link` owes it no longer.
    pub(super) fn hop_answered(&mut self, link: &Link, flight: &Flight, output: &StepOutput, at: Instant) {
        if !self.enabled {
            return;
        }
        let queue = Duration::from_micros(output.queue_us.into());
        let compute = Duration::from_micros(output.compute_us.into());
        let rtt = self.rtt(link, flight, at.saturating_duration_since(flight.sent).saturating_sub(queue + compute));
        let (peer, blocks, Flight { position, rows, .. }) = (link.peer, link.blocks, *flight);
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

    /// A step that was alone on its way tells the round trip; others have waited for one another besides.
    fn rtt(&mut self, link: &Link, flight: &Flight, seen: Duration) -> Duration {
        let shortest = self.rtts.entry(link.peer).or_insert(seen);
        *shortest = seen.min(*shortest);
        if flight.rows == 1 && link.flights.is_empty() { seen } else { *shortest }
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
