//! The parts of the screen: lines and cells. Pure.

use ratatui::style::{Color, Style};
use ratatui::text::{Line, Span};
use swarm_client::overview::{EventKind, ModelOverview, ServerCondition, ServerOverview, Severity, SwarmEvent};

use super::super::output::plain;
use super::super::status_view::{columns, mark};
use super::wrap::{beside, wrap};

/// Cells of a bar of KV cache room.
const ROOM_BAR: u64 = 4;

/// What stands over the servers.
pub(super) const SERVER_COLUMNS: [&str; 9] =
    ["SERVER", "STATE", "BLOCKS", "STEPS/S", "RTT MS", "KV FREE", "SESSIONS", "UP", "FORMAT"];

/// Which of these columns go first where the screen is narrow: blocks and state stay longest.
pub(super) const LEAVE: [usize; 8] = [8, 7, 6, 3, 4, 5, 2, 1];

/// How long ago, in the largest unit.
pub(super) fn age(now: u64, then: u64) -> String {
    format!("{} ago", span(now.saturating_sub(then) / 1000))
}

/// So many seconds, in the largest unit.
fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// One character for each block, or for a few: how many servers it has.
fn coverage_bar(model: &ModelOverview, width: usize) -> Line<'static> {
    let cell = |replicas: u32| match replicas {
        0 => Span::styled("░", Style::new().fg(Color::Red)),
        1 => Span::styled("▒", Style::new().fg(Color::Yellow)),
        _ => Span::styled("█", Style::new().fg(Color::Green)),
    };
    Line::from(columns(&model.replicas, width).into_iter().map(cell).collect::<Vec<_>>())
}

/// The model at a glance: its blocks, whether each is served, and what limits it.
pub(super) fn coverage(model: &ModelOverview, width: usize) -> Vec<Line<'static>> {
    let (words, style) = coverage_words(model);
    let mut lines = vec![coverage_bar(model, width)];
    lines.extend(lines_of(&words, style, width));
    if let Some(numbers) = numbers(model) {
        lines.extend(lines_of(&numbers, Style::new().dim(), width));
    }
    lines
}

/// `words` in lines of that width.
pub(super) fn lines_of(words: &str, style: Style, width: usize) -> impl Iterator<Item = Line<'static>> {
    wrap(words, width).into_iter().map(move |line| Line::from(Span::styled(line, style)))
}

fn coverage_words(model: &ModelOverview) -> (String, Style) {
    if model.missing.is_empty() {
        return ("every block is served".to_string(), Style::new().fg(Color::Green));
    }
    let ranges: Vec<String> = model.missing.iter().map(ToString::to_string).collect();
    (format!("nobody serves blocks {}", ranges.join(", ")), Style::new().fg(Color::Red))
}

/// What limits the model, and what a token takes on a link.
fn numbers(model: &ModelOverview) -> Option<String> {
    let mut parts = Vec::new();
    if let Some(bottleneck) = model.bottleneck.as_ref().filter(|bottleneck| bottleneck.replicas > 0) {
        let (blocks, rate) = (bottleneck.blocks, bottleneck.tokens_per_second);
        parts.push(format!("bottleneck: blocks {blocks}, {rate} steps/s"));
    }
    if let Some(wire) = &model.wire {
        parts.push(format!("{} B a token and link ({}), int8 {} B", wire.exact_bytes, wire.element, wire.int8_bytes));
    }
    (!parts.is_empty()).then(|| parts.join("   "))
}

/// A server's row, below [`SERVER_COLUMNS`]; `label` is what people call it.
pub(super) fn server_cells(server: &ServerOverview, label: &str) -> [Span<'static>; 9] {
    let number = |number: Option<f64>| number.map_or_else(|| "-".to_string(), |number| format!("{number:.1}"));
    let (mark, style) = condition(server.state);
    [
        Span::raw(plain(label)),
        Span::styled(format!("{mark} {}", server.state.name()), style),
        Span::raw(server.blocks.to_string()),
        Span::raw(number(Some(server.tokens_per_second))),
        Span::raw(number(server.rtt_ms)),
        Span::raw(room(server)),
        Span::raw(server.sessions.to_string()),
        Span::raw(server.uptime_seconds.map_or_else(|| "-".to_string(), span)),
        Span::raw(plain(&server.numeric_class)),
    ]
}

/// A state's sign and colour; the word stands beside them.
fn condition(state: ServerCondition) -> (&'static str, Style) {
    match state {
        ServerCondition::Serving => ("●", Style::new().fg(Color::Green)),
        ServerCondition::Announced => ("○", Style::new().fg(Color::Green)),
        ServerCondition::Joining => ("◐", Style::new().fg(Color::Cyan)),
        ServerCondition::Leaving => ("▽", Style::new().fg(Color::Yellow)),
        ServerCondition::Silent => ("✕", Style::new().fg(Color::Red)),
    }
}

/// `▰▰▰▱ 48/64`.
fn room(server: &ServerOverview) -> String {
    let (free, total) = (u64::from(server.free_tokens), u64::from(server.total_tokens));
    let full = (free * ROOM_BAR).checked_div(total).unwrap_or(0).min(ROOM_BAR);
    let bar: String = (0..ROOM_BAR).map(|cell| if cell < full { '▰' } else { '▱' }).collect();
    format!("{bar} {}/{}", short(free), short(total))
}

/// `9999`, `16.4K`, `524K`, `1.0M`: the room of a cache in few digits.
fn short(count: u64) -> String {
    match count {
        0..10_000 => count.to_string(),
        10_000..100_000 => format!("{:.1}K", count as f64 / 1e3),
        100_000..1_000_000 => format!("{}K", count / 1000),
        _ => format!("{:.1}M", count as f64 / 1e6),
    }
}

/// The lines of an alarm.
pub(super) fn alarm(severity: Severity, message: &str, width: usize) -> Vec<Line<'static>> {
    let style = match severity {
        Severity::Critical => Style::new().fg(Color::Red),
        Severity::Warning => Style::new().fg(Color::Yellow),
        Severity::Info => Style::new().dim(),
    };
    beside(vec![Span::styled(format!("{:<8}", mark(severity)), style)], &plain(message), width)
}

/// The lines of an event.
pub(super) fn event(event: &SwarmEvent, now: u64, width: usize) -> Vec<Line<'static>> {
    let (mark, style) = match event.kind {
        EventKind::Joined | EventKind::ModelAppeared => ("+", Style::new().fg(Color::Cyan)),
        EventKind::Serving | EventKind::Returned | EventKind::Whole => ("●", Style::new().fg(Color::Green)),
        EventKind::Moved => ("→", Style::new().fg(Color::Cyan)),
        EventKind::Leaving => ("▽", Style::new().fg(Color::Yellow)),
        EventKind::Left => ("-", Style::new().fg(Color::Yellow)),
        EventKind::Lost | EventKind::Broken | EventKind::ModelGone => ("✕", Style::new().fg(Color::Red)),
    };
    let when = Span::styled(format!("{:>10}  ", age(now, event.at_unix_ms)), Style::new().dim());
    beside(vec![when, Span::styled(format!("{mark} "), style)], &plain(&event.message), width)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_told_in_its_largest_unit() {
        let ages = [0, 59, 60, 7_200, 200_000].map(|seconds| age(seconds * 1000 + 1, 0));
        assert_eq!(ages, ["0 s ago", "59 s ago", "1 min ago", "2 h ago", "2 d ago"]);
        assert_eq!(age(5, 9_000), "0 s ago");
    }

    #[test]
    fn room_takes_few_digits() {
        let counts = [0, 9_999, 16_384, 131_072, 1_048_576].map(short);
        assert_eq!(counts, ["0", "9999", "16.4K", "131K", "1.0M"]);
    }
}
