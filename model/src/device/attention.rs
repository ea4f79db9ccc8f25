//! Causal grouped-query attention on a device: two matrix products a sequence, in pieces that fit in memory.
//!
//! Keys and values are widened to f32 for it, so that scores lose nothing; softmax is in f32 too.

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

/// Some rows, which see the first `seen` positions or fewer.
struct Piece {
    /// Counted within the sequence's rows.
    first: usize,
    rows: usize,
    seen: usize,
    /// `(rows, seen)`: what is added to scores; none where every row sees everything.
    mask: Option<Tensor>,
}

impl Rows {
    /// `rows` rows of a model with `heads` heads, from `position` on.
    pub(super) fn new(position: usize, rows: usize, heads: usize, device: &Device) -> Result<Self, ModelError> {
        let step = (MOST_SCORES / (heads * (position + rows))).clamp(1, rows.max(1));
        let piece = |first: usize| -> Result<Piece, ModelError> {
            let rows = step.min(rows - first);
            let seen = position + first + rows;
            let mask = (rows > 1).then(|| mask(position + first, rows, seen, device)).transpose()?;
            Ok(Piece { first, rows, seen, mask })
        };
        let pieces = (0..rows).step_by(step).map(piece).collect::<Result<_, _>>()?;
        Ok(Self { pieces })
    }

    /// The sequence's queries `(rows, heads, head_dim)` in f32 to attended values `(rows, heads * head_dim)`; its own keys
    /// and values are stored already.
    pub(super) fn attend(&self, queries: &Tensor, config: &ModelConfig, kv: &BlockKv) -> Result<Tensor, ModelError> {
        let seen = self.pieces.last().map_or(0, |piece| piece.seen);
        let (keys, values) = kv.read(0..seen)?;
        let (keys, values) = (keys.to_dtype(DType::F32)?, values.to_dtype(DType::F32)?);
        let queries = (queries / (config.head_dim as f64).sqrt())?;
        let attended = self.pieces.iter().map(|piece| piece.attend(&queries, config, &keys, &values));
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
        keys: &Tensor,
        values: &Tensor,
    ) -> Result<Tensor, ModelError> {
        let (heads, kv_heads, dim) = (config.heads, config.kv_heads, config.head_dim);
        let group_rows = heads / kv_heads * self.rows;
        let queries = queries.narrow(0, self.first, self.rows)?.transpose(0, 1)?.contiguous()?;
        let queries = queries.reshape((kv_heads, group_rows, dim))?;
        let keys = keys.narrow(1, 0, self.seen)?;
        let scores = queries.matmul(&keys.t()?)?;
        let scores = match &self.mask {
            Some(mask) => scores.reshape((heads, self.rows, self.seen))?.broadcast_add(mask)?,
            None => scores,
        };
        let weights = softmax_last_dim(&scores)?.reshape((kv_heads, group_rows, self.seen))?;
        let attended = weights.matmul(&values.narrow(1, 0, self.seen)?)?;
        let by_row = attended.reshape((heads, self.rows, dim))?.transpose(0, 1)?;
        Ok(by_row.reshape((self.rows, heads * dim))?)
    }
}

/// The lowest number for what a row from `position` on does not see, and zero for what it does. Finite, so that no
/// device has to agree about infinities.
fn mask(position: usize, rows: usize, seen: usize, device: &Device) -> Result<Tensor, ModelError> {
    let of_row = Tensor::arange(position as u32, (position + rows) as u32, device)?.reshape((rows, 1))?;
    let of_column = Tensor::arange(0, seen as u32, device)?.reshape((1, seen))?;
    let hidden = of_column.broadcast_gt(&of_row)?.to_dtype(DType::F32)?;
    Ok((hidden * f64::from(f32::MIN))?)
}
