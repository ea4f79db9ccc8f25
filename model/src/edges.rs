//! What the client holds: embedding, final norm and head.

use candle_core::{DType, Tensor};
use candle_nn::ops::rms_norm;
use swarm_protocol::model_id::{BlockDigest, NumericClass, WeightFormat};

use crate::activations;
use crate::config::ModelConfig;
use crate::device::ComputeDevice;
use crate::elementwise::capped;
use crate::embedding::Embedding;
use crate::error::ModelError;
use crate::kv::KvFormat;
use crate::linear::Linear;
use crate::weights::Matrix;

/// Embedding `(vocab, hidden)`, final norm and head; made by [`crate::Checkpoint::load_edges`].
#[derive(Debug, Clone)]
pub struct Edges {
    config: ModelConfig,
    format: WeightFormat,
    embedding: Embedding,
    norm: Tensor,
    head: Linear,
    digest: BlockDigest,
}

impl Edges {
    pub(crate) fn new(
        config: ModelConfig,
        format: WeightFormat,
        embedding: Embedding,
        norm: Tensor,
        head: Matrix,
        digest: BlockDigest,
    ) -> Self {
        Self { config, format, embedding, norm, head: Linear { weight: head, bias: None }, digest }
    }

    /// The model's configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The format the weights are held in.
    pub fn format(&self) -> WeightFormat {
        self.format
    }

    /// blake3 of embedding, final norm and head, as blocks are digested.
    pub fn digest(&self) -> BlockDigest {
        self.digest
    }

    /// Which servers compute the same bits with them: they are computed on the CPU, whatever computes the blocks.
    ///
    /// # Errors
    /// [`ModelError`] if this machine's class has no name that others take.
    pub fn numeric_class(&self) -> Result<NumericClass, ModelError> {
        ComputeDevice::cpu().numeric_class(self.format, KvFormat::default())
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
        let rows = self.embedding.rows(ids)?.to_dtype(activations::dtype(self.format))?;
        match self.config.embedding_scale {
            Some(scale) => scaled(&rows, scale),
            None => Ok(rows),
        }
    }

    /// The last block's output `(rows, hidden)` after the final norm, in f32.
    ///
    /// # Errors
    /// [`ModelError::BadInput`] if the input is not `(rows, hidden)`.
    pub fn final_norm(&self, hidden: &Tensor) -> Result<Tensor, ModelError> {
        if hidden.dims().len() != 2 || hidden.dims()[1] != self.config.hidden {
            return Err(ModelError::BadInput {
                found: format!("{:?}", hidden.dims()),
                expected: format!("(rows, {})", self.config.hidden),
            });
        }
        let x = hidden.to_dtype(DType::F32)?.contiguous()?;
        Ok(rms_norm(&x, &self.norm, self.config.rms_eps as f32)?)
    }

    /// The last block's output `(rows, hidden)` to logits `(rows, vocab)` in f32.
    ///
    /// # Errors
    /// [`ModelError::BadInput`] if the input is not `(rows, hidden)`.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor, ModelError> {
        let logits = self.head.forward(&self.final_norm(hidden)?)?;
        match self.config.logit_cap {
            Some(cap) => capped(&logits, cap),
            None => Ok(logits),
        }
    }
}

/// `rows` times `scale`, which is rounded to their type first: so it was when such models were trained.
fn scaled(rows: &Tensor, scale: f32) -> Result<Tensor, ModelError> {
    let dtype = rows.dtype();
    let rounded = Tensor::new(scale, rows.device())?.to_dtype(dtype)?.to_dtype(DType::F32)?.to_scalar::<f32>()?;
    let wide: Vec<f32> = rows.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
    let product: Vec<f32> = wide.iter().map(|value| value * rounded).collect();
    Ok(Tensor::from_vec(product, rows.shape(), rows.device())?.to_dtype(dtype)?)
}
