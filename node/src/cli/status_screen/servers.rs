//! The servers' table.

use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::Span;
use ratatui::widgets::{Row, Table, TableState};
use swarm_client::overview::ModelOverview;

use super::columns::{self, GAP};
use super::draw::{SIDES, panel};
use super::parts;
use super::screen::{Focus, Screen};
use super::wrap::{cut, width};

/// Rows that the title and the header take.
const ABOVE: u16 = 2;

/// Draws the servers of `model`, as many as fit, the marked one among them.
pub(super) fn draw(frame: &mut Frame, screen: &mut Screen, model: &ModelOverview, area: Rect) {
    if area.is_empty() {
        return;
    }
    let (shown, all) = (area.height.saturating_sub(ABOVE) as usize, model.servers.len());
    let first = first(&screen.servers, shown, all);
    *screen.servers.offset_mut() = first;
    let block = panel("Servers", screen.focus == Focus::Servers, (first, all.saturating_sub(first + shown)));
    let table = table(model, area.width.saturating_sub(SIDES) as usize).block(block);
    frame.render_stateful_widget(table, area, &mut screen.servers);
}

/// The first row that is seen, so that the marked one is, and no row stays empty.
fn first(servers: &TableState, shown: usize, all: usize) -> usize {
    let marked = servers.selected().unwrap_or(0);
    servers.offset().min(marked).max((marked + 1).saturating_sub(shown)).min(all.saturating_sub(shown))
}

fn table(model: &ModelOverview, room: usize) -> Table<'static> {
    let labels = model.labels();
    let cells = model.servers.iter().zip(&labels).map(|(server, label)| parts::server_cells(server, label));
    let cells: Vec<_> = cells.collect();
    let widest = |column: usize| {
        let below = cells.iter().map(|row| row[column].width());
        below.chain([width(parts::SERVER_COLUMNS[column])]).max().unwrap_or(0)
    };
    let wanted: Vec<usize> = (0..parts::SERVER_COLUMNS.len()).map(widest).collect();
    let widths = columns::fit(&wanted, &parts::LEAVE, room);
    let columns: Vec<usize> = (0..widths.len()).filter(|column| widths[*column] > 0).collect();
    let row = |row: &[Span<'static>; 9]| {
        let cell = |column: &usize| Span::styled(cut(&row[*column].content, widths[*column]), row[*column].style);
        Row::new(columns.iter().map(cell).collect::<Vec<_>>())
    };
    let header: Vec<String> =
        columns.iter().map(|column| cut(parts::SERVER_COLUMNS[*column], widths[*column])).collect();
    Table::new(cells.iter().map(row), columns.iter().map(|column| Constraint::Length(widths[*column] as u16)))
        .header(Row::new(header).style(Style::new().dim()))
        .column_spacing(GAP as u16)
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
}
