//! The swarm as a table.

use std::fmt::Write;

use comfy_table::{Cell, CellAlignment, Table, presets};
use console::style;
use swarm_client::overview::{Alarm, AlarmKind, ModelOverview, ServerOverview, Severity, SwarmOverview};
use swarm_protocol::block::BlockRange;

use super::output::plain;
use super::text_view::short;

/// Widest coverage bar in characters; deeper models show several blocks a character.
const BAR: usize = 64;

/// Digits of a model's id that people are shown.
const ID_DIGITS: usize = 12;

/// Everything known, for people.
pub(crate) fn text(overview: &SwarmOverview) -> String {
    let mut text = String::new();
    if overview.models.is_empty() {
        let _ = writeln!(text, "swarm \"{}\": no model lives here yet", overview.swarm);
        let _ = writeln!(text, "serve one: swarm-node serve --model MODEL --bootstrap ...");
    }
    for model in &overview.models {
        model_text(&mut text, overview, model);
    }
    text
}

fn model_text(text: &mut String, overview: &SwarmOverview, model: &ModelOverview) {
    let id: String = model.model_id.chars().take(ID_DIGITS).collect();
    let _ = writeln!(
        text,
        "{}  {}  swarm \"{}\"  model id {id}",
        style(plain(&model.name)).bold(),
        size(model),
        overview.swarm,
    );
    let _ = writeln!(text, "{}  {}", bar(model), coverage(&model.missing));
    if !model.servers.is_empty() {
        let _ = writeln!(text, "{}", table(&model.servers));
    }
    if let Some(line) = numbers(model) {
        let _ = writeln!(text, "{line}");
    }
    // That blocks are missing stands above.
    let of_model = |alarm: &&Alarm| alarm.model_id == model.model_id && alarm.kind != AlarmKind::MissingBlocks;
    for alarm in overview.alarms.iter().filter(of_model) {
        let line = format!("{}: {}", mark(alarm.severity), plain(&alarm.message));
        let _ = match alarm.severity {
            Severity::Critical => writeln!(text, "{}", style(line).red()),
            Severity::Warning => writeln!(text, "{}", style(line).yellow()),
            Severity::Info => writeln!(text, "{}", style(line).dim()),
        };
    }
    let _ = writeln!(text);
}

/// `12 blocks, 1 server`.
pub(crate) fn size(model: &ModelOverview) -> String {
    let counted = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    format!("{}, {}", counted(model.blocks as usize, "block"), counted(model.servers.len(), "server"))
}

/// How bad an alarm is, in a word.
pub(crate) fn mark(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "alarm",
        Severity::Warning => "warning",
        Severity::Info => "note",
    }
}

/// What limits the model, and what a token takes on a link.
fn numbers(model: &ModelOverview) -> Option<String> {
    let bottleneck = model.bottleneck.as_ref().filter(|bottleneck| bottleneck.replicas > 0).map(|bottleneck| {
        let (blocks, rate) = (bottleneck.blocks, bottleneck.tokens_per_second);
        format!("bottleneck: blocks {blocks}, {rate} steps/s, replicas {}", bottleneck.replicas)
    });
    let wire = model.wire.as_ref().map(|wire| {
        format!(
            "a token takes {} bytes a link ({}), {} with --wire int8",
            wire.exact_bytes, wire.element, wire.int8_bytes
        )
    });
    let parts: Vec<String> = [bottleneck, wire].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

fn coverage(missing: &[BlockRange]) -> String {
    if missing.is_empty() {
        return style("every block is served").green().to_string();
    }
    let ranges: Vec<String> = missing.iter().map(ToString::to_string).collect();
    style(format!("nobody serves blocks {}", ranges.join(", "))).red().to_string()
}

/// One character for each block, or for a few: how many servers it has.
fn bar(model: &ModelOverview) -> String {
    let cell = |replicas: u32| match replicas {
        0 => style("░").red().to_string(),
        1 => style("▒").yellow().to_string(),
        _ => style("█").green().to_string(),
    };
    columns(&model.replicas, BAR).into_iter().map(cell).collect()
}

/// The fewest replicas in each of at most `most` columns.
pub(crate) fn columns(replicas: &[u32], most: usize) -> Vec<u32> {
    let width = replicas.len().min(most);
    let column = |column: usize| {
        let first = column * replicas.len() / width;
        let after = ((column + 1) * replicas.len() / width).max(first + 1);
        replicas[first..after].iter().copied().min().unwrap_or(0)
    };
    (0..width).map(column).collect()
}

fn table(servers: &[ServerOverview]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["SERVER", "NAME", "BLOCKS", "STATE", "RTT MS", "MS/BLOCK", "KV FREE", "SESSIONS"]);
    for server in servers {
        let rtt = server.rtt_ms.map_or_else(|| "-".to_string(), |rtt| format!("{rtt:.1}"));
        let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
        table.add_row([
            Cell::new(short(&server.peer_id.to_string())),
            Cell::new(plain(server.name.as_deref().unwrap_or("-"))),
            Cell::new(server.blocks.to_string()),
            Cell::new(server.state.name()),
            right(rtt),
            right(format!("{:.2}", f64::from(server.decode_us_per_block) / 1000.0)),
            right(format!("{}/{}", server.free_tokens, server.total_tokens)),
            right(server.sessions.to_string()),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::super::status_testing::{overview, server};
    use super::*;

    #[test]
    fn no_name_steers_the_terminal() {
        let mut overview = overview(4, vec![server("at\u{1b}]0;x\u{7}tic\r", 0, 4)]);
        overview.models[0].name = "demo\u{1b}[8m".to_string();
        console::set_colors_enabled(false);
        let text = text(&overview);
        assert!(text.contains("at\u{fffd}]0;x\u{fffd}tic"), "{text}");
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    }

    #[test]
    fn one_server_is_not_called_servers() {
        let size = |blocks, servers| size(&overview(blocks, servers).models[0]);
        assert_eq!(size(12, vec![server("attic", 0, 12)]), "12 blocks, 1 server");
        assert_eq!(size(1, vec![]), "1 block, 0 servers");
    }

    #[test]
    fn a_deep_model_shows_its_worst_served_blocks() {
        assert_eq!(columns(&[2, 2, 0, 2], 2), [2, 0]);
        assert_eq!(columns(&[1, 2, 3], 64), [1, 2, 3]);
        assert_eq!(columns(&[], 64), [0u32; 0]);
    }
}
