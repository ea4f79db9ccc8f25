//! What the screen shows, and what keys do to it. Pure.

use std::sync::Arc;

use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::widgets::TableState;
use swarm_client::overview::{ModelOverview, Seen};

use super::memory::remember;

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
    /// What is wrong.
    Alarms,
    /// What has happened.
    Timeline,
}

impl Focus {
    /// The part below, and from the last one the first.
    pub(super) fn next(self) -> Self {
        match self {
            Self::Servers => Self::Alarms,
            Self::Alarms => Self::Timeline,
            Self::Timeline => Self::Servers,
        }
    }
}

/// What the screen shows.
#[derive(Debug, Default)]
pub(super) struct Screen {
    /// The last look.
    pub(super) seen: Option<Arc<Seen>>,
    /// Its models, and those that were seen before.
    pub(super) models: Vec<ModelOverview>,
    /// Which of them is shown.
    pub(super) model: usize,
    /// Where arrows move.
    pub(super) focus: Focus,
    /// Which server is marked, and where its table begins.
    pub(super) servers: TableState,
    /// Lines of alarms that are scrolled past; drawing sets it back to what there is.
    pub(super) alarms_past: usize,
    /// The same of the time-line, the newest first.
    pub(super) events_past: usize,
    /// Whether keys and signs are explained instead of the swarm.
    pub(super) help: bool,
    /// What to try while nobody serves the model.
    pub(super) hint: Option<String>,
}

impl Screen {
    /// A screen on which nothing was seen yet.
    pub(super) fn hinting(hint: Option<String>) -> Self {
        Self { hint, ..Self::default() }
    }

    /// Takes in a look.
    pub(super) fn see(&mut self, seen: Arc<Seen>) -> Flow {
        let shown = self.shown().map(|model| model.model_id.clone());
        self.models = remember(&self.models, &seen.overview.models);
        // Others may have come before it.
        let stays = |model: &ModelOverview| Some(&model.model_id) == shown.as_ref();
        self.model = self.models.iter().position(stays).unwrap_or(0);
        self.seen = Some(seen);
        self.move_by(0);
        Flow::Stay
    }

    /// The model that is shown.
    pub(super) fn shown(&self) -> Option<&ModelOverview> {
        self.models.get(self.model)
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
            KeyCode::Char('q') => return Flow::End,
            KeyCode::Char('?' | 'h') => self.help = !self.help,
            KeyCode::Esc if self.help => self.help = false,
            KeyCode::Esc => return Flow::End,
            KeyCode::Char('c' | 'd') if key.modifiers.contains(KeyModifiers::CONTROL) => return Flow::End,
            KeyCode::Up | KeyCode::Char('k') => self.move_by(-1),
            KeyCode::Down | KeyCode::Char('j') => self.move_by(1),
            KeyCode::PageUp => self.move_by(-PAGE),
            KeyCode::PageDown => self.move_by(PAGE),
            KeyCode::Home => self.move_by(isize::MIN),
            KeyCode::End => self.move_by(isize::MAX),
            KeyCode::Left => self.turn_model(false),
            KeyCode::Right => self.turn_model(true),
            KeyCode::Tab => self.focus = self.focus.next(),
            // Of three, the one before is two further.
            KeyCode::BackTab => self.focus = self.focus.next().next(),
            _ => {}
        }
        Flow::Stay
    }

    fn turn_model(&mut self, on: bool) {
        let models = self.models.len().max(1);
        self.model = if on { (self.model + 1) % models } else { (self.model + models - 1) % models };
        self.servers = TableState::default();
        self.alarms_past = 0;
        self.move_by(0);
    }

    fn move_by(&mut self, rows: isize) {
        match self.focus {
            Focus::Servers => {
                let last = self.shown().map_or(0, |model| model.servers.len()).checked_sub(1);
                let at = self.servers.selected().unwrap_or(0);
                self.servers.select(last.map(|last| at.saturating_add_signed(rows).min(last)));
            }
            Focus::Alarms => self.alarms_past = self.alarms_past.saturating_add_signed(rows),
            Focus::Timeline => self.events_past = self.events_past.saturating_add_signed(rows),
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
        Arc::new(Seen { overview: Arc::new(overview(4, servers)), timeline: Timeline::new(0), cut_off: false })
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
    fn tab_goes_from_part_to_part_and_arrows_move_in_it() {
        let mut screen = Screen::default();
        screen.see(seen(3));
        screen.event(&key(KeyCode::Tab));
        screen.event(&key(KeyCode::Down));
        assert_eq!((screen.focus, screen.alarms_past), (Focus::Alarms, 1));
        screen.event(&key(KeyCode::Tab));
        screen.event(&key(KeyCode::Down));
        screen.event(&key(KeyCode::Down));
        screen.event(&key(KeyCode::Up));
        assert_eq!((screen.focus, screen.servers.selected(), screen.events_past), (Focus::Timeline, Some(0), 1));
        screen.event(&key(KeyCode::Tab));
        assert_eq!(screen.focus, Focus::Servers);
        screen.event(&key(KeyCode::BackTab));
        assert_eq!(screen.focus, Focus::Timeline);
    }

    #[test]
    fn help_comes_and_goes() {
        let mut screen = Screen::default();
        for (open, close) in [('?', KeyCode::Char('?')), ('h', KeyCode::Esc), ('?', KeyCode::Char('h'))] {
            screen.event(&key(KeyCode::Char(open)));
            assert!(screen.help);
            assert_eq!((screen.event(&key(close)), screen.help), (Flow::Stay, false));
        }
        screen.event(&key(KeyCode::Char('?')));
        assert_eq!(screen.event(&key(KeyCode::Char('q'))), Flow::End);
    }

    #[test]
    fn the_model_that_is_shown_stays_when_others_come() {
        let mut screen = Screen::default();
        screen.see(seen(1));
        let mut two = overview(4, vec![]);
        let mut first = two.models[0].clone();
        (first.model_id, first.name) = ("1".to_string(), "a".to_string());
        two.models.insert(0, first);
        screen.see(Arc::new(Seen { overview: Arc::new(two), timeline: Timeline::new(0), cut_off: false }));
        assert_eq!((screen.models.len(), screen.shown().unwrap().name.as_str()), (2, "demo"));
    }
}
