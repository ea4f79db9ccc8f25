//! What a trace adds up to: the usual times of each hop, and what each token waited for longest.

use std::collections::BTreeMap;
use std::time::Duration;

use swarm_protocol::block::BlockRange;

use super::log::{LoggedReroute, LoggedToken, TraceLog};
use super::timeline::{LinkBytes, Place, Span, Stage};

/// The share of steps, in percent, that took no longer than what [`Percentiles::p95`] says.
const HIGH: usize = 95;

/// A time as it usually is, and as it is at its worst but for the rarest cases.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Percentiles {
    /// Half of the times are no longer.
    pub p50: Duration,
    /// Of a hundred times ninety-five are no longer.
    pub p95: Duration,
}

impl Percentiles {
    /// Those of `times` and as many times of nothing as are missing to `count` (nearest rank).
    fn of(mut times: Vec<Duration>, count: usize) -> Self {
        times.sort_unstable();
        let none = count.saturating_sub(times.len());
        let rank = |percent: usize| (count.max(times.len()) * percent).div_ceil(100).saturating_sub(1);
        let at = |rank: usize| rank.checked_sub(none).and_then(|rank| times.get(rank)).copied().unwrap_or_default();
        Self { p50: at(rank(50)), p95: at(rank(HIGH)) }
    }
}

/// One hop's times. The percentiles are those of steps with one row: decoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HopTimes {
    /// The hop's number in the log.
    pub hop: usize,
    /// The server's peer id as text.
    pub peer: String,
    /// The blocks it computed.
    pub blocks: BlockRange,
    /// Bytes of a token's row on its links; 0 in traces that do not tell.
    pub bytes: LinkBytes,
    /// Steps of one row.
    pub steps: usize,
    /// On the way to it.
    pub transfer: Percentiles,
    /// Arrived and not yet computed.
    pub queue: Percentiles,
    /// Computed.
    pub compute: Percentiles,
    /// Idle between its last work and the next arrival.
    pub wait: Percentiles,
    /// Rows that came many at a time: prefill, and replay after a loss.
    pub prefilled_rows: u64,
    /// How long it computed those.
    pub prefill: Duration,
}

/// What a token waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Slowest {
    /// Some stage somewhere.
    Stage(Place, Stage),
    /// A lost server's replacement.
    Reroute,
}

/// One token's times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenTimes {
    /// The token.
    pub token: LoggedToken,
    /// How long it took.
    pub took: Duration,
    /// What took the most of that, and how long; `None` if the trace tells nothing of it.
    pub slowest: Option<(Slowest, Duration)>,
}

/// What a trace adds up to.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceSummary {
    /// The hops in the order of their blocks.
    pub hops: Vec<HopTimes>,
    /// Looking up a token's embedding.
    pub embedding: Percentiles,
    /// The way back from the last hop.
    pub returned: Percentiles,
    /// Norm, head and choice.
    pub sampling: Percentiles,
    /// A token after the first.
    pub token: Percentiles,
    /// The tokens in order.
    pub tokens: Vec<TokenTimes>,
    /// For how many tokens something was the slowest, and how long it then usually took; the most frequent first.
    pub slowest: Vec<(Slowest, usize, Duration)>,
    /// From the beginning to the last token.
    pub took: Duration,
    /// Tokens after the first, per second.
    pub tokens_per_second: f64,
    /// The servers that were lost.
    pub reroutes: Vec<LoggedReroute>,
    /// Whether the trace has its end.
    pub complete: bool,
}

impl TraceSummary {
    /// Adds `log` up.
    pub fn of(log: &TraceLog) -> Self {
        let tokens = token_times(log);
        let decoded: Vec<Duration> = tokens.iter().skip(1).map(|token| token.took).collect();
        let client = |stage: Stage| {
            let ours = log.spans.iter().filter(|span| span.stage == stage && span.rows == 1);
            Percentiles::of(ours.map(Span::duration).collect(), 0)
        };
        let first = log.tokens.first().map_or(Duration::ZERO, |token| token.end);
        let took = log.tokens.last().map_or(Duration::ZERO, |token| token.end);
        let decoding = took.saturating_sub(first).as_secs_f64();
        let mut hops: Vec<HopTimes> = (0..log.hops.len()).filter_map(|hop| hop_times(log, hop)).collect();
        hops.sort_by_key(|hop| (hop.blocks.start(), hop.hop));
        Self {
            hops,
            embedding: client(Stage::Embedding),
            returned: client(Stage::Return),
            sampling: client(Stage::Sampling),
            slowest: counted(&tokens),
            token: Percentiles::of(decoded.clone(), 0),
            tokens,
            took,
            tokens_per_second: if decoding > 0.0 { decoded.len() as f64 / decoding } else { 0.0 },
            reroutes: log.reroutes.clone(),
            complete: log.complete,
        }
    }

    /// The time to the first token.
    pub fn first(&self) -> Duration {
        self.tokens.first().map_or(Duration::ZERO, |token| token.took)
    }
}

fn hop_times(log: &TraceLog, hop: usize) -> Option<HopTimes> {
    let about = log.hops.get(hop)?;
    let spans: Vec<&Span> = log.spans.iter().filter(|span| span.place == Place::Hop(hop)).collect();
    let of = |stage: Stage, decode: bool| {
        let wanted = move |span: &&&Span| span.stage == stage && (span.rows == 1) == decode;
        spans.iter().filter(wanted).map(|span| span.duration()).collect::<Vec<_>>()
    };
    let steps = of(Stage::Compute, true).len();
    let prefills = spans.iter().filter(|span| span.stage == Stage::Compute && span.rows != 1);
    Some(HopTimes {
        hop,
        peer: about.peer.clone(),
        blocks: about.blocks,
        bytes: about.bytes,
        steps,
        transfer: Percentiles::of(of(Stage::Transfer, true), steps),
        queue: Percentiles::of(of(Stage::Queue, true), steps),
        compute: Percentiles::of(of(Stage::Compute, true), steps),
        wait: Percentiles::of(of(Stage::Wait, true), steps),
        prefilled_rows: prefills.map(|span| u64::from(span.rows)).sum(),
        prefill: sum(of(Stage::Compute, false)),
    })
}

/// Saturating: a file may claim anything.
fn sum(times: impl IntoIterator<Item = Duration>) -> Duration {
    times.into_iter().fold(Duration::ZERO, Duration::saturating_add)
}

fn token_times(log: &TraceLog) -> Vec<TokenTimes> {
    let mut spent: BTreeMap<(u32, Slowest), Duration> = BTreeMap::new();
    // A hop's wait is the other stages' work.
    for span in log.spans.iter().filter(|span| span.stage != Stage::Wait) {
        let total = spent.entry((span.token, Slowest::Stage(span.place, span.stage))).or_default();
        *total = total.saturating_add(span.duration());
    }
    for reroute in &log.reroutes {
        if let Some(token) = log.tokens.iter().find(|token| token.start <= reroute.at && reroute.at <= token.end) {
            let total = spent.entry((token.number, Slowest::Reroute)).or_default();
            *total = total.saturating_add(reroute.took);
        }
    }
    let mut slowest: BTreeMap<u32, (Slowest, Duration)> = BTreeMap::new();
    for ((token, cause), time) in spent {
        let worst = slowest.entry(token).or_insert((cause, time));
        if time > worst.1 {
            *worst = (cause, time);
        }
    }
    let times = |token: &LoggedToken| TokenTimes {
        token: *token,
        took: token.end.saturating_sub(token.start),
        slowest: slowest.get(&token.number).copied(),
    };
    log.tokens.iter().map(times).collect()
}

fn counted(tokens: &[TokenTimes]) -> Vec<(Slowest, usize, Duration)> {
    let mut causes: BTreeMap<Slowest, Vec<Duration>> = BTreeMap::new();
    for (cause, time) in tokens.iter().filter_map(|token| token.slowest) {
        causes.entry(cause).or_default().push(time);
    }
    let usual = |(cause, times): (Slowest, Vec<Duration>)| (cause, times.len(), Percentiles::of(times, 0).p50);
    let mut counted: Vec<_> = causes.into_iter().map(usual).collect();
    counted.sort_by_key(|(_, tokens, _)| std::cmp::Reverse(*tokens));
    counted
}

#[cfg(test)]
mod tests;
