//! Causal grouped-query attention on a device: two matrix products a sequence, in pieces that fit in memory.
//!
//! Keys and values are widened to f32 for it, so that scores lose nothing; softmax is in f32 too.

use std::ops::Range;

use candle_core::{DType, Device, Tensor};
use candle_nn::ops::softmax_last_dim;

use super::kv::BlockKv;
use crate::config::ModelConfig;
use crate::error::ModelError;

/// Scores held at once: 64 MiB in f32, and as much again for what is computed from them.
const MOST_SCORES: usize = 16 << 20;

/// The rows of one sequence, cut so that the scores of a piece fit.
pub(super) struct Rows {
    pieces: Vec<Piece>,
}

/// Some rows, which see positions of `base..seen`.
struct Piece {
    /// Counted within the sequence's rows.
    first: usize,
    rows: usize,
    base: usize,
    seen: usize,
    /// `(rows, seen)`: what is added to scores; none where every row sees everything.
    mask: Option<Tensor>,
}

impl Rows {
    /// `rows` rows of a model with `heads` heads, from `position` on; each sees `window` positions, its own among them.
    pub(super) fn new(
        position: usize,
        rows: usize,
        heads: usize,
        window: Option<usize>,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let step = (MOST_SCORES / (heads * (position + rows))).clamp(1, rows.max(1));
        let window = window.unwrap_or(usize::MAX);
        let piece = |first: usize| -> Result<Piece, ModelError> {
            let rows = step.min(rows - first);
            let position = position + first;
            let (base, seen) = ((position + 1).saturating_sub(window), position + rows);
            let mask = (rows > 1).then(|| mask(position, rows, base..seen, window, device)).transpose()?;
            Ok(Piece { first, rows, base, seen, mask })
        };
        let pieces = (0..rows).step_by(step).map(piece).collect::<Result<_, _>>()?;
        Ok(Self { pieces })
    }

    /// The sequence's queries `(rows, heads, head_dim)` in f32 to attended values `(rows, heads * head_dim)`; its own keys
    /// and values are stored already.
    pub(super) fn attend(
        &self,
        queries: &Tensor,
        config: &ModelConfig,
        sinks: Option<&Tensor>,
        kv: &BlockKv,
    ) -> Result<Tensor, ModelError> {
        let base = self.pieces.first().map_or(0, |piece| piece.base);
        let seen = self.pieces.last().map_or(0, |piece| piece.seen);
        let (keys, values) = kv.read(base..seen)?;
        let (keys, values) = (keys.to_dtype(DType::F32)?, values.to_dtype(DType::F32)?);
        let queries = (queries * f64::from(config.query_scale))?;
        let attended = self.pieces.iter().map(|piece| {
            let (start, width) = (piece.base - base, piece.seen - piece.base);
            piece.attend(&queries, config, sinks, &keys.narrow(1, start, width)?, &values.narrow(1, start, width)?)
        });
        let attended = attended.collect::<Result<Vec<_>, _>>()?;
        match &attended[..] {
            [one] => Ok(one.clone()),
            all => Ok(Tensor::cat(all, 0)?),
        }
    }
}

impl Piece {
    fn attend(
        &self,
        queries: &Tensor,
        config: &ModelConfig,
        sinks: Option<&Tensor>,
        keys: &Tensor,
        values: &Tensor,
    ) -> Result<Tensor, ModelError> {
        let (heads, kv_heads, dim) = (config.heads, config.kv_heads, config.head_dim);
        let group_rows = heads / kv_heads * self.rows;
        let queries = queries.narrow(0, self.first, self.rows)?.transpose(0, 1)?.contiguous()?;
        let queries = queries.reshape((kv_heads, group_rows, dim))?;
        let width = self.seen - self.base;
        let scores = queries.matmul(&keys.t()?)?.reshape((heads, self.rows, width))?;
        let scores = match config.attention_cap.map(f64::from) {
            Some(cap) => ((scores / cap)?.tanh()? * cap)?,
            None => scores,
        };
        let scores = match &self.mask {
            Some(mask) => scores.broadcast_add(mask)?,
            None => scores,
        };
        let weights = match sinks {
            Some(sinks) => {
                let sinks = sinks.reshape((heads, 1, 1))?.broadcast_as((heads, self.rows, 1))?;
                softmax_last_dim(&Tensor::cat(&[scores, sinks.contiguous()?], 2)?)?.narrow(2, 0, width)?
            }
            None => softmax_last_dim(&scores)?,
        };
        let weights = weights.contiguous()?.reshape((kv_heads, group_rows, width))?;
        let attended = weights.matmul(values)?;
        let by_row = attended.reshape((heads, self.rows, dim))?.transpose(0, 1)?;
        Ok(by_row.reshape((self.rows, heads * dim))?)
    }
}

/// The lowest number for what of positions `seen` a row from `position` on does not see, and zero for what it does. Finite, so
/// that no device has to agree about infinities.
fn mask(
    position: usize,
    rows: usize,
    seen: Range<usize>,
    window: usize,
    device: &Device,
) -> Result<Tensor, ModelError> {
    let row = |row: usize| {
        let first = (row + 1).saturating_sub(window);
        seen.clone().map(move |column| if column > row || column < first { f32::MIN } else { 0.0 })
    };
    let values: Vec<f32> = (position..position + rows).flat_map(row).collect();
    Ok(Tensor::from_vec(values, (rows, seen.len()), device)?)
}
