//! The embedding, of which a step looks up a few rows.

use candle_core::{Device, Tensor};

use crate::error::ModelError;
use crate::kernels::{QuantType, dequantise};
use crate::weights::{Floats, Matrix};

/// A matrix `(vocab, hidden)`.
#[derive(Debug, Clone)]
pub(crate) enum Embedding {
    /// Of floats.
    Floats(Matrix),
    /// In ggml's bytes: where they lie in a mapped file, the table takes no memory.
    Ggml { kind: QuantType, width: usize, bytes: Floats<u8> },
}

impl Embedding {
    /// Rows `ids`, `(ids, hidden)`, in the type they are stored in, or f32.
    pub(crate) fn rows(&self, ids: &[u32]) -> Result<Tensor, ModelError> {
        let lacking = || candle_core::Error::Msg("the embedding lacks a row".into());
        match self {
            Self::Floats(matrix) => matrix.rows(ids).unwrap_or_else(|| Err(lacking().into())),
            Self::Ggml { kind, width, bytes } => {
                let row_bytes = kind.row_bytes(*width);
                let mut rows = Vec::with_capacity(ids.len() * row_bytes);
                for id in ids {
                    let row = bytes.as_slice().get(*id as usize * row_bytes..).and_then(|rows| rows.get(..row_bytes));
                    rows.extend_from_slice(row.ok_or_else(lacking)?);
                }
                Ok(Tensor::from_vec(dequantise(*kind, &rows)?, (ids.len(), *width), &Device::Cpu)?)
            }
        }
    }
}
