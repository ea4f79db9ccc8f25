//! What the client holds: embedding, final norm and head.

use candle_core::{DType, Tensor};
use candle_nn::ops::rms_norm;
use swarm_protocol::model_id::WeightFormat;

use crate::config::ModelConfig;
use crate::error::ModelError;
use crate::linear::Linear;
use crate::weights::Matrix;

/// Embedding `(vocab, hidden)`, final norm and head; made by [`crate::Checkpoint::load_edges`].
#[derive(Debug, Clone)]
pub struct Edges {
    config: ModelConfig,
    format: WeightFormat,
    embedding: Matrix,
    norm: Tensor,
    head: Linear,
}

impl Edges {
    /// `head` is the embedding where the model ties them.
    pub(crate) fn new(
        config: ModelConfig,
        format: WeightFormat,
        embedding: Matrix,
        norm: Tensor,
        head: Option<Matrix>,
    ) -> Self {
        let weight = head.unwrap_or_else(|| embedding.clone());
        Self { config, format, embedding, norm, head: Linear { weight, bias: None } }
    }

    /// The model's configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The format the weights are held in.
    pub fn format(&self) -> WeightFormat {
        self.format
    }

    /// Token ids to `(ids, hidden)` in the activation type.
    ///
    /// # Errors
    /// [`ModelError::TokenOutOfRange`] if an id does not exist.
    pub fn embed(&self, ids: &[u32]) -> Result<Tensor, ModelError> {
        let vocab = self.config.vocab;
        if let Some(&id) = ids.iter().find(|id| **id as usize >= vocab) {
            return Err(ModelError::TokenOutOfRange { id, vocab });
        }
        let rows = self.embedding.rows(ids);
        rows.unwrap_or_else(|| Err(candle_core::Error::Msg("the embedding is quantised".into()).into()))
    }

    /// The last block's output `(rows, hidden)` to logits `(rows, vocab)` in f32.
    ///
    /// # Errors
    /// [`ModelError::BadInput`] if the input is not `(rows, hidden)`.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor, ModelError> {
        if hidden.dims().len() != 2 || hidden.dims()[1] != self.config.hidden {
            return Err(ModelError::BadInput {
                found: format!("{:?}", hidden.dims()),
                expected: format!("(rows, {})", self.config.hidden),
            });
        }
        let x = hidden.to_dtype(DType::F32)?.contiguous()?;
        self.head.forward(&rms_norm(&x, &self.norm, self.config.rms_eps as f32)?)
    }
}
