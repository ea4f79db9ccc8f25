//! The screen's layout.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Padding, Paragraph};
use swarm_client::overview::{ModelOverview, Seen, Severity};

use super::super::output::plain;
use super::super::status_view::size;
use super::heights::{Rows, divide};
use super::screen::{Focus, Screen};
use super::wrap::{beside, width};
use super::{help, parts, servers};

/// The least rows of a part: its title, and a line.
const LEAST: u16 = 2;

/// The least rows of the part that arrows move in: on a small screen others make room for it.
const FOCUSED: u16 = 5;

/// Columns that a part leaves free at its sides.
pub(super) const SIDES: u16 = 2;

/// Draws everything; `now` is in milliseconds since 1970.
pub(super) fn draw(frame: &mut Frame, screen: &mut Screen, now: u64) {
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(0), Constraint::Length(1)]).areas(frame.area());
    frame.render_widget(Paragraph::new(help::legend(screen)), foot);
    let inner = body.width.saturating_sub(SIDES) as usize;
    if screen.help {
        let lines = help::lines().flat_map(|(what, words)| beside(vec![what], words, inner)).collect();
        return draw_lines(frame, "Help", true, lines, &mut 0, body);
    }
    let Some(seen) = screen.seen.clone() else {
        frame.render_widget(Paragraph::new("looking at the swarm …"), head);
        return;
    };
    draw_head(frame, screen, &seen, head, now);
    let Some(model) = screen.shown().cloned() else {
        let lines = parts::lines_of(nothing(&seen), Style::new(), inner).collect();
        return draw_lines(frame, "Swarm", false, lines, &mut 0, body);
    };
    let coverage = parts::coverage(&model, inner);
    let alarms = alarm_lines(screen, &seen, &model, inner);
    let events = event_lines(&seen, now, inner);
    let [top, table, warnings, timeline] = areas(screen.focus, body, &coverage, &model, &alarms, &events);
    draw_lines(frame, &size(&model), false, coverage, &mut 0, top);
    servers::draw(frame, screen, &model, table);
    draw_lines(frame, "Alarms", screen.focus == Focus::Alarms, alarms, &mut screen.alarms_past, warnings);
    draw_lines(frame, "Time-line", screen.focus == Focus::Timeline, events, &mut screen.events_past, timeline);
}

/// Where each part is drawn: coverage, servers, alarms, time-line.
fn areas(
    focus: Focus,
    body: Rect,
    coverage: &[Line],
    model: &ModelOverview,
    alarms: &[Line],
    events: &[Line],
) -> [Rect; 4] {
    let part = |lines: usize, least: u16| Rows { least, full: u16::try_from(lines + 1).unwrap_or(u16::MAX) };
    // Blocks and what is missing of them; a header above the first server.
    let mut parts = [
        part(coverage.len(), LEAST + 1),
        part(model.servers.len() + 1, LEAST + 1),
        part(alarms.len(), LEAST),
        part(events.len(), LEAST),
    ];
    let order = match focus {
        Focus::Servers => [0, 1, 2, 3],
        Focus::Alarms => [0, 2, 1, 3],
        Focus::Timeline => [0, 3, 1, 2],
    };
    parts[order[1]].least = FOCUSED;
    let mut y = body.y;
    divide(body.height, parts, order).map(|height| {
        let area = Rect { y, height, ..body };
        y += height;
        area
    })
}

fn draw_head(frame: &mut Frame, screen: &Screen, seen: &Seen, area: Rect, now: u64) {
    let when = format!(" {} ", parts::age(now, seen.overview.at_unix_ms));
    let [title, age] = Layout::horizontal([Constraint::Min(0), Constraint::Length(width(&when) as u16)]).areas(area);
    let mut spans = vec![Span::styled(format!(" {} ", seen.overview.swarm), Style::new().bold())];
    for (number, model) in screen.models.iter().enumerate() {
        let style = match number == screen.model {
            true => Style::new().add_modifier(Modifier::REVERSED),
            false => Style::new().dim(),
        };
        spans.push(Span::raw(" "));
        spans.push(Span::styled(format!(" {} ", plain(&model.name)), style));
    }
    frame.render_widget(Paragraph::new(Line::from(spans)), title);
    frame.render_widget(Paragraph::new(when).style(Style::new().dim()), age);
}

/// What is said where no model was ever seen.
fn nothing(seen: &Seen) -> &'static str {
    match seen.cut_off {
        true => "no member of the swarm answers any more; this goes on looking",
        false => "no model lives here yet; serve one: swarm-node serve --model MODEL --bootstrap ...",
    }
}

/// A part of the screen: a rule with its title, and at the right what is above and below of what is seen.
pub(super) fn panel(title: &str, focused: bool, hidden: (usize, usize)) -> Block<'static> {
    let style = if focused { Style::new().bold() } else { Style::new().dim() };
    let more = match hidden {
        (0, 0) => None,
        (0, below) => Some(format!(" {below} more ↓ ")),
        (above, 0) => Some(format!(" {above} more ↑ ")),
        (above, below) => Some(format!(" {above} more ↑  {below} more ↓ ")),
    };
    let block = Block::new()
        .borders(Borders::TOP)
        .border_style(style)
        .padding(Padding::horizontal(SIDES / 2))
        .title_top(format!(" {title} "));
    match more {
        Some(more) => block.title_top(Line::from(more).right_aligned()),
        None => block,
    }
}

/// A part that has `lines`, without the first `past` of them; where fewer are left, `past` is set back.
fn draw_lines(frame: &mut Frame, title: &str, focused: bool, lines: Vec<Line>, past: &mut usize, area: Rect) {
    if area.is_empty() {
        return;
    }
    let shown = area.height.saturating_sub(1) as usize;
    *past = (*past).min(lines.len().saturating_sub(shown));
    let block = panel(title, focused, (*past, lines.len().saturating_sub(*past + shown)));
    let lines: Vec<Line> = lines.into_iter().skip(*past).take(shown).collect();
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn alarm_lines(screen: &Screen, seen: &Seen, model: &ModelOverview, width: usize) -> Vec<Line<'static>> {
    let mut said: Vec<(Severity, String)> = Vec::new();
    if seen.cut_off {
        let words = "no member answers any more: this is what was seen before; it goes on looking";
        said.push((Severity::Critical, words.to_string()));
    }
    if seen.overview.models.iter().all(|there| there.model_id != model.model_id) {
        said.push((Severity::Critical, format!("no server of {} is there any more", model.name)));
    }
    let of_model = seen.overview.alarms.iter().filter(|alarm| alarm.model_id == model.model_id);
    said.extend(of_model.map(|alarm| (alarm.severity, alarm.message.clone())));
    if model.servers.iter().all(|server| !server.state.serves()) {
        said.extend(screen.hint.iter().map(|hint| (Severity::Info, hint.clone())));
    }
    if said.is_empty() {
        return vec![Line::from(Span::styled("nothing is wrong", Style::new().dim()))];
    }
    said.iter().flat_map(|(severity, message)| parts::alarm(*severity, message, width)).collect()
}

fn event_lines(seen: &Seen, now: u64, width: usize) -> Vec<Line<'static>> {
    let newest_first = seen.timeline.events.iter().rev();
    let lines: Vec<Line> = newest_first.flat_map(|event| parts::event(event, now, width)).collect();
    if lines.is_empty() {
        let since = format!("nothing has happened since {}", parts::age(now, seen.timeline.since_unix_ms));
        return parts::lines_of(&since, Style::new().dim(), width).collect();
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers};
    use swarm_client::overview::{Answer, Observation, SwarmOverview, Timeline, compare};
    use swarm_protocol::session::TokenCount;

    use super::super::super::status_testing::{observation, server};
    use super::*;

    fn drawn(screen: &mut Screen, width: u16, height: u16, now: u64) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, screen, now)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let line = |y: u16| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (0..height).map(|y| line(y).trim_end().to_string() + "\n").collect()
    }

    /// Without the spaces that lines are broken and indented by.
    fn words(text: &str) -> String {
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    fn seen(observation: &Observation, timeline: Timeline) -> Arc<Seen> {
        let overview = Arc::new(SwarmOverview::of(observation, 63_000));
        Arc::new(Seen { overview, timeline, cut_off: observation.cut_off })
    }

    /// A screen that has seen these servers.
    fn with_servers(servers: &[(&str, u32, u32)]) -> Screen {
        let server = |(name, start, end): &(&str, u32, u32)| {
            let mut server = server(name, *start, *end);
            let load = &mut server.announcement.load;
            (load.free_tokens, load.total_tokens) = (TokenCount(16_384), TokenCount(16_384));
            server
        };
        let mut screen = Screen::default();
        screen.see(seen(&observation(12, servers.iter().map(server).collect()), Timeline::new(0)));
        screen
    }

    const FIVE: [(&str, u32, u32); 5] =
        [("attic", 0, 6), ("garage", 0, 6), ("the-shed-in-the-garden", 0, 12), ("cellar", 6, 12), ("barn", 6, 12)];

    fn press(screen: &mut Screen, key: KeyCode) {
        screen.event(&Event::Key(KeyEvent::new(key, KeyModifiers::NONE)));
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
        seen(&after, timeline)
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
    fn names_and_room_are_whole_and_columns_go_where_it_is_narrow() {
        let mut screen = with_servers(&FIVE);
        let always = ["the-shed-in-the-garden", "● serving", "0..12", "▰▰▰▰ 16.4K/16.4K"];
        let wider = [(60, 12, ""), (80, 24, "STEPS/S RTT MS"), (140, 40, "SESSIONS UP FORMAT")];
        for (width, height, columns) in wider {
            let text = drawn(&mut screen, width, height, 65_000);
            for part in always.into_iter().chain(["BLOCKS", "KV FREE", columns]) {
                assert!(words(&text).contains(part), "{part:?} is not in\n{text}");
            }
            assert_eq!(text.contains("FORMAT"), width == 140, "{text}");
            assert_eq!(text.contains("bf16/fma/x86_64-linux"), width == 140, "{text}");
            assert_eq!(text.contains("RTT MS"), width > 60, "{text}");
        }
    }

    #[test]
    fn servers_that_do_not_fit_are_counted_and_keys_bring_them() {
        let mut screen = with_servers(&FIVE);
        for (width, height) in [(80, 24), (140, 40)] {
            let text = drawn(&mut screen, width, height, 65_000);
            assert!(FIVE.iter().all(|(name, ..)| text.contains(name)) && !text.contains("more"), "{text}");
            assert!(text.contains("Time-line") && text.contains("nothing is wrong"), "{text}");
        }
        let text = drawn(&mut screen, 60, 12, 65_000);
        assert!(text.contains("attic") && text.contains("2 more ↓") && !text.contains("barn"), "{text}");
        press(&mut screen, KeyCode::End);
        let text = drawn(&mut screen, 60, 12, 65_000);
        assert!(text.contains("barn") && text.contains("2 more ↑") && !text.contains("attic"), "{text}");
        press(&mut screen, KeyCode::Up);
        assert!(drawn(&mut screen, 60, 12, 65_000).contains("barn"));
    }

    #[test]
    fn alarms_and_events_are_told_to_their_end() {
        let alarm = "each of blocks 0..12 of demo has one server only (attic and garage): \
                     if one is lost, texts wait until another has its blocks";
        for (width, height) in [(60, 12), (80, 24), (140, 40)] {
            let mut screen = with_servers(&[("attic", 0, 6), ("garage", 6, 12)]);
            press(&mut screen, KeyCode::Tab);
            let text = drawn(&mut screen, width, height, 65_000);
            assert!(words(&text).contains(alarm), "{text}");
            assert!(text.contains("attic"), "{text}");
            screen.see(after_a_loss());
            press(&mut screen, KeyCode::Tab);
            let text = drawn(&mut screen, width, height, 65_000);
            let event = "demo cannot be used: nobody serves blocks 6..12";
            assert!(words(&text).contains(event), "{text}");
        }
    }

    #[test]
    fn what_was_seen_stays_when_nobody_answers_any_more() {
        for (width, height) in [(60, 12), (80, 24), (140, 40)] {
            let mut screen = Screen::default();
            let before = after_a_loss();
            screen.see(before.clone());
            let nothing = Observation { models: Vec::new(), ..observation(12, Vec::new()) };
            for (cut_off, told) in [(true, "no member answers any more"), (false, "no server of demo is there")] {
                screen.see(seen(&Observation { cut_off, ..nothing.clone() }, before.timeline.clone()));
                let text = drawn(&mut screen, width, height, 65_000);
                for part in ["demo", "12 blocks, 0 servers", "nobody serves blocks 0..12", told] {
                    assert!(words(&text).contains(part), "{part:?} is not in\n{text}");
                }
                assert!(!text.contains("no model lives here"), "{text}");
                (0..2).for_each(|_| press(&mut screen, KeyCode::Tab));
                let text = drawn(&mut screen, width, height, 65_000);
                assert!(words(&text).contains("cellar was lost with blocks 6..12"), "{text}");
                press(&mut screen, KeyCode::Tab);
            }
        }
    }

    #[test]
    fn a_hint_is_shown_while_nobody_serves_the_model() {
        let mut screen = Screen::hinting(Some("add `--format bf16`".to_string()));
        screen.see(seen(&observation(12, vec![]), Timeline::new(0)));
        assert!(drawn(&mut screen, 80, 24, 0).contains("add `--format bf16`"));
        screen.see(seen(&observation(12, vec![server("attic", 0, 12)]), Timeline::new(0)));
        assert!(!drawn(&mut screen, 80, 24, 0).contains("add `--format bf16`"));
    }

    #[test]
    fn keys_are_named_below_and_explained_on_demand() {
        for (width, height) in [(60, 12), (80, 24), (140, 40)] {
            let mut screen = with_servers(&FIVE);
            let text = drawn(&mut screen, width, height, 0);
            let legend = words(text.lines().last().unwrap());
            assert_eq!(legend, "q quit ? help ↑↓ move tab alarms");
            press(&mut screen, KeyCode::Char('?'));
            let text = drawn(&mut screen, width, height, 0);
            for part in ["q Esc", "PgUp", "✕ silent", "tokens that no session has reserved, of all"] {
                assert!(text.contains(part), "{part:?} is not in\n{text}");
            }
            press(&mut screen, KeyCode::Char('?'));
            assert!(drawn(&mut screen, width, height, 0).contains("attic"));
        }
    }

    #[test]
    fn servers_of_one_name_are_told_apart() {
        let mut screen = with_servers(&[("two", 0, 12), ("two", 0, 12), ("one", 0, 12)]);
        let text = drawn(&mut screen, 60, 12, 0);
        let ends: Vec<&str> = text.split("two …").skip(1).map(|rest| &rest[..8]).collect();
        assert!(ends.len() == 2 && ends[0] != ends[1] && !text.contains("one …"), "{text}");
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
        screen.see(Arc::new(Seen { overview, timeline: Timeline::new(0), cut_off: false }));
        screen.servers.select(Some(199));
        let text = drawn(&mut screen, 110, 30, 0);
        assert!(text.contains("119..125"), "{text}");
    }

    #[test]
    fn what_servers_call_themselves_moves_no_cursor() {
        let mut screen = Screen::default();
        let overview = SwarmOverview::of(&observation(4, vec![server("a\u{1b}[2Jb", 0, 4)]), 0);
        let timeline = Timeline::new(Duration::ZERO.as_millis() as u64);
        screen.see(Arc::new(Seen { overview: Arc::new(overview), timeline, cut_off: false }));
        let text = drawn(&mut screen, 100, 20, 0);
        assert!(text.contains("a\u{fffd}[2Jb") && !text.contains('\u{1b}'), "{text}");
    }
}
