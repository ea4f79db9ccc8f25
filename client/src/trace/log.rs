//! A whole trace in memory.

use std::time::Duration;

use swarm_protocol::block::BlockRange;

use super::record::TraceRecord;
use super::timeline::{LinkBytes, Span, Timeline, TimelineEvent};

/// A hop as a trace names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedHop {
    /// The server's peer id as text; from a file it may be anything.
    pub peer: String,
    /// The blocks it computed.
    pub blocks: BlockRange,
    /// Bytes of a row on its links.
    pub bytes: LinkBytes,
}

/// A token and the time it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoggedToken {
    /// Counted from 1.
    pub number: u32,
    /// Its id.
    pub id: u32,
    /// When the one before was chosen, or the generation began.
    pub start: Duration,
    /// When it was chosen.
    pub end: Duration,
}

/// A server that was lost and replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedReroute {
    /// The server's peer id as text; from a file it may be anything.
    pub lost: String,
    /// Why.
    pub reason: String,
    /// When its replacement was open.
    pub at: Duration,
    /// From noticing the loss until then.
    pub took: Duration,
}

/// Everything a trace tells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TraceLog {
    /// The hops, in the order in which they were named; [`Place::Hop`](super::Place::Hop) counts them from 0.
    pub hops: Vec<LoggedHop>,
    /// Where time was spent.
    pub spans: Vec<Span>,
    /// The tokens in order.
    pub tokens: Vec<LoggedToken>,
    /// The servers that were lost.
    pub reroutes: Vec<LoggedReroute>,
    /// Whether it was ended as it should be: what was interrupted is cut short.
    pub complete: bool,
}

impl TraceLog {
    /// The log of those records.
    pub fn from_records(records: impl IntoIterator<Item = TraceRecord>) -> Self {
        let (mut timeline, mut log) = (Timeline::default(), Self { complete: true, ..Self::default() });
        for record in records {
            timeline.push(record).into_iter().for_each(|event| log.push(event));
        }
        timeline.finish().into_iter().for_each(|event| log.push(event));
        log
    }

    /// Adds what a timeline tells next.
    pub fn push(&mut self, event: TimelineEvent) {
        match event {
            TimelineEvent::Hop { peer, blocks, bytes, .. } => {
                self.hops.push(LoggedHop { peer: peer.to_string(), blocks, bytes });
            }
            TimelineEvent::Span(span) => self.spans.push(span),
            TimelineEvent::Token { number, id, start, end } => {
                self.tokens.push(LoggedToken { number, id, start, end });
            }
            TimelineEvent::Reroute { lost, reason, at, took } => {
                self.reroutes.push(LoggedReroute { lost: lost.to_string(), reason, at, took });
            }
        }
    }
}
