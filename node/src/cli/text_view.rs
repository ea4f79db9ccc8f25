//! What a person, or a program, sees of a text being generated.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use console::style;
use serde_json::{Value, json};
use swarm_client::finder::EdgesPlan;
use swarm_client::route::Route;
use swarm_client::{GenerationEvent, HopInfo, Summary};
use swarm_model::LogProbabilities;
use swarm_telemetry::logs::{self, LogFormat};
use tracing::Level;

use super::output::plain;

/// Writes generation events: text to stdout and remarks to stderr, or JSON lines to stdout.
pub(crate) struct TextView {
    json: bool,
    show_route: bool,
    /// Remarks are for people: on a terminal only, unless they were asked for.
    remarks: bool,
    /// The text goes on behind the cursor.
    mid_line: bool,
}

impl TextView {
    /// A view for `--json` and `--show-route` as given.
    pub(crate) fn new(json: bool, show_route: bool) -> Self {
        Self { json, show_route, remarks: !json && io::stderr().is_terminal(), mid_line: false }
    }

    /// Says why a route is taken.
    pub(crate) fn explain(&mut self, route: &Route, edges: Option<&EdgesPlan>) {
        self.remark("why this route:");
        for line in route.explain() {
            self.remark(&format!("  {line}"));
        }
        if let Some(EdgesPlan { peer, cost, .. }) = edges {
            let with = millis(route.cost().total() + *cost);
            let cost = millis(*cost);
            self.remark(&format!(
                "  embedding and head on {peer}: {cost:.1} ms a token; with them {with:.1} ms a token"
            ));
        }
    }

    /// Shows one event.
    ///
    /// # Errors
    /// If stdout is gone.
    pub(crate) fn show(&mut self, event: &GenerationEvent) -> io::Result<()> {
        if self.json {
            let Some(event) = event_json(event) else {
                return Ok(());
            };
            let mut out = io::stdout().lock();
            writeln!(out, "{event}")?;
            return out.flush();
        }
        match event {
            GenerationEvent::Token { text, .. } => self.text(text)?,
            GenerationEvent::Route { hops, .. } if self.show_route => {
                self.remark(&format!("route: {}", route_line(hops)));
                self.remark(&format!("  {}", bytes_line(hops)));
            }
            GenerationEvent::Route { .. } => {}
            GenerationEvent::Reroute { lost, reason, took, .. } if self.remarks || self.show_route => {
                self.remark(&format!("re-routed in {:.0} ms: lost {lost} ({reason})", millis(*took)));
            }
            GenerationEvent::Reroute { .. } | GenerationEvent::Trace(_) => {}
            GenerationEvent::Done(summary) => self.done(summary)?,
        }
        Ok(())
    }

    fn text(&mut self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        match out.is_terminal() {
            true => out.write_all(for_terminal(text).as_bytes())?,
            false => out.write_all(text.as_bytes())?,
        }
        self.mid_line = !text.ends_with('\n') && (self.mid_line || !text.is_empty());
        logs::behind_text(self.mid_line && out.is_terminal());
        out.flush()
    }

    /// Ends the line that the text has begun, so that what follows stands on its own.
    pub(crate) fn end_line(&mut self) {
        // What was said meanwhile has ended it.
        let ended = io::stdout().is_terminal() && !logs::leave_text();
        if self.mid_line && !self.json && !ended {
            // Where stdout is gone nobody sees the line either.
            let _ = self.text("\n");
        }
    }

    fn done(&mut self, summary: &Summary) -> io::Result<()> {
        self.text(&summary.tail)?;
        self.text("\n")?;
        if self.remarks {
            self.remark(&format!(
                "{} tokens, {:.1} tokens/s, first after {:.0} ms, {}",
                summary.tokens.len(),
                summary.tokens_per_second,
                millis(summary.time_to_first_token),
                bytes_line(&summary.route)
            ));
        }
        Ok(())
    }

    fn remark(&mut self, line: &str) {
        if logs::format() == LogFormat::Json {
            return logs::say(Level::INFO, plain(line));
        }
        let mut err = io::stderr().lock();
        if logs::leave_text() {
            let _ = writeln!(err);
            self.mid_line = false;
        }
        // Where stderr is gone nobody reads remarks.
        let _ = writeln!(err, "{}", style(plain(line)).dim().for_stderr());
    }
}

/// A generated text as a terminal is shown it: what the model says moves no cursor but by its line breaks and tabs.
fn for_terminal(text: &str) -> String {
    let part = |part: &str| {
        let (text, layout) = match part.char_indices().last() {
            Some((at, '\n' | '\t')) => part.split_at(at),
            _ => (part, ""),
        };
        plain(text) + layout
    };
    text.split_inclusive(['\n', '\t']).map(part).collect()
}

/// `peer blocks a..b -> ...` with peer ids cut to what tells them apart.
pub(crate) fn route_line(hops: &[HopInfo]) -> String {
    let hops: Vec<String> =
        hops.iter().map(|hop| format!("{} on {}", hop.blocks, short(&hop.peer.to_string()))).collect();
    hops.join(" -> ")
}

/// Bytes of a token's row on each of a route's links, from the client on and back to it.
fn bytes_a_token(hops: &[HopInfo]) -> Vec<u32> {
    let back = hops.last().map(|hop| hop.bytes_out);
    hops.iter().map(|hop| hop.bytes_in).chain(back).collect()
}

/// The same for people.
fn bytes_line(hops: &[HopInfo]) -> String {
    let bytes = bytes_a_token(hops);
    let all: u64 = bytes.iter().copied().map(u64::from).sum();
    let each: Vec<String> = bytes.iter().map(ToString::to_string).collect();
    format!("{all} bytes a token over {} links ({})", bytes.len(), each.join(", "))
}

/// The last characters of a peer id: the first ones are the same for all ed25519 ids.
pub(crate) fn short(peer: &str) -> String {
    const SHOWN: usize = 8;
    peer.chars().skip(peer.chars().count().saturating_sub(SHOWN)).collect()
}

/// A duration in milliseconds, to the microsecond.
pub(crate) fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1000.0
}

fn hops_json(hops: &[HopInfo]) -> Value {
    hops.iter()
        .map(|hop| {
            json!({
                "peer_id": hop.peer.to_string(),
                "blocks": [hop.blocks.start(), hop.blocks.end()],
                "bytes_in": hop.bytes_in,
                "bytes_out": hop.bytes_out,
            })
        })
        .collect()
}

/// What a script is told of an event, if anything.
fn event_json(event: &GenerationEvent) -> Option<Value> {
    Some(match event {
        GenerationEvent::Trace(_) => return None,
        GenerationEvent::Route { hops, at } => json!({"event": "route", "hops": hops_json(hops), "ms": millis(*at)}),
        GenerationEvent::Reroute { lost, reason, took, at } => json!({
            "event": "reroute", "reason": reason, "lost_peer": lost.to_string(), "ms": millis(*at), "took_ms": millis(*took),
        }),
        GenerationEvent::Token { id, text, probabilities, at } => {
            let mut event = json!({"event": "token", "id": id, "text": text, "ms": millis(*at)});
            if let Some(LogProbabilities { chosen, top }) = probabilities {
                event["logprob"] = json!(chosen);
                event["top_logprobs"] = top.iter().map(|(id, logprob)| json!({"id": id, "logprob": logprob})).collect();
            }
            event
        }
        GenerationEvent::Done(summary) => json!({
            "event": "done",
            "text": summary.text,
            "tokens": summary.tokens,
            "finish": summary.finish.name(),
            "stop": summary.finish.stop(),
            "prompt_tokens": summary.prompt_tokens,
            "reused_tokens": summary.reused_tokens,
            "time_to_first_token_ms": millis(summary.time_to_first_token),
            "tokens_per_second": summary.tokens_per_second,
            "route": hops_json(&summary.route),
            "bytes_per_token": bytes_a_token(&summary.route).into_iter().map(u64::from).sum::<u64>(),
            "reroutes": summary.reroutes,
            "edges_peer": summary.edges.map(|peer| peer.to_string()),
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_breaks_lines_and_nothing_else() {
        assert_eq!(for_terminal("one\n\ttwo\u{1b}[2J\r\n"), "one\n\ttwo\u{fffd}[2J\u{fffd}\n");
        assert_eq!(for_terminal("\n\nöl"), "\n\nöl");
        assert_eq!(for_terminal(""), "");
    }
}
