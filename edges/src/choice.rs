//! Tokens that are to be chosen at the same time are chosen together: the head, most of whose cost is reading its weights, is
//! read once.

use swarm_model::{Edges, History, LogProbabilities, ModelError, Sampler, Tensor, TokenMask, activations};
use swarm_protocol::activations::{ActivationRows, Rows};
use tokio::sync::oneshot;

/// Rows of the head's output held at once: 16 MiB with the largest vocabularies.
const ROWS_TOGETHER: usize = 16;

/// A token that is to be chosen.
#[derive(Debug)]
pub struct Wish {
    /// The last block's output; its last row counts.
    pub rows: ActivationRows,
    /// How it is chosen.
    pub sampler: Sampler,
    /// What penalties look at.
    pub history: History,
    /// The tokens it is chosen among, if not all.
    pub allowed: Option<TokenMask>,
    /// If probabilities are wanted, of how many of the likeliest tokens.
    pub top: Option<usize>,
}

/// A token, with what its choice took.
#[derive(Debug)]
pub struct Chosen {
    /// The token.
    pub id: u32,
    /// Its embedding, which is fed next.
    pub embedding: ActivationRows,
    /// How likely it was, if that was asked.
    pub probabilities: Option<LogProbabilities>,
    /// It has drawn one more token.
    pub sampler: Sampler,
    /// As it was.
    pub history: History,
}

/// A wish, and who is told.
#[derive(Debug)]
pub(crate) struct Choice {
    pub(crate) wish: Wish,
    pub(crate) reply: oneshot::Sender<Result<Chosen, ModelError>>,
}

pub(crate) fn choose_all(edges: &Edges, mut choices: Vec<Choice>) {
    // Nobody waits for what a dropped session wanted.
    choices.retain(|choice| !choice.reply.is_closed());
    while !choices.is_empty() {
        let rest = choices.split_off(choices.len().min(ROWS_TOGETHER));
        match last_logits(edges, &choices) {
            Ok(logits) => choices.into_iter().zip(logits).for_each(|(choice, logits)| choice.choose(edges, &logits)),
            Err(error) => match choices.pop() {
                Some(only) if choices.is_empty() => drop(only.reply.send(Err(error))),
                // One of them is to blame.
                last => choices.into_iter().chain(last).for_each(|choice| choose_all(edges, vec![choice])),
            },
        }
        choices = rest;
    }
}

/// The embeddings of `ids`, as they travel.
pub(crate) fn embedded(edges: &Edges, ids: &[u32]) -> Result<ActivationRows, ModelError> {
    let hidden = edges.config().hidden;
    let rows = ActivationRows::new(edges.format(), hidden as u32, activations::to_bytes(&edges.embed(ids)?)?);
    rows.ok_or_else(|| ModelError::BadInput { found: "no rows".into(), expected: format!("(ids, {hidden})") })
}

/// For each choice `(vocabulary)` logits: those of its last row.
fn last_logits(edges: &Edges, choices: &[Choice]) -> Result<Vec<Tensor>, ModelError> {
    let hidden = edges.config().hidden;
    let rows = choices.iter().map(|Choice { wish: Wish { rows, .. }, .. }| {
        let width = rows.bytes().len() / rows.rows().max(1);
        &rows.bytes()[rows.bytes().len() - width..]
    });
    let rows = activations::from_bytes(edges.format(), choices.len(), hidden, &rows.collect::<Vec<_>>().concat())?;
    let logits = edges.logits(&rows)?;
    (0..choices.len()).map(|row| Ok(logits.narrow(0, row, 1)?.squeeze(0)?)).collect()
}

impl Choice {
    fn choose(self, edges: &Edges, logits: &Tensor) {
        // The session may have been dropped.
        let _ = self.reply.send(self.wish.choose(edges, logits));
    }
}

impl Wish {
    fn choose(mut self, edges: &Edges, logits: &Tensor) -> Result<Chosen, ModelError> {
        let id = self.sampler.sample_among(logits, &self.history, self.allowed.as_ref())?;
        let embedding = embedded(edges, &[id])?;
        let probabilities = self.top.map(|top| LogProbabilities::of(logits, id, top)).transpose()?;
        Ok(Chosen { id, embedding, probabilities, sampler: self.sampler, history: self.history })
    }
}
