//! Why a session cannot go on.

use std::sync::Arc;

use swarm_edges::EdgesError;
use swarm_model::ModelError;
use swarm_protocol::block::BlockRange;
use swarm_protocol::session::TokenCount;
use thiserror::Error;

use crate::chain::ChainError;
use crate::finder::NoPlan;

/// Why a session did not start or cannot go on. What it computed so far is not lost: positions that were handed out stay
/// valid, and a new session can be fed the same tokens.
#[derive(Debug, Error)]
pub enum SessionError {
    /// No servers are to be had.
    #[error(transparent)]
    NoPlan(#[from] NoPlan),
    /// Every server that was tried failed.
    #[error("the session gave up on blocks {range} after {attempts} attempts; the last one: {last}")]
    GaveUp {
        /// The blocks without a server.
        range: BlockRange,
        /// How often it tried.
        attempts: u32,
        /// What the last attempt ended with.
        last: String,
    },
    /// No server offers embedding and head, and this client has none.
    #[error(
        "no server offers embedding and head of this model{}; start one with `swarm-node serve --model {model} --edges` and \
         the same --bootstrap, --swarm and --swarm-key, or leave out `--edges served`",
        last.as_ref().map_or_else(String::new, |last| format!(" now (the last one: {last})"))
    )]
    NoEdges {
        /// What follows `serve --model`.
        model: Arc<str>,
        /// What the last attempt ended with, if there was any.
        last: Option<String>,
    },
    /// What was asked for takes weights that this client does not hold.
    #[error("this client holds no head, and servers give no logits; leave out `--edges served` for them")]
    NoLogits,
    /// A constraint takes logits that this client does not see.
    #[error(
        "a constraint (JSON, grammar or regular expression) needs this client's own embedding and head: servers that choose \
         tokens know nothing of it; leave out `--edges served`"
    )]
    ConstraintElsewhere,
    /// More positions than were reserved.
    #[error("{asked} positions are more than the {reserved} reserved for this session; open one for more tokens")]
    PastReservation {
        /// Positions after the step.
        asked: TokenCount,
        /// Positions reserved at opening.
        reserved: TokenCount,
    },
    /// The session would be longer than the model's context.
    #[error("{asked} tokens are more than the model's context of {most}; shorten the prompt or ask for fewer tokens")]
    PastContext {
        /// Prompt and answer together.
        asked: TokenCount,
        /// The model's longest sequence.
        most: TokenCount,
    },
    /// There is nothing to continue.
    #[error("the prompt is empty; give at least one token")]
    EmptyPrompt,
    /// Rows of another width or type than the model's.
    #[error("the rows do not fit the model: expected (rows, {hidden}) of the model's activation type")]
    WrongRows {
        /// Width of the model's hidden state.
        hidden: usize,
    },
    /// Embedding, head or sampling failed on the client.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The session was used for what it was not opened for.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The thread that holds embedding and head has ended.
    #[error("the client's model thread has ended")]
    Stopped,
}

impl SessionError {
    /// Which it is, in one word that tells nothing of the text: for spans.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NoPlan(_) => "no_plan",
            Self::GaveUp { .. } => "gave_up",
            Self::NoEdges { .. } => "no_edges",
            Self::NoLogits => "no_logits",
            Self::ConstraintElsewhere => "constraint_elsewhere",
            Self::PastReservation { .. } => "past_reservation",
            Self::PastContext { .. } => "past_context",
            Self::EmptyPrompt => "empty_prompt",
            Self::WrongRows { .. } => "wrong_rows",
            Self::Model(_) => "model",
            Self::Chain(_) => "chain",
            Self::Stopped => "stopped",
        }
    }
}

impl From<EdgesError> for SessionError {
    fn from(error: EdgesError) -> Self {
        match error {
            EdgesError::Model(error) => Self::Model(error),
            EdgesError::WrongRows { hidden } => Self::WrongRows { hidden },
            EdgesError::Panicked | EdgesError::Stopped => Self::Stopped,
        }
    }
}
