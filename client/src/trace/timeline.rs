//! From what a session saw to what happened where and when, as far as one clock can tell.
//!
//! A hop's word about a step is on its way for half a round trip, so its computation ended at about `acknowledged - rtt / 2`;
//! what it says of the time before is counted back from there. An estimate that would begin a hop's work before the stage
//! before it ended is moved behind that, never past the moment at which the word was here, nor past what the hops behind it
//! have computed since: durations stay as measured, and no two spans of one row overlap.

use std::collections::VecDeque;
use std::mem;
use std::time::Duration;

use swarm_protocol::PeerId;
use swarm_protocol::block::BlockRange;

use super::record::TraceRecord;
use crate::session::HopInfo;

/// Steps whose hops have not all spoken: far more than any window of chunks. Beyond, the oldest is laid out as it is.
const MOST_OPEN: usize = 256;

/// Where time is spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// The client itself.
    Client,
    /// The hop that was named so-many-th, from 0.
    Hop(usize),
}

/// What time is spent with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// The client looks up token ids.
    Embedding,
    /// From the end of the stage before to the arrival at a hop.
    Transfer,
    /// A step has arrived and is not yet computed.
    Queue,
    /// A hop computes.
    Compute,
    /// A hop had nothing to do for this session from its last work to the next arrival.
    Wait,
    /// From the end of the last hop's work to the client.
    Return,
    /// The client computes final norm and head, and chooses a token.
    Sampling,
}

impl Stage {
    /// Every stage, in the order in which a step passes them; a hop's wait stands beside its rows.
    pub const ALL: [Self; 7] =
        [Self::Embedding, Self::Transfer, Self::Queue, Self::Compute, Self::Wait, Self::Return, Self::Sampling];

    /// Its name in traces and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embedding => "embedding",
            Self::Transfer => "transfer",
            Self::Queue => "queue",
            Self::Compute => "compute",
            Self::Wait => "wait",
            Self::Return => "return",
            Self::Sampling => "sampling",
        }
    }

    /// Whether it is spent on the client.
    pub fn is_clients(self) -> bool {
        matches!(self, Self::Embedding | Self::Return | Self::Sampling)
    }
}

/// Some time spent in one place with one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Where.
    pub place: Place,
    /// With what.
    pub stage: Stage,
    /// From when, since the generation began.
    pub start: Duration,
    /// Until when; never before `start`.
    pub end: Duration,
    /// The token it was done for, counted from 1; the first one's time is mostly prefill.
    pub token: u32,
    /// The position of the step's first row.
    pub position: u32,
    /// Rows of the step.
    pub rows: u32,
}

impl Span {
    /// How long it took.
    pub fn duration(&self) -> Duration {
        self.end.saturating_sub(self.start)
    }
}

/// Bytes of one row on a hop's links; 0 if that is not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkBytes {
    /// On the way to it.
    pub incoming: u32,
    /// On the way from it.
    pub outgoing: u32,
}

/// What a timeline tells. Spans of one place and stage come in order of time and do not overlap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimelineEvent {
    /// A hop is named, before anything happens there.
    Hop {
        /// Its number, from 0; also those of lost hops count.
        index: usize,
        /// The server.
        peer: PeerId,
        /// The blocks it computes.
        blocks: BlockRange,
        /// Bytes of a row on its links.
        bytes: LinkBytes,
    },
    /// Some time was spent.
    Span(Span),
    /// A token was chosen.
    Token {
        /// Counted from 1.
        number: u32,
        /// Its id.
        id: u32,
        /// When the one before was chosen, or the generation began.
        start: Duration,
        /// When it was chosen.
        end: Duration,
    },
    /// A server was lost and replaced.
    Reroute {
        /// The server.
        lost: PeerId,
        /// Why.
        reason: String,
        /// When its replacement was open.
        at: Duration,
        /// From noticing the loss until then.
        took: Duration,
    },
}

/// One step on its way along the chain.
#[derive(Debug)]
struct OpenStep {
    position: u32,
    rows: u32,
    token: u32,
    /// When the client handed it on, and how long the embedding took.
    sent: Option<(Duration, Duration)>,
    hops: Vec<HopWord>,
    output: Option<Duration>,
}

/// A hop's word about a step.
#[derive(Debug, Clone, Copy)]
struct HopWord {
    hop: usize,
    blocks: BlockRange,
    queue: Duration,
    compute: Duration,
    acknowledged: Duration,
    rtt: Duration,
    /// When its work had ended at the latest.
    latest: Duration,
}

/// A hop as far as its rows are laid out.
#[derive(Debug)]
struct HopRows {
    peer: PeerId,
    blocks: BlockRange,
    /// The end of its last work.
    ended: Option<Duration>,
    transferred: Duration,
    queued: Duration,
}

/// Lays records out in time, one at a time: it holds the steps that are on their way and nothing else.
#[derive(Debug, Default)]
pub struct Timeline {
    hops: Vec<HopRows>,
    /// Blocks of the present route, in order.
    route: Vec<BlockRange>,
    open: VecDeque<OpenStep>,
    /// The newest step's position.
    position: u32,
    tokens: u32,
    last_token: Duration,
    embedded: Duration,
    returned: Duration,
    events: Vec<TimelineEvent>,
}

impl Timeline {
    /// Takes the next record; gives what has become certain.
    pub fn push(&mut self, record: TraceRecord) -> Vec<TimelineEvent> {
        match record {
            TraceRecord::Route { hops, .. } => self.on_route(&hops),
            TraceRecord::Step { position, rows, at, embedding } => {
                self.step(position, rows).sent = Some((at, embedding));
            }
            TraceRecord::Hop { peer, blocks, position, rows, queue, compute, acknowledged, rtt } => {
                let hop = self.hop(peer, blocks, LinkBytes::default());
                let word = HopWord { hop, blocks, queue, compute, acknowledged, rtt, latest: acknowledged };
                self.step(position, rows).hops.push(word);
            }
            TraceRecord::Output { position, at } => self.step(position, 1).output = Some(at),
            TraceRecord::Token { id, at, sampling } => self.on_token(id, at, sampling),
            TraceRecord::Reroute { lost, reason, at, took } => {
                self.lay_out_all();
                self.events.push(TimelineEvent::Reroute { lost, reason, at, took });
            }
        }
        while self.front_is_complete() || self.open.len() > MOST_OPEN {
            self.lay_out_front();
        }
        mem::take(&mut self.events)
    }

    /// Gives the steps that are still on their way, as far as they have come.
    pub fn finish(mut self) -> Vec<TimelineEvent> {
        self.lay_out_all();
        self.events
    }

    fn on_route(&mut self, hops: &[HopInfo]) {
        // What is on its way belongs to the route before.
        self.lay_out_all();
        self.route = hops.iter().map(|hop| hop.blocks).collect();
        for hop in hops {
            self.hop(hop.peer, hop.blocks, LinkBytes { incoming: hop.bytes_in, outgoing: hop.bytes_out });
        }
    }

    fn on_token(&mut self, id: u32, at: Duration, sampling: Duration) {
        // A hop's word may come after the token it worked for, hardly after the next one.
        while self.open.front().is_some_and(|step| step.token <= self.tokens) {
            self.lay_out_front();
        }
        self.tokens += 1;
        let (number, start) = (self.tokens, self.last_token);
        let end = at.max(start);
        let span = Span {
            place: Place::Client,
            stage: Stage::Sampling,
            start: end.saturating_sub(sampling).max(start),
            end,
            token: number,
            position: self.position,
            rows: 1,
        };
        self.events.extend([TimelineEvent::Span(span), TimelineEvent::Token { number, id, start, end }]);
        self.last_token = end;
    }

    /// The number of that hop, which is named if it is new.
    fn hop(&mut self, peer: PeerId, blocks: BlockRange, bytes: LinkBytes) -> usize {
        let known = self.hops.iter().position(|hop| (hop.peer, hop.blocks) == (peer, blocks));
        known.unwrap_or_else(|| {
            let index = self.hops.len();
            let (transferred, queued) = (Duration::ZERO, Duration::ZERO);
            self.hops.push(HopRows { peer, blocks, ended: None, transferred, queued });
            self.events.push(TimelineEvent::Hop { index, peer, blocks, bytes });
            index
        })
    }

    /// The open step at `position`.
    fn step(&mut self, position: u32, rows: u32) -> &mut OpenStep {
        self.position = position;
        let known = self.open.iter().rposition(|step| step.position == position);
        let index = known.unwrap_or_else(|| {
            let token = self.tokens + 1;
            self.open.push_back(OpenStep { position, rows, token, sent: None, hops: Vec::new(), output: None });
            self.open.len() - 1
        });
        &mut self.open[index]
    }

    /// All hops have spoken, and the output is here: that of all but the newest step of a prefill is not asked for.
    fn front_is_complete(&self) -> bool {
        self.open.front().is_some_and(|step| {
            let last = self.open.len() == 1;
            !self.route.is_empty() && step.hops.len() >= self.route.len() && (step.output.is_some() || !last)
        })
    }

    fn lay_out_all(&mut self) {
        while !self.open.is_empty() {
            self.lay_out_front();
        }
    }

    fn lay_out_front(&mut self) {
        let Some(mut step) = self.open.pop_front() else {
            return;
        };
        let mut before = self.route.first().map(|first| first.start());
        let mut ended = None;
        if let Some((at, embedding)) = step.sent {
            let start = at.saturating_sub(embedding).max(self.embedded);
            self.embedded = at.max(start);
            self.emit(&step, Place::Client, Stage::Embedding, start, self.embedded);
            ended = Some(self.embedded);
        }
        step.hops.sort_by_key(|word| word.blocks.start());
        bound(&mut step);
        for word in mem::take(&mut step.hops) {
            // After a hole in what was seen nothing is known of the way to this hop.
            let from = ended.filter(|_| before == Some(word.blocks.start()));
            ended = Some(self.lay_out_hop(&step, word, from));
            before = Some(word.blocks.end());
        }
        if let (Some(at), Some(ended)) = (step.output, ended) {
            let start = ended.max(self.returned);
            self.returned = at.max(start);
            self.emit(&step, Place::Client, Stage::Return, start, self.returned);
        }
    }

    /// Lays out one hop's part in a step that was sent on at `from`; gives its end.
    fn lay_out_hop(&mut self, step: &OpenStep, word: HopWord, from: Option<Duration>) -> Duration {
        let HopWord { hop, queue, compute, acknowledged, rtt, latest, .. } = word;
        let (idle_since, queued, transferred) =
            self.hops.get(hop).map_or_else(Default::default, |rows| (rows.ended, rows.queued, rows.transferred));
        let free = idle_since.unwrap_or_default();
        let guess = acknowledged.saturating_sub(rtt / 2).min(latest).saturating_sub(compute + queue);
        let began = latest.saturating_sub(compute);
        let arrival = guess.max(from.unwrap_or_default()).min(began);
        let start = (arrival + queue).min(began).max(free);
        // Behind a step of the same session it waits from when that one is computed.
        let arrival = arrival.max(queued).min(start);
        let end = (start + compute).min(latest.max(start));
        let place = Place::Hop(hop);
        if let Some(from) = from.map(|from| from.max(transferred)) {
            self.emit(step, place, Stage::Transfer, from, arrival);
        }
        if let Some(idle_since) = idle_since {
            self.emit(step, place, Stage::Wait, idle_since, arrival);
        }
        self.emit(step, place, Stage::Queue, arrival, start);
        self.emit(step, place, Stage::Compute, start, end);
        if let Some(rows) = self.hops.get_mut(hop) {
            (rows.ended, rows.queued, rows.transferred) = (Some(end), start, transferred.max(arrival));
        }
        end
    }

    /// Tells a span; of those without any length only a hop's work is told, which counts its steps.
    fn emit(&mut self, step: &OpenStep, place: Place, stage: Stage, start: Duration, end: Duration) {
        if end > start || stage == Stage::Compute {
            let OpenStep { token, position, rows, .. } = *step;
            self.events.push(TimelineEvent::Span(Span { place, stage, start, end, token, position, rows }));
        }
    }
}

/// Words may be late: each hop's work had ended before the next one's began, and the last one's before the output came.
fn bound(step: &mut OpenStep) {
    let mut latest = step.output.unwrap_or(Duration::MAX);
    for word in step.hops.iter_mut().rev() {
        word.latest = word.acknowledged.min(latest);
        latest = word.latest.saturating_sub(word.compute);
    }
}

#[cfg(test)]
mod tests;
