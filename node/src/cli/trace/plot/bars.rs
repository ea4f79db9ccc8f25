//! What each token is made of: one bar each, its stages on top of one another.

use std::collections::BTreeMap;

use swarm_client::trace::{Place, Slowest, Stage, TokenTimes, TraceLog, TraceSummary};

use super::axis::{label, step, ticks};
use super::{FAINT_INK, GRID, HEADING, LEFT, LOSS, NOTE, NUMBER, RIGHT, color, row};
use crate::cli::text_view::millis;
use crate::cli::trace::svg::{Anchor, Area, Font, Picture};
use crate::cli::trace::table::cause;

const HEIGHT: f64 = 210.0;

/// The most bars: two pixels each; beyond, a bar is the mean of a few tokens.
const MOST_BARS: usize = 400;

/// The widest bar in pixels.
const WIDEST: f64 = 26.0;

/// Bars beyond so many times the 95th percentile are cut, so that the others can be read.
const CUT: f64 = 2.5;

/// What is left of a token's time.
const REST: &str = "#edf0f3";

/// One bar: parts from the bottom up, in milliseconds.
struct Bar {
    name: String,
    parts: Vec<(Slowest, f64)>,
    total: f64,
    /// Tokens in it.
    count: f64,
}

/// Draws the panel at `y`; gives where it ends.
pub(super) fn draw(picture: &mut Picture, log: &TraceLog, summary: &TraceSummary, y: f64) -> f64 {
    let group = summary.tokens.len().saturating_sub(1).div_ceil(MOST_BARS).max(1);
    let bars = bars(log, summary, group);
    picture.words((32.0, y), HEADING, "What each token after the first is made of");
    let unit = if group > 1 { format!("ms, the mean of {group} tokens a bar") } else { "ms".to_string() };
    picture.words((32.0, y + 18.0), NOTE, &unit);
    let (top, bottom) = (y + 30.0, y + 30.0 + HEIGHT);
    let most = top_of(&bars);
    let scale = HEIGHT / most;
    let tick = step(most, 4.0);
    for value in ticks(most, tick) {
        let at = bottom - value * scale;
        picture.line((LEFT, at), (RIGHT, at), GRID, false);
        let font = Font { anchor: Anchor::End, ..NUMBER };
        picture.words((LEFT - 8.0, at + 4.0), font, &label(value, tick));
    }
    let pitch = ((RIGHT - LEFT) / bars.len().max(1) as f64).min(WIDEST);
    for (at, bar) in bars.iter().enumerate() {
        let (x, width) = (LEFT + at as f64 * pitch, (pitch * 0.86).max(pitch - 3.0));
        stack(picture, summary, bar, (x, width), (bottom, scale, most));
        if bar.total > most {
            let note = Font { color: LOSS, ..NUMBER };
            picture.words((x + width / 2.0, top - 4.0), note, &format!("{:.0}", bar.total));
        }
    }
    numbers(picture, bars.len(), group, pitch, bottom + 16.0);
    bottom + 20.0
}

/// One bar, cut at `most`.
fn stack(
    picture: &mut Picture,
    summary: &TraceSummary,
    bar: &Bar,
    (x, width): (f64, f64),
    (bottom, scale, most): (f64, f64, f64),
) {
    let whole = Area { x, y: bottom - bar.total.min(most) * scale, width, height: bar.total.min(most) * scale };
    picture.rectangle(whole, REST, 0.0, &format!("{}: {:.2} ms", bar.name, bar.total));
    let mut height = 0.0;
    for (what, time) in &bar.parts {
        let (from, until) = (f64::min(height, most), f64::min(height + time, most.min(bar.total)));
        height += time;
        // Thinner than can be seen.
        if (until - from) * scale < 0.15 {
            continue;
        }
        let paint = match *what {
            Slowest::Reroute => LOSS,
            Slowest::Stage(place, stage) => {
                color(place, stage, row(summary, place).unwrap_or_default().saturating_sub(1))
            }
        };
        let area = Area { x, y: bottom - until * scale, width, height: (until - from) * scale };
        picture.rectangle(area, paint, 0.0, &format!("{}: {} {time:.2} ms", bar.name, cause(summary, *what)));
    }
}

fn numbers(picture: &mut Picture, bars: usize, group: usize, pitch: f64, y: f64) {
    /// Pixels between two numbers, so that they stay apart.
    const APART: f64 = 48.0;
    let every = step((APART / pitch).ceil() * group as f64, 1.0).max(1.0) as usize;
    // The steps are round from below: the next one is wide enough.
    let every = if (every as f64 / group as f64) * pitch < APART { every * 2 } else { every };
    for number in (every..bars * group + 2).step_by(every).filter(|number| *number >= 2) {
        let at = (number - 2) / group;
        picture.words((LEFT + (at as f64 + 0.43) * pitch, y), NUMBER, &number.to_string());
    }
    let font = Font { anchor: Anchor::End, color: FAINT_INK, ..NUMBER };
    picture.words((LEFT - 8.0, y), font, "token");
}

/// The top of the axis: above all bars, but for a few that are far beyond the others.
fn top_of(bars: &[Bar]) -> f64 {
    let mut totals: Vec<f64> = bars.iter().map(|bar| bar.total).collect();
    totals.sort_by(f64::total_cmp);
    let highest = totals.last().copied().unwrap_or(0.0);
    let high = totals.get(totals.len().saturating_sub(1) * 95 / 100).copied().unwrap_or(0.0);
    let top = if highest > high * CUT { high * 1.25 } else { highest * 1.05 };
    if top > 0.0 { top } else { 1.0 }
}

fn bars(log: &TraceLog, summary: &TraceSummary, group: usize) -> Vec<Bar> {
    let mut parts: BTreeMap<(usize, (usize, usize), Slowest), f64> = BTreeMap::new();
    let bar_of = |token: u32| (token as usize).checked_sub(2).map(|at| at / group);
    for span in log.spans.iter().filter(|span| span.stage != Stage::Wait) {
        if let Some(bar) = bar_of(span.token) {
            let key = (bar, order(summary, span.place, span.stage), Slowest::Stage(span.place, span.stage));
            *parts.entry(key).or_default() += millis(span.duration());
        }
    }
    for reroute in &log.reroutes {
        let token = log.tokens.iter().find(|token| token.start <= reroute.at && reroute.at <= token.end);
        if let Some(bar) = token.and_then(|token| bar_of(token.number)) {
            let key = (bar, (usize::MAX, 0), Slowest::Reroute);
            *parts.entry(key).or_default() += millis(reroute.took);
        }
    }
    let decoded: Vec<_> = summary.tokens.iter().skip(1).collect();
    let mut bars: Vec<Bar> = decoded
        .chunks(group)
        .map(|tokens| {
            let number = |token: Option<&&TokenTimes>| token.map_or(0, |token| token.token.number);
            let name = match group {
                1 => format!("token {}", number(tokens.first())),
                _ => format!("tokens {} to {}", number(tokens.first()), number(tokens.last())),
            };
            let count = tokens.len() as f64;
            let total = tokens.iter().map(|token| millis(token.took)).sum::<f64>() / count;
            Bar { name, parts: Vec::new(), total, count }
        })
        .collect();
    for ((bar, _, what), time) in parts {
        if let Some(bar) = bars.get_mut(bar) {
            bar.parts.push((what, time / bar.count));
        }
    }
    bars
}

/// A step's way: the client, hop after hop, and back.
fn order(summary: &TraceSummary, place: Place, stage: Stage) -> (usize, usize) {
    let stage_at = Stage::ALL.iter().position(|one| *one == stage).unwrap_or_default();
    let last = summary.hops.len() + 1;
    let at = match stage {
        Stage::Embedding => 0,
        Stage::Return | Stage::Sampling => last,
        _ => row(summary, place).unwrap_or(last),
    };
    (at, stage_at)
}
