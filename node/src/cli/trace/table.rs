//! A trace's summary for people, within 80 columns.

use std::fmt::Write;
use std::time::Duration;

use comfy_table::{Cell, CellAlignment, Table, presets};
use console::style;
use swarm_client::trace::{HopTimes, LinkBytes, Percentiles, Place, Slowest, Stage, TokenTimes, TraceSummary};

use crate::cli::output::plain;
use crate::cli::text_view::{millis, short};

/// Characters of the longest bar.
const BAR: usize = 12;

/// The hop with that number in the log, named by its place in the table.
pub(super) fn hop_name(summary: &TraceSummary, index: usize) -> String {
    let found = summary.hops.iter().enumerate().find(|(_, hop)| hop.hop == index);
    found.map_or_else(
        || "an unknown hop".to_string(),
        |(at, hop)| format!("hop {} ({} on {})", at + 1, hop.blocks, peer(&hop.peer)),
    )
}

/// A peer id from a file, cut to what tells it apart.
fn peer(id: &str) -> String {
    plain(&short(id))
}

/// What a token waited for, in words.
pub(super) fn cause(summary: &TraceSummary, cause: Slowest) -> String {
    match cause {
        Slowest::Reroute => "replacing a lost server".to_string(),
        Slowest::Stage(Place::Client, Stage::Return) => "the way back to the client".to_string(),
        Slowest::Stage(Place::Client, stage) => format!("{} on the client", stage.name()),
        Slowest::Stage(Place::Hop(index), Stage::Transfer) => format!("transfer to {}", hop_name(summary, index)),
        Slowest::Stage(Place::Hop(index), stage) => format!("{} on {}", stage.name(), hop_name(summary, index)),
    }
}

/// Everything, with the `listed` slowest tokens.
pub(super) fn text(summary: &TraceSummary, listed: usize) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{} in {}: the first after {}, then {:.1} tokens/s",
        style(format!("{} tokens", summary.tokens.len())).bold(),
        with_unit(summary.took),
        with_unit(summary.first()),
        summary.tokens_per_second
    );
    let _ = writeln!(text, "\n{}", heading("Each hop, ms a token: median (95th percentile)"));
    let _ = writeln!(text, "{}", hops(summary));
    let _ = writeln!(
        text,
        " client: embedding {}, way back {}, sampling {}",
        both(summary.embedding),
        both(summary.returned),
        both(summary.sampling)
    );
    link_bytes(&mut text, &summary.hops);
    prefill(&mut text, &summary.hops);
    let _ = writeln!(text, "\n{}", heading("The slowest stage, by how many tokens it was that of"));
    let _ = writeln!(text, "{}", slowest(summary));
    if listed > 0 {
        let _ = writeln!(text, "\n{}", heading("The slowest tokens"));
        let _ = writeln!(text, "{}", slow_tokens(summary, listed));
    }
    reroutes(&mut text, summary);
    text
}

fn heading(words: &str) -> String {
    style(words).bold().to_string()
}

/// Milliseconds with as many digits as say something.
pub(super) fn shown(time: Duration) -> String {
    match millis(time) {
        ms if ms >= 100.0 => format!("{ms:.0}"),
        ms if ms >= 10.0 => format!("{ms:.1}"),
        ms => format!("{ms:.2}"),
    }
}

/// The same, in seconds if it is long.
pub(super) fn with_unit(time: Duration) -> String {
    if time < Duration::from_secs(1) { format!("{} ms", shown(time)) } else { format!("{:.2} s", time.as_secs_f64()) }
}

fn both(times: Percentiles) -> String {
    format!("{} ({})", shown(times.p50), shown(times.p95))
}

fn table<const COLUMNS: usize>(header: [&str; COLUMNS]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(header);
    table
}

fn right(text: impl ToString) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

fn hops(summary: &TraceSummary) -> Table {
    let mut table = table(["HOP", "BLOCKS", "SERVER", "TRANSFER", "QUEUE", "COMPUTE", "WAIT"]);
    for (at, hop) in summary.hops.iter().enumerate() {
        table.add_row([
            right(at + 1),
            Cell::new(hop.blocks),
            Cell::new(peer(&hop.peer)),
            right(both(hop.transfer)),
            right(both(hop.queue)),
            right(both(hop.compute)),
            right(both(hop.wait)),
        ]);
    }
    table
}

/// What a token's rows take on the links; nothing if the trace does not tell.
fn link_bytes(text: &mut String, hops: &[HopTimes]) {
    for (at, hop) in hops.iter().enumerate().filter(|(_, hop)| hop.bytes != LinkBytes::default()) {
        let LinkBytes { incoming, outgoing } = hop.bytes;
        let _ = writeln!(text, " bytes a token: {incoming} to hop {}, {outgoing} from there", at + 1);
    }
}

fn prefill(text: &mut String, hops: &[HopTimes]) {
    for (at, hop) in hops.iter().enumerate().filter(|(_, hop)| hop.prefilled_rows > 0) {
        let (rows, time) = (hop.prefilled_rows, shown(hop.prefill));
        let _ = writeln!(text, " prefill and replay: hop {} computed {rows} rows in {time} ms", at + 1);
    }
}

fn slowest(summary: &TraceSummary) -> Table {
    let mut table = table(["TOKENS", "SHARE", "STAGE", "MEDIAN MS"]);
    let most = summary.slowest.iter().map(|(_, tokens, _)| *tokens).max().unwrap_or(1).max(1);
    let all = summary.tokens.len().max(1);
    for (why, tokens, usual) in &summary.slowest {
        let bar = "█".repeat((tokens * BAR).div_ceil(most).min(BAR));
        let share = format!("{:>3} % {}", (tokens * 100 + all / 2) / all, style(bar).cyan());
        table.add_row([right(tokens), Cell::new(share), Cell::new(cause(summary, *why)), right(shown(*usual))]);
    }
    table
}

/// The slowest tokens, in their order in the text.
fn slow_tokens(summary: &TraceSummary, listed: usize) -> Table {
    let mut slow: Vec<&TokenTimes> = summary.tokens.iter().collect();
    slow.sort_by_key(|token| std::cmp::Reverse(token.took));
    slow.truncate(listed);
    slow.sort_by_key(|token| token.token.number);
    let mut table = table(["TOKEN", "MS", "OF THESE", "SLOWEST STAGE"]);
    for token in slow {
        let (most, why) = token
            .slowest
            .map_or_else(|| ("-".to_string(), "-".to_string()), |(why, time)| (shown(time), cause(summary, why)));
        table.add_row([right(token.token.number), right(shown(token.took)), right(most), Cell::new(why)]);
    }
    table
}

fn reroutes(text: &mut String, summary: &TraceSummary) {
    if summary.reroutes.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{}", heading("Servers lost and replaced"));
    for reroute in &summary.reroutes {
        let token = summary.tokens.iter().find(|token| reroute.at <= token.token.end);
        let when = token
            .map_or_else(|| "after the last token".to_string(), |token| format!("at token {}", token.token.number));
        let _ = writeln!(
            text,
            " {when}: {} ({}), replaced in {} ms",
            peer(&reroute.lost),
            plain(&reroute.reason),
            shown(reroute.took)
        );
    }
}

#[cfg(test)]
mod tests;
