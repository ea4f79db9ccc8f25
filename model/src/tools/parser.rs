//! Calls in an answer, while it comes. Pure.

use serde_json::Value;

use super::json::{JsonEnd, Said, said};
use super::{ToolCall, ToolDefinition, ToolFamily, ToolFormat};
use crate::stop::begun;

/// The longest call that is waited for, in bytes; what is longer is text.
const MAX_CALL_BYTES: usize = 1 << 20;

/// The longest name of a tool that is waited for, with the words behind it: OpenAI's API takes 64 letters.
const MAX_HEAD_BYTES: usize = 256;

/// Letters of a call's id: Mistral's templates want as many.
const ID_LETTERS: usize = 9;

/// What a parser finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolEvent {
    /// Text to be shown.
    Text(String),
    /// A whole call.
    Call(ToolCall),
}

/// Takes the calls out of an answer. Text before and between them goes through as it comes; a call is held back until it is
/// complete. What looks like a call and is none, or is cut off, stays text.
#[derive(Debug, Clone)]
pub struct ToolParser {
    family: ToolFamily,
    names: Vec<String>,
    salt: String,
    calls: u64,
    state: State,
    /// What has not been told apart yet; all of it is text if it turns out to be no call.
    held: String,
}

#[derive(Debug, Clone)]
enum State {
    /// Nothing but space so far: JSON here may be a call.
    Start,
    /// In text.
    Text,
    /// Behind the opening word, which is as many bytes of what is held.
    Head(usize),
    /// In the JSON of a call.
    Json(Json),
    /// Behind a call.
    After { closed: bool },
}

/// JSON within what is held.
#[derive(Debug, Clone)]
struct Json {
    /// Its first byte.
    from: usize,
    /// Up to where its end has been looked for.
    seen: usize,
    end: JsonEnd,
    /// The tool, if it stood before.
    name: Option<String>,
}

impl ToolParser {
    /// A parser at the start of an answer. `salt` tells this answer from all others of its conversation: the ids of calls are made
    /// of it.
    pub fn new(format: &ToolFormat, tools: &[ToolDefinition], salt: impl Into<String>) -> Self {
        let names = tools.iter().map(|tool| tool.name.clone()).collect();
        let family = format.family();
        let state = if family.is_bare() { State::Start } else { State::Text };
        Self { family, names, salt: salt.into(), calls: 0, state, held: String::new() }
    }

    /// The next piece of the answer: what is known now.
    pub fn push(&mut self, piece: &str) -> Vec<ToolEvent> {
        self.held.push_str(piece);
        let mut events = Vec::new();
        // Each turn either moves on in what is held, or waits for more.
        while self.turn(&mut events) {}
        joined(events)
    }

    /// The end of the answer: what was held back.
    pub fn finish(&mut self) -> Vec<ToolEvent> {
        let held = std::mem::take(&mut self.held);
        let space = matches!(self.state, State::After { .. }) && held.trim().is_empty();
        self.state = State::Text;
        if held.is_empty() || space { Vec::new() } else { vec![ToolEvent::Text(held)] }
    }

    /// How many calls were found.
    pub fn calls(&self) -> usize {
        self.calls as usize
    }

    /// Whether there is more to be done.
    fn turn(&mut self, events: &mut Vec<ToolEvent>) -> bool {
        match std::mem::replace(&mut self.state, State::Text) {
            State::Start => self.start(),
            State::Text => self.text(events),
            State::Head(open) => self.head(open, events),
            State::Json(json) => self.json(json, events),
            State::After { closed } => self.after(closed),
        }
    }

    fn start(&mut self) -> bool {
        let from = self.held.len() - self.held.trim_start().len();
        match self.held[from..].bytes().next() {
            None => {
                self.state = State::Start;
                false
            }
            Some(b'{' | b'[') => self.json_from(from, None),
            Some(_) => true,
        }
    }

    fn text(&mut self, events: &mut Vec<ToolEvent>) -> bool {
        let open = self.family.open();
        if let Some((open, at)) = open.and_then(|open| Some((open, self.held.find(open)?))) {
            let rest = self.held.split_off(at);
            events.push(ToolEvent::Text(std::mem::replace(&mut self.held, rest)));
            self.state = State::Head(open.len());
            return true;
        }
        let waits = open.map_or(0, |open| begun(&self.held, open));
        let rest = self.held.split_off(self.held.len() - waits);
        events.push(ToolEvent::Text(std::mem::replace(&mut self.held, rest)));
        false
    }

    fn head(&mut self, open: usize, events: &mut Vec<ToolEvent>) -> bool {
        let head = &self.held[open..];
        let space = head.len() - head.trim_start().len();
        let list = self.family == ToolFamily::Mistral && head[space..].starts_with('[');
        let named = self.family == ToolFamily::Mistral;
        match head.find('{').filter(|_| !list) {
            _ if list => self.json_from(open + space, None),
            Some(at) if head[..at].trim().is_empty() => self.json_from(open + at, None),
            Some(at) if named && is_head(&head[..at]) => {
                let name = head[..at].split('[').next().unwrap_or_default().trim().to_string();
                self.json_from(open + at, Some(name))
            }
            None if head.trim().is_empty() || (named && is_head(head)) => {
                self.state = State::Head(open);
                false
            }
            // Something else than a call stands behind the word.
            _ => self.was_text(open, events),
        }
    }

    fn json_from(&mut self, from: usize, name: Option<String>) -> bool {
        self.state = State::Json(Json { from, seen: from, end: JsonEnd::default(), name });
        true
    }

    fn json(&mut self, mut json: Json, events: &mut Vec<ToolEvent>) -> bool {
        let Some(bytes) = json.end.push(&self.held[json.seen..]) else {
            if self.held.len() > MAX_CALL_BYTES {
                return self.was_text(self.held.len(), events);
            }
            json.seen = self.held.len();
            self.state = State::Json(json);
            return false;
        };
        let until = json.seen + bytes;
        let value = serde_json::from_str::<Value>(&self.held[json.from..until]).ok();
        let bare = self.held[..json.from].trim().is_empty();
        match value.and_then(|value| self.said_in(value, json.name, bare)) {
            Some(all) => {
                self.held.drain(..until);
                for Said { name, arguments } in all {
                    let call = ToolCall { id: self.id(), name, arguments };
                    self.calls += 1;
                    events.push(ToolEvent::Call(call));
                }
                self.state = State::After { closed: false };
                true
            }
            None => self.was_text(until, events),
        }
    }

    /// The calls in a value; none if it is something else. Without a word before them the tools must be known ones.
    fn said_in(&self, value: Value, name: Option<String>, bare: bool) -> Option<Vec<Said>> {
        let all = match (value, name) {
            (value, Some(name)) => vec![Said { name, arguments: value.to_string() }],
            (Value::Array(values), None) if !values.is_empty() => values.iter().map(said).collect::<Option<_>>()?,
            (value, None) => vec![said(&value)?],
        };
        let known = |said: &Said| self.names.contains(&said.name);
        (!bare || all.iter().all(known)).then_some(all)
    }

    fn after(&mut self, closed: bool) -> bool {
        let held = self.held.trim_start();
        let space = self.held.len() - held.len();
        let close = self.family.close().filter(|_| !closed);
        // Calls without a word before them stand one behind the other, with semicolons between them.
        let next = if self.family.is_bare() { Some(";") } else { close };
        if let Some(next) = next.filter(|next| held.starts_with(next)) {
            self.held.drain(..space + next.len());
            self.state = if self.family.is_bare() { State::Start } else { State::After { closed: true } };
            return true;
        }
        let open = self.family.open().filter(|open| held.starts_with(open));
        if let Some(open) = open {
            self.held.drain(..space);
            self.state = State::Head(open.len());
            return true;
        }
        let words = next.into_iter().chain(self.family.open());
        if held.is_empty() || words.into_iter().any(|word| word.starts_with(held)) {
            self.state = State::After { closed };
            return false;
        }
        // Text goes on.
        true
    }

    /// The first bytes of what is held are no call.
    fn was_text(&mut self, bytes: usize, events: &mut Vec<ToolEvent>) -> bool {
        let rest = self.held.split_off(bytes);
        events.push(ToolEvent::Text(std::mem::replace(&mut self.held, rest)));
        true
    }

    fn id(&self) -> String {
        const LETTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
        let hash = blake3::hash(format!("{} {}", self.calls, self.salt).as_bytes());
        hash.as_bytes()
            .iter()
            .take(ID_LETTERS)
            .map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()]))
            .collect()
    }
}

/// What may stand between Mistral's opening word and the arguments: a name and other words.
fn is_head(text: &str) -> bool {
    let letter = |letter: char| letter.is_alphanumeric() || "_-.[]".contains(letter) || letter.is_whitespace();
    text.len() <= MAX_HEAD_BYTES && text.chars().all(letter)
}

/// Pieces of text that follow one another as one, and no empty ones.
fn joined(events: Vec<ToolEvent>) -> Vec<ToolEvent> {
    let mut all: Vec<ToolEvent> = Vec::new();
    for event in events {
        match (all.last_mut(), event) {
            (_, ToolEvent::Text(text)) if text.is_empty() => {}
            (Some(ToolEvent::Text(before)), ToolEvent::Text(text)) => before.push_str(&text),
            (_, event) => all.push(event),
        }
    }
    all
}

#[cfg(test)]
mod tests;
