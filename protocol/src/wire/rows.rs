//! Rows of activations as they travel behind the frame's header: raw little-endian elements, or cells of eight bits.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::chain::MAX_KV_BYTES;
use super::edges::MAX_SEEN_IDS;
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
            WeightFormat::Bf16 | WeightFormat::Q8_0 | WeightFormat::Q4_0 | WeightFormat::Q4K | WeightFormat::Gguf => {
                Self::Bf16
            }
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

/// Elements of a cell: those that share a scale. Cells of 64 take 3 % fewer bytes and are off by a tenth more.
pub const INT8_CELL: usize = 32;

/// Bytes of a cell's scale, a bfloat16: it has the range of an f32, and is rounded up, so that it costs no accuracy.
pub const INT8_SCALE_BYTES: usize = 2;

/// How the elements of rows are written. The first three are the [`ElementType`]s, bit for bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RowEncoding {
    /// 32-bit floats.
    F32,
    /// 16-bit IEEE floats.
    F16,
    /// bfloat16.
    Bf16,
    /// Cells of [`INT8_CELL`] elements, the last one shorter: a scale in bfloat16, then a signed byte for each element.
    Int8,
    /// Elements bit for bit, their exponents compressed: only on the way, never where rows are kept.
    Packed {
        /// What they are.
        element: ElementType,
        /// Bytes of all rows together.
        bytes: u32,
    },
}

impl RowEncoding {
    /// Bytes of a row of `hidden` elements; of a packed one, what it has unpacked.
    pub fn row_bytes(self, hidden: usize) -> usize {
        match self {
            Self::F32 => hidden * ElementType::F32.bytes(),
            Self::Packed { element, .. } => hidden * element.bytes(),
            Self::F16 => hidden * ElementType::F16.bytes(),
            Self::Bf16 => hidden * ElementType::Bf16.bytes(),
            Self::Int8 => hidden + hidden.div_ceil(INT8_CELL) * INT8_SCALE_BYTES,
        }
    }

    /// The type of the elements, if they are written bit for bit.
    pub fn element(self) -> Option<ElementType> {
        match self {
            Self::F32 => Some(ElementType::F32),
            Self::F16 => Some(ElementType::F16),
            Self::Bf16 => Some(ElementType::Bf16),
            Self::Packed { element, .. } => Some(element),
            Self::Int8 => None,
        }
    }
}

impl From<ElementType> for RowEncoding {
    /// Elements of that type as they are.
    fn from(element: ElementType) -> Self {
        match element {
            ElementType::F32 => Self::F32,
            ElementType::F16 => Self::F16,
            ElementType::Bf16 => Self::Bf16,
        }
    }
}

impl From<WeightFormat> for RowEncoding {
    /// A format's activations as they are.
    fn from(format: WeightFormat) -> Self {
        ElementType::from(format).into()
    }
}

/// The shape of the rows behind a header: `(rows, hidden)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowsHeader {
    /// Number of positions; 0 where no output was asked for.
    pub rows: u32,
    /// Width of the hidden state.
    pub hidden: u32,
    /// How the elements are written.
    pub element: RowEncoding,
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
    /// Packed rows of more bytes than unpacked ones.
    #[error("packed rows of {bytes} bytes would have {unpacked} unpacked")]
    Packed {
        /// Their bytes.
        bytes: u32,
        /// What the rows have unpacked.
        unpacked: usize,
    },
    /// Too much of a KV cache at once.
    #[error("a piece of {bytes} bytes of a KV cache is over the limit of {MAX_KV_BYTES}")]
    Kv {
        /// Its bytes.
        bytes: u32,
    },
    /// More tokens than any vocabulary has.
    #[error("{count} tokens that were seen are over the limit of {MAX_SEEN_IDS}")]
    SeenIds {
        /// How many.
        count: u32,
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
        let unpacked = rows as usize * element.row_bytes(hidden as usize);
        match element {
            RowEncoding::Packed { bytes, .. } if bytes as usize >= unpacked => {
                Err(RowsError::Packed { bytes, unpacked })
            }
            RowEncoding::Packed { bytes, .. } => Ok(bytes as usize),
            _ => Ok(unpacked),
        }
    }
}
