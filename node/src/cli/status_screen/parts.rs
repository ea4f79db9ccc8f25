//! The parts of the screen: lines and cells. Pure.

use ratatui::style::{Color, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Cell;
use swarm_client::overview::{Alarm, EventKind, ModelOverview, ServerCondition, ServerOverview, Severity, SwarmEvent};

use super::super::output::plain;
use super::super::status_view::{columns, mark};

/// Cells of a bar of KV cache room.
const ROOM_BAR: u64 = 4;

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
pub(super) fn coverage_bar(model: &ModelOverview, width: usize) -> Line<'static> {
    let cell = |replicas: u32| match replicas {
        0 => Span::styled("░", Style::new().fg(Color::Red)),
        1 => Span::styled("▒", Style::new().fg(Color::Yellow)),
        _ => Span::styled("█", Style::new().fg(Color::Green)),
    };
    Line::from(columns(&model.replicas, width).into_iter().map(cell).collect::<Vec<_>>())
}

/// Whether every block is served.
pub(super) fn coverage_words(model: &ModelOverview) -> Line<'static> {
    if model.missing.is_empty() {
        return Line::from(Span::styled("every block is served", Style::new().fg(Color::Green)));
    }
    let ranges: Vec<String> = model.missing.iter().map(ToString::to_string).collect();
    Line::from(Span::styled(format!("nobody serves blocks {}", ranges.join(", ")), Style::new().fg(Color::Red)))
}

/// What limits the model, and what a token takes on a link.
pub(super) fn numbers(model: &ModelOverview) -> Line<'static> {
    let mut parts = Vec::new();
    if let Some(bottleneck) = model.bottleneck.as_ref().filter(|bottleneck| bottleneck.replicas > 0) {
        let (blocks, rate) = (bottleneck.blocks, bottleneck.tokens_per_second);
        parts.push(format!("bottleneck: blocks {blocks}, {rate} steps/s"));
    }
    if let Some(wire) = &model.wire {
        parts.push(format!("{} B a token and link ({}), int8 {} B", wire.exact_bytes, wire.element, wire.int8_bytes));
    }
    Line::from(Span::styled(parts.join("   "), Style::new().dim()))
}

/// A server's row.
pub(super) fn server_cells(server: &ServerOverview) -> Vec<Cell<'static>> {
    let number = |number: Option<f64>| number.map_or_else(|| "-".to_string(), |number| format!("{number:.1}"));
    let (mark, style) = condition(server.state);
    vec![
        Cell::from(plain(&server.label())),
        Cell::from(Span::styled(format!("{mark} {}", server.state.name()), style)),
        Cell::from(server.blocks.to_string()),
        Cell::from(number(Some(server.tokens_per_second))),
        Cell::from(number(server.rtt_ms)),
        Cell::from(room(server)),
        Cell::from(server.sessions.to_string()),
        Cell::from(server.uptime_seconds.map_or_else(|| "-".to_string(), span)),
        Cell::from(plain(&server.numeric_class)),
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
    format!("{bar} {free}/{total}")
}

/// An alarm's line.
pub(super) fn alarm(alarm: &Alarm) -> Line<'static> {
    let style = match alarm.severity {
        Severity::Critical => Style::new().fg(Color::Red),
        Severity::Warning => Style::new().fg(Color::Yellow),
        Severity::Info => Style::new().dim(),
    };
    Line::from(vec![Span::styled(format!("{:<8}", mark(alarm.severity)), style), Span::raw(plain(&alarm.message))])
}

/// An event's line.
pub(super) fn event(event: &SwarmEvent, now: u64) -> Line<'static> {
    let (mark, style) = match event.kind {
        EventKind::Joined | EventKind::ModelAppeared => ("+", Style::new().fg(Color::Cyan)),
        EventKind::Serving | EventKind::Returned | EventKind::Whole => ("●", Style::new().fg(Color::Green)),
        EventKind::Moved => ("→", Style::new().fg(Color::Cyan)),
        EventKind::Leaving => ("▽", Style::new().fg(Color::Yellow)),
        EventKind::Left => ("-", Style::new().fg(Color::Yellow)),
        EventKind::Lost | EventKind::Broken | EventKind::ModelGone => ("✕", Style::new().fg(Color::Red)),
    };
    Line::from(vec![
        Span::styled(format!("{:>11}  ", age(now, event.at_unix_ms)), Style::new().dim()),
        Span::styled(format!("{mark} "), style),
        Span::raw(plain(&event.message)),
    ])
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
}
