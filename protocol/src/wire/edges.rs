//! Embedding, head and sampling done by a server: token ids go there, tokens come back. Every request is complete in itself:
//! whichever server of the same bits answers it, the answer is the same one.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::model_id::{BlockDigest, ModelId, NumericClass};
use crate::trace_context::TraceContext;

use super::frame::Payload;
use super::rows::{RowsError, RowsHeader};

/// The most of the likeliest tokens that come with a chosen one: as many as any API that people use offers.
pub const MAX_TOP_TOKENS: u32 = 20;

/// The most token ids whose repetition is penalised: each counts once, and the largest vocabularies known have a quarter as many.
pub const MAX_SEEN_IDS: u32 = 1 << 20;

/// Bytes of each of them.
pub const SEEN_ID_BYTES: usize = 4;

/// Bytes of a token id and how often the token came.
pub const COUNTED_ID_BYTES: usize = 8;

/// What a server says of the embedding and the head that it offers to others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgesOffer {
    /// Which servers compute the same bits with them.
    pub class: NumericClass,
    /// blake3 of embedding, final norm and head.
    pub digest: BlockDigest,
    /// How long it takes to choose one token, in microseconds.
    pub choose_us: u32,
}

/// The beginning of a stream: whose embedding and head it is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenEdges {
    /// The model.
    pub model: ModelId,
    /// The bits.
    pub class: NumericClass,
    /// The weights.
    pub digest: BlockDigest,
}

/// A token that is to be chosen. Behind it come the last block's output for the last position, and the ids of
/// [`ChooseToken::seen`], four bytes each in little-endian order.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ChooseToken {
    /// What the output looks like: one exact row.
    pub row: RowsHeader,
    /// Divisor of the logits; none: the likeliest token.
    pub temperature: Option<f64>,
    /// Choose among so many of the likeliest tokens only.
    pub top_k: Option<u32>,
    /// Choose among the likeliest tokens that together reach this probability.
    pub top_p: Option<f64>,
    /// Makes tokens that were seen less likely.
    pub repetition_penalty: Option<f32>,
    /// Seed of the random generator.
    pub seed: u64,
    /// How many tokens have been drawn with it before.
    pub drawn: u64,
    /// How many different tokens were seen; none if their repetition is not penalised.
    pub seen: u32,
    /// How many of the likeliest tokens are to be named; at most [`MAX_TOP_TOKENS`].
    pub top: u32,
}

/// A token that is to be chosen, with what [`ChooseToken`] has no word for. Behind what follows that come the tokens that were
/// generated, each once: its id and how often it came, four bytes each in little-endian order.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ChooseWith {
    /// All else.
    pub choose: ChooseToken,
    /// Choose among tokens that are at least this many times as likely as the likeliest one.
    pub min_p: Option<f64>,
    /// Taken from the logit of each token that was generated.
    pub presence_penalty: f32,
    /// Taken from the logit of each token as often as it was generated.
    pub frequency_penalty: f32,
    /// How many different tokens were generated; none if their repetition is not penalised.
    pub generated: u32,
}

/// What is asked of a server; each request but [`Self::Trace`] has one reply, in order. The order of the variants is the wire format: append only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum EdgesRequest {
    /// The first request of each stream, and no other.
    Open(OpenEdges),
    /// The embeddings of these ids, at most [`MAX_STEP_ROWS`](super::MAX_STEP_ROWS) of them.
    Embed(Vec<u32>),
    /// The next token.
    Choose(ChooseToken),
    /// The next token, with more options.
    ChooseWith(ChooseWith),
    /// What is asked from now on is a part of this span's work, or of none; not answered. Only by clients whose program
    /// collects spans.
    Trace(Option<TraceContext>),
}

/// The replies. The order of the variants is the wire format: append only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum EdgesReply {
    /// To [`EdgesRequest::Open`]: go on.
    Opened,
    /// To [`EdgesRequest::Embed`], followed by the rows.
    Embedded(RowsHeader),
    /// To [`EdgesRequest::Choose`] and [`EdgesRequest::ChooseWith`], followed by the token's embedding: what is fed next costs no further question.
    Chosen(ChosenToken),
    /// The request is not answered, and the stream ends.
    Refused(EdgesRefusal),
}

/// A token, and how likely it was. Probabilities are those of the model itself: before penalties, temperature and cuts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChosenToken {
    /// The token.
    pub id: u32,
    /// The natural logarithm of its probability.
    pub log_probability: f32,
    /// The likeliest tokens with theirs, the likeliest first; as many as were asked for.
    pub top: Vec<(u32, f32)>,
    /// What its embedding looks like: one exact row.
    pub embedding: RowsHeader,
}

/// Why a request is not answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Error)]
pub enum EdgesRefusal {
    /// It holds other edges: of another model, of other weights, or computed with other bits.
    #[error("the server offers other embeddings and another head than it was asked for")]
    Other,
    /// It is on its way out.
    #[error("the server is leaving")]
    Leaving,
    /// The request breaks the protocol, or its bounds.
    #[error("the server does not take the request: {0}")]
    BadRequest(String),
    /// It could not be computed.
    #[error("computing failed: {0}")]
    Compute(String),
}

impl Payload for EdgesRequest {
    fn payload_bytes(&self) -> Result<usize, RowsError> {
        match self {
            Self::Choose(choose) => choose.payload_bytes(),
            Self::ChooseWith(with) => with.payload_bytes(),
            Self::Open(_) | Self::Embed(_) | Self::Trace(_) => Ok(0),
        }
    }
}

impl ChooseToken {
    fn payload_bytes(&self) -> Result<usize, RowsError> {
        if self.seen > MAX_SEEN_IDS {
            return Err(RowsError::SeenIds { count: self.seen });
        }
        Ok(self.row.payload_bytes()? + self.seen as usize * SEEN_ID_BYTES)
    }
}

impl ChooseWith {
    fn payload_bytes(&self) -> Result<usize, RowsError> {
        if self.generated > MAX_SEEN_IDS {
            return Err(RowsError::SeenIds { count: self.generated });
        }
        Ok(self.choose.payload_bytes()? + self.generated as usize * COUNTED_ID_BYTES)
    }
}

impl Payload for EdgesReply {
    fn payload_bytes(&self) -> Result<usize, RowsError> {
        match self {
            Self::Embedded(rows) | Self::Chosen(ChosenToken { embedding: rows, .. }) => rows.payload_bytes(),
            Self::Opened | Self::Refused(_) => Ok(0),
        }
    }
}
