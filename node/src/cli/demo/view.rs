//! What the demo shows: colour and pace on a terminal, plain text in a pipe.

use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use comfy_table::{Table, presets};
use console::{StyledObject, style};
use swarm_client::HopInfo;
use swarm_protocol::PeerId;
use swarm_protocol::block::BlockRange;
use swarm_protocol::p2p::BootstrapPeer;

use super::super::text_view::{millis, short};
use super::Telling;
use super::stage::{Server, Stage};

/// Lines of the story are broken at this width, which is pleasant to read.
const WIDTH: usize = 78;

/// The blocks of the bundled model.
const BLOCKS: u32 = 12;

/// Writes the demo to stdout. A reader that has gone away is noticed by what is written last.
pub(crate) struct View {
    terminal: bool,
    names: HashMap<PeerId, String>,
    column: usize,
    word: String,
}

impl View {
    /// A view of stdout.
    pub(crate) fn new() -> Self {
        Self { terminal: io::stdout().is_terminal(), names: HashMap::new(), column: 0, word: String::new() }
    }

    /// Whether a person watches.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// What this is.
    pub(crate) fn title(&mut self) {
        self.line(&style("swarm-node demo").bold().to_string());
        self.line("A model of 12 blocks, served by processes none of which holds all of it.");
        self.heading("The swarm forms");
    }

    /// A new part.
    pub(crate) fn heading(&mut self, text: &str) {
        self.line("");
        self.line(&style(text).bold().underlined().to_string());
    }

    /// The bootstrap peer is up.
    pub(crate) fn bootstrap(&mut self, entry_point: &BootstrapPeer, process: Option<u32>) {
        let peer = short(&entry_point.peer.to_string());
        self.line(&format!("  {:10} {:>12}  peer ..{peer}  process {}", "bootstrap", "", number(process)));
    }

    /// A server is ready.
    pub(crate) fn server(&mut self, server: &Server) {
        self.names.insert(server.peer, server.name.to_string());
        let peer = short(&server.peer.to_string());
        self.line(&format!(
            "  {:10} {}  peer ..{peer}  process {}  blocks {}",
            server.name,
            bar(server.blocks),
            number(server.process_id()),
            server.blocks
        ));
    }

    /// The route that is taken now.
    pub(crate) fn route(&mut self, hops: &[HopInfo], again: bool) {
        let what = if again { "new route" } else { "route" };
        self.remark(style(format!("{what}: {}", self.route_line(hops))).cyan());
    }

    fn route_line(&self, hops: &[HopInfo]) -> String {
        let hop = |hop: &HopInfo| format!("{} (blocks {})", self.name(hop.peer), hop.blocks);
        hops.iter().map(hop).collect::<Vec<_>>().join(" -> ")
    }

    fn name(&self, peer: PeerId) -> String {
        self.names.get(&peer).cloned().unwrap_or_else(|| short(&peer.to_string()))
    }

    /// A server was killed.
    pub(crate) fn killed(&mut self, server: &Server, process: Option<u32>) {
        let text = format!("kill -9 {}: {} is gone, with its part of the KV cache", number(process), server.name);
        self.remark(style(text).red().bold());
    }

    /// Another server stands in.
    pub(crate) fn rerouted(&mut self, reason: &str, took: Duration) {
        self.remark(style(format!("noticed ({reason}); a replica took over in {:.0} ms", millis(took))).yellow());
    }

    /// Some more of the story, broken into lines between words.
    pub(crate) fn story(&mut self, text: &str) {
        for character in text.chars() {
            if character.is_whitespace() {
                self.end_word();
                if character == '\n' {
                    self.write("\n");
                    self.column = 0;
                }
            }
            if !character.is_whitespace() {
                self.word.push(character);
            }
        }
        let _ = io::stdout().flush();
    }

    fn end_word(&mut self) {
        if self.word.is_empty() {
            return;
        }
        let word = std::mem::take(&mut self.word);
        let length = word.chars().count();
        if self.column > 0 && self.column + 1 + length > WIDTH {
            self.write("\n");
            self.column = 0;
        }
        let gap = if self.column > 0 { " " } else { "  " };
        self.column += gap.len() + length;
        self.write(&format!("{gap}{word}"));
    }

    /// The story is over.
    pub(crate) fn end_of_story(&mut self, live: bool) {
        self.end_word();
        if live {
            self.line("");
        } else {
            self.line("  (told again, not shown)");
        }
        self.column = 0;
    }

    /// A line that interrupts the story.
    fn remark(&mut self, text: StyledObject<String>) {
        if self.column > 0 {
            self.write("\n");
            self.column = 0;
        }
        self.line(&format!("  {} {text}", style("|").dim()));
    }

    /// The two texts are not the same.
    pub(crate) fn different(&mut self, disturbed: &str, undisturbed: &str) {
        self.heading("The texts differ");
        self.line(&format!("with a failure:\n{disturbed}\n\nwithout:\n{undisturbed}"));
    }

    /// The end: what was shown, in numbers.
    pub(crate) fn results(&mut self, stage: &Stage, disturbed: &Telling, undisturbed: &Telling) {
        let verdict = format!("The two texts are identical: {} tokens, bit for bit.", undisturbed.summary.tokens.len());
        self.line(&format!("  {}", style(verdict).green().bold()));
        self.line("");
        let dead = stage.servers().iter().filter(|server| server.dead).map(|server| server.name);
        let dead = dead.collect::<Vec<_>>().join(", ");
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        table.set_header(["", &format!("{dead} killed"), "undisturbed"]);
        let rate = |telling: &Telling| format!("{:.0}", telling.summary.tokens_per_second);
        let first = |telling: &Telling| format!("{:.0} ms", millis(telling.summary.time_to_first_token));
        let lost = disturbed.lost.map_or_else(|| "-".to_string(), |lost| format!("{:.0} ms", millis(lost)));
        let paced = if self.terminal { " (shown at reading pace)" } else { "" };
        table.add_row(["route at the end".to_string(), self.short_route(disturbed), self.short_route(undisturbed)]);
        table.add_row(["tokens/s".to_string(), format!("{}{paced}", rate(disturbed)), rate(undisturbed)]);
        table.add_row(["time to first token".to_string(), first(disturbed), first(undisturbed)]);
        table.add_row(["time lost to the failure".to_string(), lost, "-".to_string()]);
        for line in table.to_string().lines() {
            self.line(&format!("  {}", line.trim_end()));
        }
        self.line("");
        self.line("Your own: `swarm-node serve --model demo` prints how others join, and how to use it.");
    }

    fn short_route(&self, telling: &Telling) -> String {
        telling.route.iter().map(|hop| self.name(hop.peer)).collect::<Vec<_>>().join(" -> ")
    }

    fn line(&mut self, text: &str) {
        self.write(text);
        self.write("\n");
        let _ = io::stdout().flush();
    }

    fn write(&mut self, text: &str) {
        // A closed pipe ends the program by the signal or at its last line; the demo's point is its exit code.
        let _ = io::stdout().write_all(text.as_bytes());
    }
}

fn number(process: Option<u32>) -> String {
    process.map_or_else(|| "-".to_string(), |id| id.to_string())
}

/// The model's blocks in a row, those of `range` filled.
fn bar(range: BlockRange) -> String {
    let cell = |block: u32| if (range.start()..range.end()).contains(&block) { "█" } else { "·" };
    (0..BLOCKS).map(cell).collect()
}
