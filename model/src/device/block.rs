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
use crate::rope::{Frequencies, Turns};

/// Blocks in a device's memory.
#[derive(Debug)]
pub(crate) struct DeviceBlocks {
    pub(crate) device: Device,
    pub(crate) blocks: Vec<Block<DeviceLinear>>,
}

/// What all blocks of one call share.
struct Step<'a> {
    config: &'a ModelConfig,
    /// For each row's position.
    turns: Turns,
    /// Of each sequence, for each window that blocks of the model have.
    rows: Vec<(Option<usize>, Vec<Rows>)>,
}

impl DeviceBlocks {
    /// See [`crate::Blocks::forward`]; `blocks` are counted from the first that is hosted. `hidden` comes from the host's
    /// memory, and so does the result.
    pub(crate) fn forward(
        &self,
        blocks: std::ops::Range<usize>,
        config: &ModelConfig,
        frequencies: &Frequencies,
        hidden: &Tensor,
        sequences: &mut [Part<'_, DeviceKv>],
    ) -> Result<Tensor, ModelError> {
        sequences.iter_mut().try_for_each(|part| part.cache.grow(part.rows))?;
        let blocks = &self.blocks[blocks];
        let step = self.step(blocks, config, frequencies, sequences)?;
        let (dtype, device) = (hidden.dtype(), &self.device);
        let mut hidden = hidden.to_device(device)?;
        for (index, block) in blocks.iter().enumerate() {
            // Rounded between blocks, as on a link: a cut changes nothing.
            let x = block.forward(&step, &hidden.to_dtype(DType::F32)?, index, sequences)?;
            hidden = x.to_dtype(dtype)?;
        }
        let hidden = hidden.to_device(&Device::Cpu)?;
        sequences.iter_mut().for_each(|part| part.cache.advance(part.rows));
        Ok(hidden)
    }

    fn step<'a>(
        &self,
        blocks: &[Block<DeviceLinear>],
        config: &'a ModelConfig,
        frequencies: &Frequencies,
        sequences: &[Part<'_, DeviceKv>],
    ) -> Result<Step<'a>, ModelError> {
        let positions = sequences.iter().flat_map(|part| part.cache.len()..part.cache.len() + part.rows);
        let turns = frequencies.turns(positions)?.to_device(&self.device)?;
        let mut windows: Vec<Option<usize>> = blocks.iter().map(|block| block.kind.window).collect();
        windows.sort_unstable();
        windows.dedup();
        let of_window = |window| -> Result<_, ModelError> {
            let rows =
                |part: &Part<'_, DeviceKv>| Rows::new(part.cache.len(), part.rows, config.heads, window, &self.device);
            Ok((window, sequences.iter().map(rows).collect::<Result<Vec<_>, _>>()?))
        };
        Ok(Step { config, turns, rows: windows.into_iter().map(of_window).collect::<Result<_, _>>()? })
    }
}

impl Step<'_> {
    /// The rows of each sequence as blocks with `window` see them.
    fn rows(&self, window: Option<usize>) -> &[Rows] {
        self.rows.iter().find(|(of, _)| *of == window).map_or(&[], |(_, rows)| rows)
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
        let after = |x: Tensor, norm: &Option<Tensor>| match norm {
            Some(norm) => rms_norm(&x, norm, eps),
            None => Ok(x),
        };
        let normed = rms_norm(x, &self.attention_norm, eps)?;
        let x = (x + after(self.attention(step, &normed, index, sequences)?, &self.after_attention_norm)?)?;
        let normed = rms_norm(&x, &self.feed_forward_norm, eps)?;
        let fed = self.feed_forward.forward_on_device(step.config, &normed)?;
        Ok((x + after(fed, &self.after_feed_forward_norm)?)?)
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
        let norms = self.query_key_norms.as_ref();
        let queries = by_head(&self.query.forward(&normed)?, config.head_dim)?;
        let queries = self.by_position(step, queries, norms.map(|norms| &norms.0))?;
        let keys = by_head(&self.key.forward(&normed)?, config.head_dim)?;
        let keys = self.by_position(step, keys, norms.map(|norms| &norms.1))?;
        let values = by_head(&self.value.forward(&normed)?, config.head_dim)?;
        let mut first = 0;
        let mut attended = Vec::with_capacity(sequences.len());
        for (part, rows) in sequences.iter().zip(step.rows(self.kind.window)) {
            let own = |of_all: &Tensor| of_all.narrow(0, first, part.rows);
            let kv = part.cache.block(index);
            let stored = |of_all: &Tensor| -> Result<Tensor, ModelError> {
                let rounded = own(of_all)?.to_dtype(activations::dtype(part.cache.element().into()))?;
                Ok(rounded.transpose(0, 1)?.contiguous()?)
            };
            kv.store(&stored(&keys)?, &stored(&values)?, part.cache.len())?;
            attended.push(rows.attend(&own(&queries)?, config, self.sinks.as_ref(), kv)?);
            first += part.rows;
        }
        let attended = match &attended[..] {
            [one] => one.clone(),
            all => Tensor::cat(all, 0)?,
        };
        self.output.forward(&self.output.rounded(&attended)?)
    }

    /// Queries or keys `(rows, heads, head_dim)` through their norm, if they have one, and rotated by the rows' positions.
    fn by_position(&self, step: &Step<'_>, x: Tensor, norm: Option<&Tensor>) -> Result<Tensor, ModelError> {
        let x = match norm {
            Some(norm) => rms_norm(&x, norm, step.config.rms_eps as f32)?,
            None => x,
        };
        let (cos, sin) = step.turns.of(self.kind);
        let (head_dim, turned) = (step.config.head_dim, 2 * cos.dims2()?.1);
        let rotate = |x: &Tensor| -> Result<Tensor, ModelError> {
            Ok(rope_thd(&x.unsqueeze(0)?.contiguous()?, cos, sin)?.squeeze(0)?)
        };
        if turned == head_dim {
            return rotate(&x);
        }
        let rest = x.narrow(2, turned, head_dim - turned)?;
        Ok(Tensor::cat(&[rotate(&x.narrow(2, 0, turned)?)?, rest], 2)?)
    }
}

/// `(rows, heads * head_dim)` to `(rows, heads, head_dim)`.
fn by_head(x: &Tensor, head_dim: usize) -> Result<Tensor, ModelError> {
    let (rows, width) = x.dims2()?;
    Ok(x.reshape((rows, width / head_dim, head_dim))?)
}
