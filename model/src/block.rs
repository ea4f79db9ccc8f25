//! One Llama block: attention and feed-forward, each behind a norm and a residual sum. Everything inside is f32.

use candle_core::{DType, Tensor};
use candle_nn::{ops::rms_norm, rotary_emb::rope_thd};

use crate::attention::{Span, attend, store};
use crate::cache::Part;
use crate::config::ModelConfig;
use crate::error::ModelError;
use crate::kv::{KvCache, KvShape};
use crate::linear::{Linear, contiguous, silu_mul, sum};

/// The weights of one block; matrices in the weight format, norms `(hidden)` in f32. The kind of linear layers decides what
/// computes with them: ours here, candle's in [`crate::device`].
#[derive(Debug, Clone)]
pub(crate) struct Block<L = Linear> {
    pub(crate) attention_norm: Tensor,
    pub(crate) query: L,
    pub(crate) key: L,
    pub(crate) value: L,
    pub(crate) output: L,
    pub(crate) feed_forward_norm: Tensor,
    pub(crate) gate: L,
    pub(crate) up: L,
    pub(crate) down: L,
}

/// What all blocks of one call share.
pub(crate) struct Step<'a> {
    pub(crate) config: &'a ModelConfig,
    pub(crate) shape: KvShape,
    /// `(rows, head_dim / 2)`, for each row's position.
    pub(crate) cos: Tensor,
    /// Like `cos`.
    pub(crate) sin: Tensor,
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
        let x = sum(&x, &self.attention(step, &normed, index, sequences)?)?;
        let normed = rms_norm(&x, &self.feed_forward_norm, eps)?;
        let [gate, up] = Linear::forward_all([&self.gate, &self.up], &normed)?;
        let gated = silu_mul(&gate, &up)?;
        let x = sum(&x, &self.down.forward(&gated)?)?;
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
        let queries = rotate(step, &queries, config.heads)?;
        let keys = rotate(step, &keys, config.kv_heads)?;
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
        self.output.forward(&attend(&queries, config.heads, step.shape, &spans)?)
    }
}

/// Rotates `(rows, heads * head_dim)` by the rows' positions.
fn rotate(step: &Step<'_>, x: &Tensor, heads: usize) -> Result<Tensor, ModelError> {
    let (rows, width) = x.dims2()?;
    let split = x.reshape((1, rows, heads, width / heads))?;
    Ok(rope_thd(&split, &step.cos, &step.sin)?.reshape((rows, width))?)
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
