//! Rows of activations as they travel: raw little-endian elements behind the frame's header.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::chain::MAX_KV_BYTES;
use crate::model_id::WeightFormat;

/// The most rows in one step: a prefill chunk this long keeps a server busy for some hundred milliseconds, and sessions
/// that wait behind it no longer.
pub const MAX_STEP_ROWS: u32 = 512;

/// The widest hidden state a peer is believed to have; four times the widest open model known.
pub const MAX_HIDDEN: u32 = 65_536;

/// The type of one element of an activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ElementType {
    /// 32-bit float.
    F32,
    /// 16-bit IEEE float.
    F16,
    /// bfloat16.
    Bf16,
}

impl ElementType {
    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

impl From<WeightFormat> for ElementType {
    /// The type in which a format's activations cross from block to block.
    fn from(format: WeightFormat) -> Self {
        match format {
            WeightFormat::F32 => Self::F32,
            WeightFormat::F16 => Self::F16,
            // What is quantised computes in f32; bf16 has its range, so that no outlier is cut off.
            WeightFormat::Bf16 | WeightFormat::Q8_0 | WeightFormat::Q4_0 | WeightFormat::Q4K => Self::Bf16,
        }
    }
}

impl From<ElementType> for WeightFormat {
    /// The format of weights in that type.
    fn from(element: ElementType) -> Self {
        match element {
            ElementType::F32 => Self::F32,
            ElementType::F16 => Self::F16,
            ElementType::Bf16 => Self::Bf16,
        }
    }
}

/// The shape of the rows behind a header: `(rows, hidden)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowsHeader {
    /// Number of positions; 0 where no output was asked for.
    pub rows: u32,
    /// Width of the hidden state.
    pub hidden: u32,
    /// Type of the elements.
    pub element: ElementType,
}

/// A payload that no honest peer sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RowsError {
    /// Too many, or too wide.
    #[error("rows of shape ({rows}, {hidden}) are over the limits of {MAX_STEP_ROWS} rows and {MAX_HIDDEN} elements")]
    Rows {
        /// Number of positions.
        rows: u32,
        /// Width of the hidden state.
        hidden: u32,
    },
    /// Too much of a KV cache at once.
    #[error("a piece of {bytes} bytes of a KV cache is over the limit of {MAX_KV_BYTES}")]
    Kv {
        /// Its bytes.
        bytes: u32,
    },
}

impl RowsHeader {
    /// Bytes of all rows.
    ///
    /// # Errors
    /// [`RowsError`] if the shape is out of bounds.
    pub fn payload_bytes(&self) -> Result<usize, RowsError> {
        let Self { rows, hidden, element } = *self;
        if rows > MAX_STEP_ROWS || hidden > MAX_HIDDEN {
            return Err(RowsError::Rows { rows, hidden });
        }
        Ok(rows as usize * hidden as usize * element.bytes())
    }
}
