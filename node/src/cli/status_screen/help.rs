//! Words about the screen itself: its keys and signs. Pure.

use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::screen::{Focus, Screen};

/// What `?` shows: few and short enough lines for a small terminal.
const HELP: [(&str, &str); 9] = [
    ("q Esc", "quit"),
    ("? h", "this help, and back"),
    ("↑ ↓", "a row; PgUp PgDn ten, Home End all the way"),
    ("Tab", "go on to servers, alarms or time-line"),
    ("← →", "another model"),
    ("blocks", "░ no server  ▒ one  █ two or more"),
    ("servers", "● serving ○ announced ◐ joining ▽ leaving ✕ silent"),
    ("STEPS/S", "decode steps a second through all its blocks"),
    ("KV FREE", "tokens that no session has reserved, of all"),
];

/// The lines of the help: what there is, and what it means.
pub(super) fn lines() -> impl Iterator<Item = (Span<'static>, &'static str)> {
    HELP.into_iter().map(|(what, words)| (Span::styled(format!("{what:<8}"), Style::new().bold()), words))
}

/// The keys, in one line.
pub(super) fn legend(screen: &Screen) -> Line<'static> {
    if screen.help {
        return keys(&[("q", "quit"), ("?", "back")]);
    }
    let next = match screen.focus.next() {
        Focus::Servers => "servers",
        Focus::Alarms => "alarms",
        Focus::Timeline => "time-line",
    };
    let mut shown = vec![("q", "quit"), ("?", "help"), ("↑↓", "move"), ("tab", next)];
    if screen.models.len() > 1 {
        shown.push(("←→", "model"));
    }
    keys(&shown)
}

fn keys(shown: &[(&'static str, &'static str)]) -> Line<'static> {
    let key = |(key, does): &(&'static str, &'static str)| {
        [Span::styled(format!(" {key}"), Style::new().bold()), Span::raw(format!(" {does}  "))]
    };
    Line::from(shown.iter().flat_map(key).collect::<Vec<_>>())
}
