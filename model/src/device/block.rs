//! The blocks on a device. Inside a block everything is f32 but what linear layers multiply.

use candle_core::{DType, Device, Tensor};
use candle_nn::{ops::rms_norm, rotary_emb::rope_thd};

use super::attention::Rows;
use super::{DeviceKv, DeviceLinear};
use crate::activations;
use crate::block::Block;
use crate::cache::Part;
use crate::config::ModelConfig;
use crate::error::ModelError;
use crate::rope::cos_sin;

/// Blocks in a device's memory.
#[derive(Debug)]
pub(crate) struct DeviceBlocks {
    pub(crate) device: Device,
    pub(crate) blocks: Vec<Block<DeviceLinear>>,
}

/// What all blocks of one call share.
struct Step<'a> {
    config: &'a ModelConfig,
    /// `(rows, head_dim / 2)`, for each row's position.
    cos: Tensor,
    /// Like `cos`.
    sin: Tensor,
    /// Of each sequence.
    rows: Vec<Rows>,
}

impl DeviceBlocks {
    /// See [`crate::Blocks::forward`]; `blocks` are counted from the first that is hosted. `hidden` comes from the host's
    /// memory, and so does the result.
    pub(crate) fn forward(
        &self,
        blocks: std::ops::Range<usize>,
        config: &ModelConfig,
        inverse_frequencies: &[f32],
        hidden: &Tensor,
        sequences: &mut [Part<'_, DeviceKv>],
    ) -> Result<Tensor, ModelError> {
        sequences.iter_mut().try_for_each(|part| part.cache.grow(part.rows))?;
        let step = Step::new(config, inverse_frequencies, sequences, &self.device)?;
        let (dtype, device) = (hidden.dtype(), &self.device);
        let mut hidden = hidden.to_device(device)?;
        for (index, block) in self.blocks[blocks].iter().enumerate() {
            // Rounded between blocks, as on a link: a cut changes nothing.
            let x = block.forward(&step, &hidden.to_dtype(DType::F32)?, index, sequences)?;
            hidden = x.to_dtype(dtype)?;
        }
        let hidden = hidden.to_device(&Device::Cpu)?;
        sequences.iter_mut().for_each(|part| part.cache.advance(part.rows));
        Ok(hidden)
    }
}

impl<'a> Step<'a> {
    fn new(
        config: &'a ModelConfig,
        inverse_frequencies: &[f32],
        sequences: &[Part<'_, DeviceKv>],
        device: &Device,
    ) -> Result<Self, ModelError> {
        let positions = sequences.iter().flat_map(|part| part.cache.len()..part.cache.len() + part.rows);
        let (cos, sin) = cos_sin(inverse_frequencies, positions)?;
        let rows = |part: &Part<'_, DeviceKv>| Rows::new(part.cache.len(), part.rows, config.heads, device);
        Ok(Self {
            config,
            cos: cos.to_device(device)?,
            sin: sin.to_device(device)?,
            rows: sequences.iter().map(rows).collect::<Result<_, _>>()?,
        })
    }
}

impl Block<DeviceLinear> {
    /// `(rows, hidden)` f32 to the same.
    fn forward(
        &self,
        step: &Step<'_>,
        x: &Tensor,
        index: usize,
        sequences: &[Part<'_, DeviceKv>],
    ) -> Result<Tensor, ModelError> {
        let eps = step.config.rms_eps as f32;
        let normed = rms_norm(x, &self.attention_norm, eps)?;
        let x = (x + self.attention(step, &normed, index, sequences)?)?;
        let normed = self.gate.rounded(&rms_norm(&x, &self.feed_forward_norm, eps)?)?;
        let gated = (self.gate.forward(&normed)?.silu()? * self.up.forward(&normed)?)?;
        Ok((x + self.down.forward(&self.down.rounded(&gated)?)?)?)
    }

    fn attention(
        &self,
        step: &Step<'_>,
        normed: &Tensor,
        index: usize,
        sequences: &[Part<'_, DeviceKv>],
    ) -> Result<Tensor, ModelError> {
        let config = step.config;
        let normed = self.query.rounded(normed)?;
        let queries = by_head(&self.query.forward(&normed)?, config.heads, Some(step))?;
        let keys = by_head(&self.key.forward(&normed)?, config.kv_heads, Some(step))?;
        let values = by_head(&self.value.forward(&normed)?, config.kv_heads, None)?;
        let mut first = 0;
        let mut attended = Vec::with_capacity(sequences.len());
        for (part, rows) in sequences.iter().zip(&step.rows) {
            let own = |of_all: &Tensor| of_all.narrow(0, first, part.rows);
            let kv = part.cache.block(index);
            let stored = |of_all: &Tensor| -> Result<Tensor, ModelError> {
                let rounded = own(of_all)?.to_dtype(activations::dtype(part.cache.element().into()))?;
                Ok(rounded.transpose(0, 1)?.contiguous()?)
            };
            kv.store(&stored(&keys)?, &stored(&values)?, part.cache.len())?;
            attended.push(rows.attend(&own(&queries)?, config, kv)?);
            first += part.rows;
        }
        let attended = match &attended[..] {
            [one] => one.clone(),
            all => Tensor::cat(all, 0)?,
        };
        self.output.forward(&self.output.rounded(&attended)?)
    }
}

/// `(rows, heads * head_dim)` to `(rows, heads, head_dim)`, rotated by the rows' positions where a step is given.
fn by_head(x: &Tensor, heads: usize, rotated: Option<&Step<'_>>) -> Result<Tensor, ModelError> {
    let (rows, width) = x.dims2()?;
    let shape = (rows, heads, width / heads);
    Ok(match rotated {
        Some(step) => rope_thd(&x.reshape((1, rows, heads, width / heads))?, &step.cos, &step.sin)?.reshape(shape)?,
        None => x.reshape(shape)?,
    })
}
