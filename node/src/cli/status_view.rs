//! The swarm as a table.

use std::fmt::Write;

use comfy_table::{Cell, CellAlignment, Table, presets};
use console::style;
use swarm_protocol::announcement::ServerState;
use swarm_protocol::block::BlockRange;
use swarm_protocol::swarm_name::SwarmName;

use super::output::plain;
use super::status::{Answer, ModelStatus, ServerStatus};
use super::text_view::{millis, short};

/// Widest coverage bar in characters; deeper models show several blocks a character.
const BAR: u32 = 64;

/// The state of a server in one word.
pub(crate) fn state(server: &ServerStatus) -> &'static str {
    match (server.answer, server.announcement.state) {
        (Answer::Silent, _) => "silent",
        (Answer::NotAsked, ServerState::Serving) => "announced",
        (_, ServerState::Joining) => "joining",
        (_, ServerState::Serving) => "serving",
        (_, ServerState::Leaving) => "leaving",
    }
}

/// Everything known, for people.
pub(crate) fn text(swarm: &SwarmName, models: &[ModelStatus]) -> String {
    let mut text = String::new();
    if models.is_empty() {
        let _ = writeln!(text, "swarm \"{swarm}\": no model lives here yet");
        let _ = writeln!(text, "serve one: swarm-node serve --model MODEL --bootstrap ...");
    }
    for model in models {
        model_text(&mut text, swarm, model);
    }
    text
}

fn model_text(text: &mut String, swarm: &SwarmName, model: &ModelStatus) {
    let _ = writeln!(
        text,
        "{}  {} blocks, {} servers  swarm \"{swarm}\"  model id {}",
        style(plain(&model.name)).bold(),
        model.blocks.len(),
        model.servers.len(),
        model.id.short()
    );
    let _ = writeln!(text, "{}  {}", bar(model), coverage(&model.missing));
    if !model.servers.is_empty() {
        let _ = writeln!(text, "{}", table(&model.servers));
    }
    let _ = writeln!(text);
}

fn coverage(missing: &[BlockRange]) -> String {
    if missing.is_empty() {
        return style("every block is served").green().to_string();
    }
    let ranges: Vec<String> = missing.iter().map(ToString::to_string).collect();
    style(format!("nobody serves blocks {}", ranges.join(", "))).red().to_string()
}

/// One character for each block, or for a few: how many servers it has.
fn bar(model: &ModelStatus) -> String {
    let width = model.blocks.len().min(BAR);
    let replicas = |block: u32| {
        let hosts = |server: &&ServerStatus| {
            server.serves() && (server.announcement.blocks.start()..server.announcement.blocks.end()).contains(&block)
        };
        model.servers.iter().filter(hosts).count()
    };
    let cell = |column: u32| {
        let first = column * model.blocks.len() / width;
        let after = ((column + 1) * model.blocks.len() / width).max(first + 1);
        match (first..after).map(replicas).min().unwrap_or(0) {
            0 => style("░").red().to_string(),
            1 => style("▒").yellow().to_string(),
            _ => style("█").green().to_string(),
        }
    };
    (0..width).map(cell).collect()
}

fn table(servers: &[ServerStatus]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["SERVER", "NAME", "BLOCKS", "STATE", "RTT MS", "MS/BLOCK", "KV FREE", "SESSIONS"]);
    for server in servers {
        let said = &server.announcement;
        let rtt = server.rtt().map_or_else(|| "-".to_string(), |rtt| format!("{:.1}", millis(rtt)));
        let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
        table.add_row([
            Cell::new(short(&said.peer.to_string())),
            Cell::new(plain(said.name.as_deref().unwrap_or("-"))),
            Cell::new(said.blocks.to_string()),
            Cell::new(state(server)),
            right(rtt),
            right(format!("{:.2}", f64::from(said.rates.decode_us_per_block) / 1000.0)),
            right(format!("{}/{}", said.load.free_tokens, said.load.total_tokens)),
            right(said.load.sessions.to_string()),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use swarm_protocol::PeerId;
    use swarm_protocol::announcement::{Announcement, Load, Rates};
    use swarm_protocol::model_id::{ModelId, NumericClass};
    use swarm_protocol::session::TokenCount;

    use super::*;

    fn server(answer: Answer, state: ServerState, name: &str) -> ServerStatus {
        let announcement = Announcement {
            peer: PeerId::random(),
            instance: 0,
            sequence: 1,
            state,
            addresses: Vec::new(),
            model: ModelId([0; 32]),
            blocks: BlockRange::new(0, 4).unwrap(),
            class: NumericClass::new("x").unwrap(),
            rates: Rates { decode_us_per_block: 1, prefill_ns_per_token_block: 1 },
            load: Load { queue_us: 0, sessions: 0, free_tokens: TokenCount(0), total_tokens: TokenCount(0) },
            neighbours: Vec::new(),
            ttl_seconds: 1,
            name: Some(name.to_string()),
            version: String::new(),
        };
        ServerStatus { announcement, answer }
    }

    #[test]
    fn who_was_not_asked_is_believed() {
        let given = Answer::Given { rtt: Duration::from_millis(1), uptime_seconds: 1 };
        let cases = [
            (Answer::NotAsked, ServerState::Serving, "announced", true),
            (Answer::NotAsked, ServerState::Leaving, "leaving", false),
            (Answer::Silent, ServerState::Serving, "silent", false),
            (given, ServerState::Serving, "serving", true),
            (given, ServerState::Joining, "joining", false),
        ];
        for (answer, said, shown, serves) in cases {
            let server = server(answer, said, "a");
            assert_eq!((state(&server), server.serves()), (shown, serves), "{answer:?} {said:?}");
        }
    }

    #[test]
    fn no_name_steers_the_terminal() {
        let model = ModelStatus {
            id: ModelId([0; 32]),
            name: "demo\u{1b}[8m".to_string(),
            blocks: BlockRange::new(0, 4).unwrap(),
            missing: Vec::new(),
            servers: vec![server(Answer::NotAsked, ServerState::Serving, "at\u{1b}]0;x\u{7}tic\r")],
        };
        console::set_colors_enabled(false);
        let text = text(&SwarmName::default(), &[model]);
        assert!(text.contains("at\u{fffd}]0;x\u{fffd}tic"), "{text}");
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    }
}
