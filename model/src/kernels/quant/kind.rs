//! The quantised formats by name.

use candle_core::quantized::GgmlDType;
use swarm_protocol::model_id::WeightFormat;

use super::{CELL, mxfp4};

/// A quantised format that matrices are held in; values are ggml's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QuantType {
    Q8_0,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q4K,
    Q5K,
    Q6K,
    Mxfp4,
}

impl QuantType {
    /// Every one.
    pub(crate) const ALL: [Self; 9] =
        [Self::Q8_0, Self::Q4_0, Self::Q4_1, Self::Q5_0, Self::Q5_1, Self::Q4K, Self::Q5K, Self::Q6K, Self::Mxfp4];

    /// What a format of the command line quantises to; `None` if it quantises nothing, or keeps what is stored.
    pub(crate) fn of(format: WeightFormat) -> Option<Self> {
        match format {
            WeightFormat::Q8_0 => Some(Self::Q8_0),
            WeightFormat::Q4_0 => Some(Self::Q4_0),
            WeightFormat::Q4K => Some(Self::Q4K),
            WeightFormat::F32 | WeightFormat::F16 | WeightFormat::Bf16 | WeightFormat::Gguf => None,
        }
    }

    /// Its name in digests and messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Q8_0 => "q8_0",
            Self::Q4_0 => "q4_0",
            Self::Q4_1 => "q4_1",
            Self::Q5_0 => "q5_0",
            Self::Q5_1 => "q5_1",
            Self::Q4K => "q4_k",
            Self::Q5K => "q5_k",
            Self::Q6K => "q6_k",
            Self::Mxfp4 => "mxfp4",
        }
    }

    /// Its name in candle, if it has one.
    pub(crate) fn ggml(self) -> Option<GgmlDType> {
        match self {
            Self::Q8_0 => Some(GgmlDType::Q8_0),
            Self::Q4_0 => Some(GgmlDType::Q4_0),
            Self::Q4_1 => Some(GgmlDType::Q4_1),
            Self::Q5_0 => Some(GgmlDType::Q5_0),
            Self::Q5_1 => Some(GgmlDType::Q5_1),
            Self::Q4K => Some(GgmlDType::Q4K),
            Self::Q5K => Some(GgmlDType::Q5K),
            Self::Q6K => Some(GgmlDType::Q6K),
            Self::Mxfp4 => None,
        }
    }

    /// Elements of one of ggml's blocks.
    pub(crate) fn block_elements(self) -> usize {
        self.ggml().map_or(CELL, |ggml| ggml.block_size())
    }

    /// Bytes of one of ggml's blocks.
    pub(crate) fn block_bytes(self) -> usize {
        self.ggml().map_or(mxfp4::BLOCK_BYTES, |ggml| ggml.type_size())
    }

    /// Bytes of a row of `width` elements, which are whole blocks.
    pub(crate) fn row_bytes(self, width: usize) -> usize {
        width / self.block_elements() * self.block_bytes()
    }
}
