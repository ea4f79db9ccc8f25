//! The screen's layout.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, BorderType, List, ListItem, Paragraph, Row, Table};
use swarm_client::overview::{Alarm, ModelOverview, Seen};

use super::super::output::plain;
use super::parts;
use super::screen::{Focus, Screen};

/// Rows of alarms that are shown; the worst come first.
const MOST_ALARMS: u16 = 4;

/// The least rows of the servers' table, its frame and header included.
const TABLE_ROWS: u16 = 5;

/// Draws everything; `now` is in milliseconds since 1970.
pub(super) fn draw(frame: &mut Frame, screen: &mut Screen, now: u64) {
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(0), Constraint::Length(1)]).areas(frame.area());
    frame.render_widget(Paragraph::new(help(screen.focus)).style(Style::new().dim()), foot);
    let Some(seen) = screen.seen.clone() else {
        frame.render_widget(Paragraph::new("looking at the swarm …"), head);
        return;
    };
    frame.render_widget(Paragraph::new(title(&seen, screen.model)), head);
    let when = format!("{} ", parts::age(now, seen.overview.at_unix_ms));
    frame.render_widget(Paragraph::new(when).alignment(Alignment::Right).style(Style::new().dim()), head);
    let Some(model) = seen.overview.models.get(screen.model) else {
        let words = "no model lives here yet; serve one: swarm-node serve --model MODEL --bootstrap ...";
        frame.render_widget(Paragraph::new(words).block(panel("Swarm", false)), body);
        return;
    };
    let alarms: Vec<&Alarm> = seen.overview.alarms.iter().filter(|alarm| alarm.model_id == model.model_id).collect();
    let alarm_rows = (alarms.len() as u16).clamp(1, MOST_ALARMS) + 2;
    let [coverage, servers, warnings, timeline] = Layout::vertical([
        Constraint::Length(5),
        Constraint::Min(TABLE_ROWS),
        Constraint::Length(alarm_rows),
        Constraint::Percentage(30),
    ])
    .areas(body);
    draw_coverage(frame, model, coverage);
    draw_servers(frame, screen, model, servers);
    draw_alarms(frame, &alarms, warnings);
    draw_timeline(frame, screen, &seen, timeline, now);
}

fn help(focus: Focus) -> Line<'static> {
    let other = match focus {
        Focus::Servers => "time-line",
        Focus::Timeline => "servers",
    };
    Line::from(format!(" q quit   ↑↓ move   ←→ model   tab {other}"))
}

fn title(seen: &Seen, shown: usize) -> Line<'static> {
    let mut spans = vec![Span::styled(format!(" {} ", seen.overview.swarm), Style::new().bold())];
    for (number, model) in seen.overview.models.iter().enumerate() {
        let style = match number == shown {
            true => Style::new().add_modifier(Modifier::REVERSED),
            false => Style::new().dim(),
        };
        spans.push(Span::raw(" "));
        spans.push(Span::styled(format!(" {} ", plain(&model.name)), style));
    }
    Line::from(spans)
}

fn panel(title: impl Into<String>, focused: bool) -> Block<'static> {
    let style = if focused { Style::new() } else { Style::new().dim() };
    Block::bordered().border_type(BorderType::Rounded).border_style(style).title(format!(" {} ", title.into()))
}

fn draw_coverage(frame: &mut Frame, model: &ModelOverview, area: Rect) {
    let title = format!("{} blocks, {} servers", model.blocks, model.servers.len());
    let block = panel(title, false);
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let lines =
        vec![parts::coverage_bar(model, inner.width as usize), parts::coverage_words(model), parts::numbers(model)];
    frame.render_widget(Paragraph::new(lines), inner);
}

fn draw_servers(frame: &mut Frame, screen: &mut Screen, model: &ModelOverview, area: Rect) {
    if area.height < TABLE_ROWS {
        return;
    }
    let header = ["SERVER", "STATE", "BLOCKS", "STEPS/S", "RTT MS", "KV FREE", "SESSIONS", "UP", "FORMAT"];
    let rows = model.servers.iter().map(|server| Row::new(parts::server_cells(server)));
    let widths = [
        Constraint::Fill(2),
        Constraint::Length(11),
        Constraint::Length(9),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(14),
        Constraint::Length(8),
        Constraint::Length(7),
        Constraint::Fill(1),
    ];
    let table = Table::new(rows, widths)
        .header(Row::new(header).style(Style::new().dim()))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
        .block(panel("Servers", screen.focus == Focus::Servers));
    frame.render_stateful_widget(table, area, &mut screen.servers);
}

fn draw_alarms(frame: &mut Frame, alarms: &[&Alarm], area: Rect) {
    let items: Vec<ListItem> = match alarms.is_empty() {
        true => vec![ListItem::new(Span::styled("nothing is wrong", Style::new().dim()))],
        false => alarms.iter().map(|alarm| ListItem::new(parts::alarm(alarm))).collect(),
    };
    frame.render_widget(List::new(items).block(panel("Alarms", false)), area);
}

fn draw_timeline(frame: &mut Frame, screen: &Screen, seen: &Seen, area: Rect, now: u64) {
    let rows = area.height.saturating_sub(2) as usize;
    let newest = seen.timeline.events.iter().rev().skip(screen.past).take(rows);
    let mut items: Vec<ListItem> = newest.map(|event| ListItem::new(parts::event(event, now))).collect();
    if items.is_empty() {
        let since = parts::age(now, seen.timeline.since_unix_ms);
        items.push(ListItem::new(Span::styled(format!("nothing has happened since {since}"), Style::new().dim())));
    }
    frame.render_widget(List::new(items).block(panel("Time-line", screen.focus == Focus::Timeline)), area);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use swarm_client::overview::{Answer, SwarmOverview, Timeline, compare};

    use super::super::super::status_testing::{observation, server};
    use super::*;

    fn drawn(screen: &mut Screen, width: u16, height: u16, now: u64) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, screen, now)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let line = |y: u16| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (0..height).map(|y| line(y).trim_end().to_string() + "\n").collect()
    }

    /// The attic serves half of the blocks, the cellar has been lost with the other half.
    fn after_a_loss() -> Arc<Seen> {
        let (attic, cellar) = (server("attic", 0, 6), server("cellar", 6, 12));
        let before = observation(12, vec![attic.clone(), cellar.clone()]);
        let mut lost = cellar;
        lost.answer = Answer::Silent { reason: "refused".to_string() };
        let after = observation(12, vec![attic, lost]);
        let mut timeline = Timeline::new(0);
        timeline.note(compare(&before, &after), 60_000);
        Arc::new(Seen { overview: Arc::new(SwarmOverview::of(&after, 63_000)), timeline })
    }

    #[test]
    fn a_loss_is_seen_in_every_part_of_the_screen() {
        let mut screen = Screen::default();
        screen.see(after_a_loss());
        let text = drawn(&mut screen, 110, 30, 65_000);
        for part in [
            "public",
            "demo",
            "12 blocks, 2 servers",
            "nobody serves blocks 6..12",
            "attic",
            "serving",
            "cellar",
            "silent",
            "48/64",
            "333.3",
            "alarm",
            "one server only",
            "5 s ago",
            "cellar was lost with blocks 6..12 (refused)",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        assert!(text.contains(&"░".repeat(6)), "{text}");
    }

    #[test]
    fn no_terminal_is_too_small_and_no_swarm_too_large() {
        let mut screen = Screen::default();
        for (width, height) in [(1, 1), (20, 4), (40, 12), (300, 90)] {
            drawn(&mut screen, width, height, 0);
            screen.see(after_a_loss());
            drawn(&mut screen, width, height, 0);
        }
        let servers =
            (0..200).map(|number| server(&format!("server-{number}"), number % 120, number % 120 + 6)).collect();
        let overview = Arc::new(SwarmOverview::of(&observation(126, servers), 0));
        screen.see(Arc::new(Seen { overview, timeline: Timeline::new(0) }));
        screen.servers.select(Some(199));
        let text = drawn(&mut screen, 110, 30, 0);
        assert!(text.contains("119..125"), "{text}");
    }

    #[test]
    fn what_servers_call_themselves_moves_no_cursor() {
        let mut screen = Screen::default();
        let overview = SwarmOverview::of(&observation(4, vec![server("a\u{1b}[2Jb", 0, 4)]), 0);
        let timeline = Timeline::new(Duration::ZERO.as_millis() as u64);
        screen.see(Arc::new(Seen { overview: Arc::new(overview), timeline }));
        let text = drawn(&mut screen, 100, 20, 0);
        assert!(text.contains("a\u{fffd}[2Jb") && !text.contains('\u{1b}'), "{text}");
    }
}
