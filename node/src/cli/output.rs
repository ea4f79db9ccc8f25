//! What a person or a script sees: results on stdout, the rest on stderr.

use std::fmt;
use std::io::Write;

use serde_json::Value;
use swarm_telemetry::logs;
use tracing::Level;

pub(crate) use swarm_telemetry::logs::quiet as quiet_logs;

/// Prints results: one JSON object a line, or words.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Printer {
    json: bool,
}

impl Printer {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    /// Prints `event` for scripts, or `words` for people, on stdout.
    pub(crate) fn result(&self, event: &Value, words: impl fmt::Display) {
        if self.json { line(std::io::stdout(), event) } else { line(std::io::stdout(), words) }
    }

    /// Prints `event` for scripts on stdout; people see nothing of it.
    pub(crate) fn event(&self, event: &Value) {
        if self.json {
            line(std::io::stdout(), event);
        }
    }

    /// Prints `words` for people on stdout; scripts see nothing of them.
    pub(crate) fn words(&self, words: impl fmt::Display) {
        if !self.json {
            line(std::io::stdout(), words);
        }
    }

    /// Says something on stderr that is no result.
    pub(crate) fn note(&self, words: impl fmt::Display) {
        let words = words.to_string();
        let level = if words.starts_with("warning: ") { Level::WARN } else { Level::INFO };
        logs::say(level, words);
    }
}

/// Whoever reads may have gone; that ends nothing here.
fn line(mut to: impl Write, what: impl fmt::Display) {
    let _ = writeln!(to, "{what}");
    let _ = to.flush();
}

/// `text`, which another peer may have written, without anything that would steer a terminal: control characters, and
/// those that turn the direction of writing.
pub(crate) fn plain(text: &str) -> String {
    let steers = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|c| if steers(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// The command line cannot be obeyed, whatever the swarm is like.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) struct BadUsage(pub(crate) anyhow::Error);

/// What to try, attached to an error with [`anyhow::Error::context`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hint(pub(crate) String);

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Prints an error in one line, and what to try in another if there is a hint.
pub(crate) fn print_error(error: &anyhow::Error) {
    // Whoever read stdout has seen enough, as `head` does.
    let reader_left = |error: &std::io::Error| error.kind() == std::io::ErrorKind::BrokenPipe;
    if error.downcast_ref::<std::io::Error>().is_some_and(reader_left) {
        return;
    }
    let hint = error.downcast_ref::<Hint>();
    logs::say(Level::ERROR, format_args!("error: {}", cause_chain(error, hint)));
    if let Some(hint) = hint {
        logs::say(Level::ERROR, format_args!("hint: {hint}"));
    }
}

/// The causes joined by `: `, without those that the one before already quotes, and without the hint.
fn cause_chain(error: &anyhow::Error, hint: Option<&Hint>) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in error.chain().map(ToString::to_string) {
        let said = parts.last().is_some_and(|last| last.contains(&cause));
        if !said && hint.is_none_or(|hint| hint.0 != cause) {
            parts.push(cause);
        }
    }
    plain(&parts.join(": ").replace(['\n', '\r'], " "))
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn an_error_is_one_line_and_a_hint_another() {
        let error = Err::<(), _>(anyhow!("disk full"))
            .context("writing x failed: disk full")
            .context("saving")
            .context(Hint("free some space".to_string()))
            .unwrap_err();
        let hint = error.downcast_ref::<Hint>();
        assert_eq!(hint.map(ToString::to_string).as_deref(), Some("free some space"));
        assert_eq!(cause_chain(&error, hint), "saving: writing x failed: disk full");
    }

    #[test]
    fn what_peers_say_never_steers_the_terminal() {
        let error = anyhow!("the peer said \u{1b}[2J\u{9b}31m\u{202e}no\nand more");
        let shown = cause_chain(&error, None);
        assert_eq!(shown, "the peer said \u{fffd}[2J\u{fffd}31m\u{fffd}no and more");
        assert_eq!(plain("äöü 漢字 🦊"), "äöü 漢字 🦊");
    }
}
