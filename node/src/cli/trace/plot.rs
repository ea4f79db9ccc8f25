//! A trace as a picture: what each token is made of, and how a few of them went through the hops.

mod axis;
mod bars;
mod gantt;

use std::time::Duration;

use swarm_client::trace::{Place, Stage, TokenTimes, TraceLog, TraceSummary};

use super::svg::{Anchor, Area, Font, Picture};
use super::table::{cause, shown, with_unit};

/// The picture's width in pixels: a page's column on a usual screen.
const WIDTH: f64 = 1000.0;

/// Where the drawing begins and ends; names of rows and numbers of the axis stand left of it.
const LEFT: f64 = 150.0;
const RIGHT: f64 = WIDTH - 32.0;

/// Space around panels.
const GAP: f64 = 34.0;

/// A token that takes so many times the median is worth a panel of its own.
const SLOW: u32 = 2;

const INK: &str = "#1f2933";
const FAINT_INK: &str = "#6b7684";
const GRID: &str = "#e4e7eb";
const LANE: &str = "#f5f7f9";
const LOSS: &str = "#d64545";

/// A shade for each hop's computation, repeated in long chains; all read on white, also for those who see red as green.
const HOPS: [&str; 6] = ["#2b6cb0", "#38a3a5", "#805ad5", "#63a4e0", "#22577a", "#b39ddb"];

const TITLE: Font = Font { size: 22.0, color: INK, bold: true, anchor: Anchor::Start };
const HEADING: Font = Font { size: 14.0, color: INK, bold: true, anchor: Anchor::Start };
const NOTE: Font = Font { size: 12.0, color: FAINT_INK, bold: false, anchor: Anchor::Start };
const NUMBER: Font = Font { size: 11.0, color: FAINT_INK, bold: false, anchor: Anchor::Middle };
const ROW: Font = Font { size: 12.0, color: INK, bold: false, anchor: Anchor::End };

/// The picture, as an SVG file.
pub(super) fn svg(log: &TraceLog, summary: &TraceSummary) -> String {
    let mut picture = Picture::default();
    let mut y = header(&mut picture, summary);
    y = bars::draw(&mut picture, log, summary, y + GAP);
    for window in windows(summary) {
        y = gantt::draw(&mut picture, log, summary, &window, y + GAP);
    }
    picture.finish(WIDTH, (y + GAP).ceil())
}

fn header(picture: &mut Picture, summary: &TraceSummary) -> f64 {
    let (tokens, rate) = (summary.tokens.len(), summary.tokens_per_second);
    let title = format!("{tokens} tokens in {}, {rate:.1} tokens/s", with_unit(summary.took));
    picture.words((32.0, 46.0), TITLE, &title);
    let slowest = summary
        .slowest
        .first()
        .map(|(why, tokens, _)| format!("; most often the slowest: {}, for {tokens} of them", cause(summary, *why)));
    let note = format!("a token usually takes {} ms{}", shown(summary.token.p50), slowest.unwrap_or_default());
    picture.words((32.0, 68.0), Font { size: 13.0, ..NOTE }, &note);
    legend(picture, summary, 96.0)
}

fn legend(picture: &mut Picture, summary: &TraceSummary, y: f64) -> f64 {
    let shades = summary.hops.len().clamp(1, HOPS.len());
    let (mut x, size) = (32.0, 11.0);
    for color in &HOPS[..shades] {
        picture.rectangle(Area { x, y: y - size + 1.0, width: size, height: size }, color, 2.0, "");
        x += size + 2.0;
    }
    let each = if shades > 1 { "compute, a shade for each hop" } else { "compute" };
    let entries = [
        ("", each),
        (color(Place::Hop(0), Stage::Queue, 0), "queue"),
        (color(Place::Hop(0), Stage::Transfer, 0), "transfer, way back"),
        (color(Place::Client, Stage::Sampling, 0), "sampling"),
        (color(Place::Client, Stage::Embedding, 0), "embedding"),
        (LOSS, "replacing a lost server"),
    ];
    for (color, name) in entries {
        if !color.is_empty() {
            picture.rectangle(Area { x, y: y - size + 1.0, width: size, height: size }, color, 2.0, "");
            x += size;
        }
        picture.words((x + 5.0, y), NOTE, name);
        // About the width of a character at this size.
        x += 5.0 + 6.2 * name.chars().count() as f64 + 18.0;
    }
    y
}

/// The colour of a stage; of a computation, that of the hop in this row.
fn color(place: Place, stage: Stage, row: usize) -> &'static str {
    match (place, stage) {
        (_, Stage::Compute) => HOPS[row % HOPS.len()],
        (_, Stage::Queue) => "#dd8534",
        (_, Stage::Transfer | Stage::Return) => "#c3cad3",
        (_, Stage::Sampling) => "#52606d",
        (_, Stage::Embedding) => "#9aa5b1",
        (_, Stage::Wait) => LANE,
    }
}

/// The row of a place: 0 for the client, then the hops in the order of their blocks.
fn row(summary: &TraceSummary, place: Place) -> Option<usize> {
    match place {
        Place::Client => Some(0),
        Place::Hop(index) => summary.hops.iter().position(|hop| hop.hop == index).map(|at| at + 1),
    }
}

/// What one panel shows.
struct Window {
    title: String,
    from: Duration,
    until: Duration,
}

/// The moments worth seeing: the beginning, the usual, the worst.
fn windows(summary: &TraceSummary) -> Vec<Window> {
    let tokens = &summary.tokens;
    let window = |title: String, first: usize, last: usize| {
        let (first, last) = (tokens.get(first)?.token, tokens.get(last.min(tokens.len() - 1))?.token);
        Some(Window { title, from: first.start, until: last.end })
    };
    let mut windows = Vec::new();
    windows.extend(window("The prompt, up to the first token".to_string(), 0, 0));
    let decoded: Vec<&TokenTimes> = tokens.iter().skip(1).collect();
    let usual = decoded.iter().min_by_key(|token| token.took.abs_diff(summary.token.p50));
    if let Some(usual) = usual {
        let at = usual.token.number as usize - 1;
        windows.extend(window("Usual tokens".to_string(), at.saturating_sub(1).max(1), at + 1));
    }
    let worst = decoded.iter().max_by_key(|token| token.took).filter(|token| token.took > summary.token.p50 * SLOW);
    if let Some(reroute) = summary.reroutes.first() {
        let at = tokens.iter().position(|token| reroute.at <= token.token.end);
        windows.extend(at.and_then(|at| window(format!("Token {}, when a server was replaced", at + 1), at, at)));
    } else if let Some(worst) = worst {
        let at = worst.token.number as usize - 1;
        windows.extend(window(format!("The slowest token, {}", worst.token.number), at, at));
    }
    windows
}

#[cfg(test)]
mod tests;
