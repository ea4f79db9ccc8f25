//! What the screen shows, and what keys do to it. Pure.

use std::sync::Arc;

use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::widgets::TableState;
use swarm_client::overview::{ModelOverview, Seen};

/// Rows that a page key moves.
const PAGE: isize = 10;

/// Whether the screen stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    /// It is drawn again.
    Stay,
    /// The user has seen enough.
    End,
}

/// The part of the screen that arrows move in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Focus {
    /// The servers.
    #[default]
    Servers,
    /// What has happened.
    Timeline,
}

/// What the screen shows.
#[derive(Debug, Default)]
pub(super) struct Screen {
    /// The last look.
    pub(super) seen: Option<Arc<Seen>>,
    /// Which of its models.
    pub(super) model: usize,
    /// Where arrows move.
    pub(super) focus: Focus,
    /// Which server is marked, and where its table begins.
    pub(super) servers: TableState,
    /// How many of the newest events are scrolled past.
    pub(super) past: usize,
}

impl Screen {
    /// Takes in a look.
    pub(super) fn see(&mut self, seen: Arc<Seen>) -> Flow {
        self.model = self.model.min(seen.overview.models.len().saturating_sub(1));
        self.seen = Some(seen);
        self.move_by(0);
        Flow::Stay
    }

    /// The model that is shown.
    pub(super) fn shown(&self) -> Option<&ModelOverview> {
        self.seen.as_ref()?.overview.models.get(self.model)
    }

    /// Takes in what came from the terminal; a change of its size needs nothing but to be drawn.
    pub(super) fn event(&mut self, event: &Event) -> Flow {
        match event {
            Event::Key(key) if key.kind != KeyEventKind::Release => self.key(*key),
            _ => Flow::Stay,
        }
    }

    fn key(&mut self, key: KeyEvent) -> Flow {
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return Flow::End,
            KeyCode::Char('c' | 'd') if key.modifiers.contains(KeyModifiers::CONTROL) => return Flow::End,
            KeyCode::Up | KeyCode::Char('k') => self.move_by(-1),
            KeyCode::Down | KeyCode::Char('j') => self.move_by(1),
            KeyCode::PageUp => self.move_by(-PAGE),
            KeyCode::PageDown => self.move_by(PAGE),
            KeyCode::Home => self.move_by(isize::MIN),
            KeyCode::End => self.move_by(isize::MAX),
            KeyCode::Left => self.turn_model(false),
            KeyCode::Right => self.turn_model(true),
            KeyCode::Tab | KeyCode::BackTab => {
                self.focus = match self.focus {
                    Focus::Servers => Focus::Timeline,
                    Focus::Timeline => Focus::Servers,
                };
            }
            _ => {}
        }
        Flow::Stay
    }

    fn turn_model(&mut self, on: bool) {
        let models = self.seen.as_ref().map_or(0, |seen| seen.overview.models.len()).max(1);
        self.model = if on { (self.model + 1) % models } else { (self.model + models - 1) % models };
        self.servers = TableState::default();
        self.move_by(0);
    }

    fn move_by(&mut self, rows: isize) {
        match self.focus {
            Focus::Servers => {
                let last = self.shown().map_or(0, |model| model.servers.len()).checked_sub(1);
                let at = self.servers.selected().unwrap_or(0);
                self.servers.select(last.map(|last| at.saturating_add_signed(rows).min(last)));
            }
            Focus::Timeline => {
                let events = self.seen.as_ref().map_or(0, |seen| seen.timeline.events.len());
                self.past = self.past.saturating_add_signed(rows).min(events.saturating_sub(1));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use swarm_client::overview::Timeline;

    use super::super::super::status_testing::{overview, server};
    use super::*;

    fn key(code: KeyCode) -> Event {
        Event::Key(KeyEvent::new(code, KeyModifiers::NONE))
    }

    fn seen(servers: usize) -> Arc<Seen> {
        let servers = (0..servers).map(|number| server(&format!("s{number}"), 0, 4)).collect();
        Arc::new(Seen { overview: Arc::new(overview(4, servers)), timeline: Timeline::new(0) })
    }

    #[test]
    fn arrows_stay_within_the_servers_also_when_these_become_fewer() {
        let mut screen = Screen::default();
        screen.event(&key(KeyCode::Down));
        assert_eq!(screen.servers.selected(), None);
        screen.see(seen(3));
        assert_eq!(screen.servers.selected(), Some(0));
        screen.event(&key(KeyCode::Up));
        (0..9).for_each(|_| assert_eq!(screen.event(&key(KeyCode::Down)), Flow::Stay));
        assert_eq!(screen.servers.selected(), Some(2));
        screen.see(seen(1));
        assert_eq!(screen.servers.selected(), Some(0));
        screen.event(&key(KeyCode::End));
        screen.event(&key(KeyCode::Home));
        assert_eq!(screen.servers.selected(), Some(0));
    }

    #[test]
    fn q_escape_and_ctrl_c_end_it() {
        let mut screen = Screen::default();
        let interrupt = Event::Key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL));
        for end in [key(KeyCode::Char('q')), key(KeyCode::Esc), interrupt] {
            assert_eq!(screen.event(&end), Flow::End);
        }
        assert_eq!(screen.event(&key(KeyCode::Char('c'))), Flow::Stay);
        assert_eq!(screen.event(&Event::Resize(1, 1)), Flow::Stay);
    }

    #[test]
    fn tab_goes_to_the_time_line_and_back() {
        let mut screen = Screen::default();
        screen.see(seen(3));
        screen.event(&key(KeyCode::Tab));
        screen.event(&key(KeyCode::Down));
        assert_eq!((screen.focus, screen.servers.selected(), screen.past), (Focus::Timeline, Some(0), 0));
        screen.event(&key(KeyCode::Tab));
        assert_eq!(screen.focus, Focus::Servers);
    }
}
