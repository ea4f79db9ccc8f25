//! The parts that this server does of other processes' work, as spans: what clients name in `Trace` is their parent.
//!
//! A part begins with the word about it and ends with the next one, or with its stream. It tells numbers and who works for whom,
//! never what a text says.

use std::time::Duration;

use swarm_protocol::PeerId;
use swarm_protocol::block::BlockRange;
use swarm_protocol::session::SessionId;
use swarm_protocol::trace_context::{SPANS, SpanContexts, TraceContext};
use swarm_protocol::wire::KvHeader;
use tracing::field::Empty;
use tracing::{Span, info_span};

/// What this hop does in a session for one span of its client.
#[derive(Debug)]
pub(super) struct HopPart {
    span: Span,
    /// While another server's KV cache comes in.
    take_over: Option<TakeOver>,
    done: HopWork,
}

/// The sums of it; collectors know no unsigned numbers.
#[derive(Debug, Default)]
struct HopWork {
    steps: i64,
    rows: i64,
    queue: Duration,
    compute: Duration,
    bytes_in: i64,
    bytes_out: i64,
}

#[derive(Debug)]
struct TakeOver {
    span: Span,
    positions: i64,
    bytes: i64,
}

/// Whose session it is, and on what.
#[derive(Debug, Clone, Copy)]
pub(super) struct HopOf {
    pub(super) server: PeerId,
    pub(super) owner: PeerId,
    pub(super) session: SessionId,
    pub(super) blocks: BlockRange,
}

impl HopPart {
    /// Begins a part of the span that `context` names; `None` if this program collects no spans.
    pub(super) fn begin(spans: Option<SpanContexts>, context: Option<TraceContext>, of: HopOf) -> Option<Self> {
        let (spans, context) = (spans?, context?);
        let HopOf { server, owner, session, blocks } = of;
        let span = info_span!(
            target: SPANS, parent: None, "hop", otel.kind = "server", %server, %owner, %session, %blocks, steps = Empty,
            rows = Empty, queue_ms = Empty, compute_ms = Empty, bytes_in = Empty, bytes_out = Empty,
        );
        (spans.adopt)(&span, context);
        Some(Self { span, take_over: None, done: HopWork::default() })
    }

    /// What is done now is a part of this.
    pub(super) fn span(&self) -> &Span {
        &self.span
    }

    /// A step came, with so many bytes of rows.
    pub(super) fn came(&mut self, bytes: usize) {
        self.done.bytes_in += bytes as i64;
    }

    /// Rows go out that take so many bytes as they are, before they are packed.
    pub(super) fn goes_out(&mut self, bytes: usize) {
        self.done.bytes_out += bytes as i64;
    }

    /// A step was computed.
    pub(super) fn computed(&mut self, rows: u32, queue: Duration, compute: Duration) {
        let done = &mut self.done;
        done.steps += 1;
        done.rows += i64::from(rows);
        done.queue += queue;
        done.compute += compute;
    }

    /// A piece of another server's KV cache came.
    pub(super) fn imported(&mut self, header: &KvHeader, bytes: usize) {
        let of = &self.span;
        let take_over = self.take_over.get_or_insert_with(|| {
            let span = info_span!(target: SPANS, parent: of, "take_over", positions = Empty, bytes = Empty);
            TakeOver { span, positions: 0, bytes: 0 }
        });
        take_over.positions += i64::from(header.positions);
        take_over.bytes += bytes as i64;
    }

    /// No more of it comes.
    pub(super) fn import_ended(&mut self) {
        self.take_over = None;
    }

    /// This server's KV cache is handed over to another one.
    pub(super) fn hand_over(&self, to: PeerId) -> Span {
        info_span!(target: SPANS, parent: &self.span, "hand_over", %to)
    }
}

impl Drop for HopPart {
    fn drop(&mut self) {
        let HopWork { steps, rows, queue, compute, bytes_in, bytes_out } = self.done;
        self.span.record("steps", steps).record("rows", rows).record("bytes_in", bytes_in);
        self.span
            .record("bytes_out", bytes_out)
            .record("queue_ms", millis(queue))
            .record("compute_ms", millis(compute));
    }
}

impl Drop for TakeOver {
    fn drop(&mut self) {
        self.span.record("positions", self.positions).record("bytes", self.bytes);
    }
}

/// What this server embeds and chooses for one span of a client.
#[derive(Debug)]
pub(super) struct EdgesPart {
    span: Span,
    questions: i64,
}

impl EdgesPart {
    /// Begins a part of the span that `context` names; `None` if this program collects no spans.
    pub(super) fn begin(
        spans: Option<SpanContexts>,
        context: Option<TraceContext>,
        server: PeerId,
        owner: PeerId,
    ) -> Option<Self> {
        let (spans, context) = (spans?, context?);
        let span = info_span!(
            target: SPANS, parent: None, "edges", otel.kind = "server", %server, %owner, questions = Empty,
        );
        (spans.adopt)(&span, context);
        Some(Self { span, questions: 0 })
    }

    /// It is asked something.
    pub(super) fn asked(&mut self) {
        self.questions += 1;
    }
}

impl Drop for EdgesPart {
    fn drop(&mut self) {
        self.span.record("questions", self.questions);
    }
}

/// Milliseconds, to the microsecond.
fn millis(time: Duration) -> f64 {
    time.as_micros() as f64 / 1000.0
}
