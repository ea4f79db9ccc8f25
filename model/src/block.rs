//! One block of any family: attention and feed-forward part, each behind a norm and a residual sum. What differs between families
//! is in [`ModelConfig`]. Everything inside is f32.

use candle_core::{DType, Tensor};
use candle_nn::ops::rms_norm;

use crate::attention::{Scoring, Span, attend, store};
use crate::cache::Part;
use crate::config::{BlockKind, ModelConfig};
use crate::elementwise::{rotated, sum};
use crate::error::ModelError;
use crate::feed_forward::FeedForward;
use crate::kv::{KvCache, KvShape};
use crate::linear::{Linear, contiguous};
use crate::rope::Turns;

/// The weights of one block; matrices in the weight format, norms `(hidden)` in f32. The kind of linear layers decides what
/// computes with them: ours here, candle's in [`crate::device`].
#[derive(Debug, Clone)]
pub(crate) struct Block<L = Linear> {
    pub(crate) kind: BlockKind,
    pub(crate) attention_norm: Tensor,
    pub(crate) query: L,
    pub(crate) key: L,
    pub(crate) value: L,
    /// Of each head's queries and keys, `(head_dim)`.
    pub(crate) query_key_norms: Option<(Tensor, Tensor)>,
    /// A score for each head, `(heads)`.
    pub(crate) sinks: Option<Tensor>,
    pub(crate) output: L,
    pub(crate) after_attention_norm: Option<Tensor>,
    pub(crate) feed_forward_norm: Tensor,
    pub(crate) feed_forward: FeedForward<L>,
    pub(crate) after_feed_forward_norm: Option<Tensor>,
}

/// What all blocks of one call share.
pub(crate) struct Step<'a> {
    pub(crate) config: &'a ModelConfig,
    pub(crate) shape: KvShape,
    /// For each row's position.
    pub(crate) turns: Turns,
}

impl Block {
    /// `(rows, hidden)` in the activation type to the same; stores the rows' keys and values in the sequences' pages
    /// of block `index` (counted within their caches).
    pub(crate) fn forward(
        &self,
        step: &Step<'_>,
        hidden: &Tensor,
        index: usize,
        sequences: &mut [Part<'_, KvCache>],
    ) -> Result<Tensor, ModelError> {
        let eps = step.config.rms_eps as f32;
        let x = hidden.to_dtype(DType::F32)?;
        let normed = rms_norm(&x, &self.attention_norm, eps)?;
        let attended = self.attention(step, &normed, index, sequences)?;
        let x = sum(&x, &after(attended, self.after_attention_norm.as_ref(), eps)?)?;
        let normed = rms_norm(&x, &self.feed_forward_norm, eps)?;
        let fed = self.feed_forward.forward(step.config, &normed)?;
        let x = sum(&x, &after(fed, self.after_feed_forward_norm.as_ref(), eps)?)?;
        Ok(x.to_dtype(hidden.dtype())?)
    }

    fn attention(
        &self,
        step: &Step<'_>,
        normed: &Tensor,
        index: usize,
        sequences: &mut [Part<'_, KvCache>],
    ) -> Result<Tensor, ModelError> {
        let config = step.config;
        let [queries, keys, values] = Linear::forward_all([&self.query, &self.key, &self.value], normed)?;
        let norms = self.query_key_norms.as_ref();
        let queries = self.by_position(step, queries, norms.map(|norms| &norms.0))?;
        let keys = self.by_position(step, keys, norms.map(|norms| &norms.1))?;
        store_all(step.shape, &keys, &values, index, sequences)?;
        let mut first_row = 0;
        let spans = sequences.iter().map(|sequence| {
            let span = Span {
                pages: sequence.cache.pages(),
                block: index,
                first_row,
                rows: sequence.rows,
                position: sequence.cache.len(),
            };
            first_row += sequence.rows;
            span
        });
        let spans: Vec<Span<'_>> = spans.collect();
        let scoring = Scoring {
            scale: config.query_scale,
            cap: config.attention_cap,
            window: self.kind.window,
            sinks: self.sinks.as_ref().map(|sinks| sinks.to_vec1()).transpose()?,
        };
        self.output.forward(&attend(&queries, config.heads, step.shape, &scoring, &spans)?)
    }

    /// Queries or keys `(rows, heads * head_dim)` through their norm, if they have one, and rotated by the rows' positions.
    fn by_position(&self, step: &Step<'_>, x: Tensor, norm: Option<&Tensor>) -> Result<Tensor, ModelError> {
        let head_dim = step.config.head_dim;
        let x = match norm {
            Some(norm) => {
                let (rows, width) = x.dims2()?;
                let heads = x.reshape((rows * width / head_dim, head_dim))?;
                rms_norm(&heads, norm, step.config.rms_eps as f32)?.reshape((rows, width))?
            }
            None => x,
        };
        let (cos, sin) = step.turns.of(self.kind);
        rotated(&x, cos, sin, head_dim)
    }
}

/// `x` through the norm behind it, if there is one.
fn after(x: Tensor, norm: Option<&Tensor>, eps: f32) -> Result<Tensor, ModelError> {
    match norm {
        Some(norm) => Ok(rms_norm(&x, norm, eps)?),
        None => Ok(x),
    }
}

/// Stores every sequence's part of `keys` and `values`, both `(rows, kv_heads * head_dim)`.
fn store_all(
    shape: KvShape,
    keys: &Tensor,
    values: &Tensor,
    index: usize,
    sequences: &mut [Part<'_, KvCache>],
) -> Result<(), ModelError> {
    let width = shape.kv_heads * shape.head_dim;
    let ((keys, keys_layout), (values, values_layout)) = (keys.storage_and_layout(), values.storage_and_layout());
    let (candle_core::Storage::Cpu(keys), candle_core::Storage::Cpu(values)) = (&*keys, &*values) else {
        return Err(candle_core::Error::Msg("blocks run on the CPU".into()).into());
    };
    let keys = contiguous::<f32>(keys, keys_layout)?;
    let values = contiguous::<f32>(values, values_layout)?;
    let mut first = 0;
    for sequence in sequences {
        let part = first * width..(first + sequence.rows) * width;
        store(sequence.cache, index, (&keys[part.clone()], &values[part]))?;
        first += sequence.rows;
    }
    Ok(())
}
