//! From what happens to an answer to what its reader gets: chunks of a stream, or one object. Pure: no clock, no IO.

use serde_json::{Value, json};

use super::probabilities::TokenOdds;
use super::run::End;
use super::usage::Taken;

/// What happens, with tokens' odds as text.
#[derive(Debug)]
pub(crate) enum Said {
    /// A token; its text is empty while a character is not whole.
    Token { choice: usize, text: String, odds: Option<TokenOdds> },
    /// The end of an answer.
    End { choice: usize, end: Box<End> },
}

/// What all objects of one request's answer share.
#[derive(Debug, Clone)]
pub(crate) struct Envelope {
    pub(crate) id: String,
    pub(crate) created: u64,
    pub(crate) model: String,
    pub(crate) fingerprint: String,
    pub(crate) request_id: String,
    /// Whether this process has computed it, for want of servers.
    pub(crate) fallback: bool,
}

impl Envelope {
    /// How the answer came about.
    fn swarm(&self, taken: &Taken) -> Value {
        let mut swarm = taken.swarm(&self.request_id);
        if self.fallback {
            swarm["fallback"] = Value::Bool(true);
        }
        swarm
    }

    fn object(&self, kind: &str, choices: Vec<Value>) -> Value {
        json!({
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
            "choices": choices,
        })
    }
}

/// How one endpoint writes answers. Each method is asked about one answer, and gives elements of `choices`.
pub(crate) trait Form: Send {
    /// `object` of a chunk, and of a whole answer.
    fn kinds(&self) -> (&'static str, &'static str);

    /// The first chunk of an answer, if there is one before its text.
    fn opening(&mut self, choice: usize) -> Option<Value>;

    /// Some more text, perhaps with odds; nothing if there is nothing to say yet.
    fn piece(&mut self, choice: usize, text: &str, odds: Option<&TokenOdds>) -> Vec<Value>;

    /// The last chunks of an answer, after all of its text.
    fn closing(&mut self, choice: usize, end: &End) -> Vec<Value>;

    /// A whole answer, and the odds of its tokens.
    fn whole(&mut self, choice: usize, end: &End, odds: &[TokenOdds]) -> Value;
}

/// Writes a stream.
pub(crate) struct Chunks {
    envelope: Envelope,
    form: Box<dyn Form>,
    includes_usage: bool,
    opened: Vec<bool>,
    left: usize,
    taken: Taken,
}

impl Chunks {
    /// Of so many answers.
    pub(crate) fn new(envelope: Envelope, form: Box<dyn Form>, answers: usize, includes_usage: bool) -> Self {
        Self { envelope, form, includes_usage, opened: vec![false; answers], left: answers, taken: Taken::default() }
    }

    /// The chunks that are to be sent now.
    pub(crate) fn on(&mut self, said: &Said) -> Vec<Value> {
        let (choice, end) = match said {
            Said::Token { choice, .. } => (*choice, None),
            Said::End { choice, end } => (*choice, Some(end)),
        };
        let mut choices = Vec::new();
        if let Some(opened) = self.opened.get_mut(choice).filter(|opened| !**opened) {
            *opened = true;
            choices.extend(self.form.opening(choice));
        }
        match (said, end) {
            (Said::Token { text, odds, .. }, _) => choices.extend(self.form.piece(choice, text, odds.as_ref())),
            (_, Some(end)) => {
                self.taken.add(end);
                self.left = self.left.saturating_sub(1);
                choices.extend(self.form.closing(choice, end));
            }
            _ => {}
        }
        let ends = end.is_some() && self.left == 0;
        self.chunks(choices, ends)
    }

    /// Whether every answer has ended.
    pub(crate) fn is_complete(&self) -> bool {
        self.left == 0
    }

    fn chunks(&self, choices: Vec<Value>, ends: bool) -> Vec<Value> {
        let (kind, _) = self.form.kinds();
        let mut chunks: Vec<Value> =
            choices.into_iter().map(|choice| self.envelope.object(kind, vec![choice])).collect();
        if self.includes_usage {
            chunks.iter_mut().for_each(|chunk| chunk["usage"] = Value::Null);
        }
        if ends {
            if self.includes_usage {
                let mut last = self.envelope.object(kind, Vec::new());
                last["usage"] = self.taken.usage();
                chunks.push(last);
            }
            if let Some(last) = chunks.last_mut() {
                last["swarm"] = self.envelope.swarm(&self.taken);
            }
        }
        chunks
    }
}

/// Collects whole answers.
pub(crate) struct Whole {
    envelope: Envelope,
    form: Box<dyn Form>,
    odds: Vec<Vec<TokenOdds>>,
    choices: Vec<Value>,
    taken: Taken,
}

impl Whole {
    /// Of so many answers.
    pub(crate) fn new(envelope: Envelope, form: Box<dyn Form>, answers: usize) -> Self {
        let (odds, choices) = (vec![Vec::new(); answers], vec![Value::Null; answers]);
        Self { envelope, form, odds, choices, taken: Taken::default() }
    }

    /// Something happened.
    pub(crate) fn on(&mut self, said: Said) {
        match said {
            Said::Token { choice, odds, .. } => {
                if let Some(all) = self.odds.get_mut(choice) {
                    all.extend(odds);
                }
            }
            Said::End { choice, end } => {
                self.taken.add(&end);
                let odds = self.odds.get_mut(choice).map(std::mem::take).unwrap_or_default();
                let whole = self.form.whole(choice, &end, &odds);
                if let Some(place) = self.choices.get_mut(choice) {
                    *place = whole;
                }
            }
        }
    }

    /// The answer, when every one of them has ended.
    pub(crate) fn object(self) -> Value {
        let (_, kind) = self.form.kinds();
        let swarm = self.envelope.swarm(&self.taken);
        let mut object = self.envelope.object(kind, self.choices);
        object["usage"] = self.taken.usage();
        object["swarm"] = swarm;
        object
    }
}
