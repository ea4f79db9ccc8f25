//! How some tokens went through the hops: a row for the client and for each hop, time to the right.

use std::time::Duration;

use swarm_client::trace::{Place, Span, Stage, TraceLog, TraceSummary};

use super::axis::{label, step, ticks};
use super::{FAINT_INK, GRID, HEADING, LANE, LEFT, LOSS, NUMBER, RIGHT, ROW, Window, color, row};
use crate::cli::text_view::{millis, short};
use crate::cli::trace::svg::{Anchor, Area, Font, Picture};
use crate::cli::trace::table::cause;

/// A row's height, and how much of it a computation fills.
const LANE_HEIGHT: f64 = 26.0;
const BAR_HEIGHT: f64 = 18.0;

/// A loss lies behind the rows that wait for its end.
const LOSS_TINT: &str = "#fbe4e4";

/// What is narrower is drawn so wide that it can be seen.
const NARROWEST: f64 = 0.6;

/// Draws the panel at `y`; gives where it ends.
pub(super) fn draw(picture: &mut Picture, log: &TraceLog, summary: &TraceSummary, window: &Window, y: f64) -> f64 {
    picture.words((32.0, y), HEADING, &window.title);
    let shown = |hop: usize| log.spans.iter().any(|span| span.place == Place::Hop(hop) && overlaps(span, window));
    let mut lanes = vec![(0, "client".to_string())];
    for (at, hop) in summary.hops.iter().enumerate().filter(|(_, hop)| shown(hop.hop)) {
        lanes.push((at + 1, format!("{} on {}", hop.blocks, short(&hop.peer))));
    }
    let (top, bottom) = (y + 28.0, y + 28.0 + lanes.len() as f64 * LANE_HEIGHT);
    for (at, (_, name)) in lanes.iter().enumerate() {
        let lane = top + at as f64 * LANE_HEIGHT;
        let area = Area { x: LEFT, y: lane + 1.5, width: RIGHT - LEFT, height: LANE_HEIGHT - 3.0 };
        picture.rectangle(area, LANE, 3.0, "");
        picture.words((LEFT - 10.0, lane + LANE_HEIGHT / 2.0 + 4.0), ROW, name);
    }
    let scale = Scale::of(window);
    time_axis(picture, &scale, (top, bottom));
    losses(picture, log, window, &scale, (top, bottom));
    let mut spans: Vec<&Span> =
        log.spans.iter().filter(|span| span.stage != Stage::Wait && overlaps(span, window)).collect();
    // What is thin lies under what fills the row.
    spans.sort_by(|one, other| height(one.stage).total_cmp(&height(other.stage)));
    for span in spans {
        let lane = row(summary, span.place).and_then(|row| lanes.iter().position(|(lane, _)| *lane == row));
        if let Some(lane) = lane {
            bar(picture, summary, span, &scale, top + (lane as f64 + 0.5) * LANE_HEIGHT);
        }
    }
    tokens(picture, log, window, &scale, (top, bottom));
    bottom + 20.0
}

fn overlaps(span: &Span, window: &Window) -> bool {
    span.end > window.from && span.start < window.until
}

/// From time to pixels.
struct Scale {
    from: Duration,
    /// The window's length in milliseconds.
    length: f64,
}

impl Scale {
    fn of(window: &Window) -> Self {
        let length = millis(window.until.saturating_sub(window.from));
        Self { from: window.from, length: if length > 0.0 { length } else { 1.0 } }
    }

    fn pixels_per_milli(&self) -> f64 {
        (RIGHT - LEFT) / self.length
    }

    /// Where a moment stands; what lies outside stands on the edge.
    fn at(&self, time: Duration) -> f64 {
        let at = time.as_secs_f64() - self.from.as_secs_f64();
        (LEFT + at * 1000.0 * self.pixels_per_milli()).clamp(LEFT, RIGHT)
    }
}

fn time_axis(picture: &mut Picture, scale: &Scale, (top, bottom): (f64, f64)) {
    let step = step(scale.length, 6.0);
    for tick in ticks(scale.length, step) {
        let x = LEFT + tick * scale.pixels_per_milli();
        picture.line((x, top), (x, bottom), GRID, false);
        picture.words((x, bottom + 16.0), NUMBER, &label(tick, step));
    }
    let font = Font { anchor: Anchor::End, ..NUMBER };
    picture.words((LEFT - 24.0, bottom + 16.0), font, &format!("ms after {:.0}", millis(scale.from)));
}

/// A computation fills its row, a queue half of it, what is on its way is a thin line before.
fn height(stage: Stage) -> f64 {
    match stage {
        Stage::Compute | Stage::Sampling | Stage::Embedding => BAR_HEIGHT,
        Stage::Queue => BAR_HEIGHT * 0.55,
        Stage::Transfer | Stage::Return | Stage::Wait => BAR_HEIGHT * 0.22,
    }
}

fn bar(picture: &mut Picture, summary: &TraceSummary, span: &Span, scale: &Scale, middle: f64) {
    let height = height(span.stage);
    let (from, until) = (scale.at(span.start), scale.at(span.end));
    let area = Area { x: from, y: middle - height / 2.0, width: (until - from).max(NARROWEST), height };
    let paint = color(span.place, span.stage, row(summary, span.place).unwrap_or_default().saturating_sub(1));
    let what = cause(summary, swarm_client::trace::Slowest::Stage(span.place, span.stage));
    let rows = if span.rows == 1 { String::new() } else { format!(", {} rows", span.rows) };
    let time = millis(span.duration());
    picture.rectangle(area, paint, 1.5, &format!("token {}: {what} {time:.2} ms{rows}", span.token));
}

/// Where a token ends.
fn tokens(picture: &mut Picture, log: &TraceLog, window: &Window, scale: &Scale, (top, bottom): (f64, f64)) {
    let inside = |time: Duration| time >= window.from && time <= window.until;
    for token in log.tokens.iter().filter(|token| inside(token.start) && inside(token.end)) {
        let (from, until) = (scale.at(token.start), scale.at(token.end));
        picture.line((until, top - 6.0), (until, bottom), FAINT_INK, true);
        let name = format!("token {}", token.number);
        picture.words(((from + until) / 2.0, top - 6.0), NUMBER, &name);
    }
}

/// The time in which a lost server was replaced.
fn losses(picture: &mut Picture, log: &TraceLog, window: &Window, scale: &Scale, (top, bottom): (f64, f64)) {
    for reroute in log.reroutes.iter().filter(|reroute| reroute.at >= window.from && reroute.at <= window.until) {
        let (from, until) = (scale.at(reroute.at.saturating_sub(reroute.took)), scale.at(reroute.at));
        let area = Area { x: from, y: top, width: (until - from).max(2.0), height: bottom - top };
        let tip =
            format!("{} lost ({}), replaced in {:.2} ms", short(&reroute.lost), reroute.reason, millis(reroute.took));
        picture.rectangle(area, LOSS_TINT, 3.0, &tip);
        let words = format!("{} is lost: {}", short(&reroute.lost), reroute.reason);
        // About the width of a character at this size.
        if area.width > 6.2 * words.chars().count() as f64 {
            let font = Font { color: LOSS, ..NUMBER };
            picture.words((area.x + area.width / 2.0, (top + bottom) / 2.0 + 4.0), font, &words);
        }
    }
}
