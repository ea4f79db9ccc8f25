//! The types in which checkpoints store tensors.

use std::fmt;

use safetensors::Dtype;
use swarm_protocol::model_id::WeightFormat;
use swarm_protocol::wire::ElementType;

use crate::kernels::QuantType;

/// The type of a tensor in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoredType {
    Float(ElementType),
    Quantised(QuantType),
    /// A type that safetensors knows and no weight has.
    Other(Dtype),
}

impl StoredType {
    /// What weights in `format` are held in; `None` if that is whatever they are stored in.
    pub(crate) fn of(format: WeightFormat) -> Option<Self> {
        match (format, QuantType::of(format)) {
            (WeightFormat::Gguf, _) => None,
            (_, Some(kind)) => Some(Self::Quantised(kind)),
            (_, None) => Some(Self::Float(format.into())),
        }
    }
}

impl StoredType {
    /// Whether it is a type of single bytes.
    pub(crate) fn is_byte(self) -> bool {
        matches!(self, Self::Other(Dtype::U8 | Dtype::F8_E8M0))
    }
}

impl From<Dtype> for StoredType {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::Float(ElementType::F32),
            Dtype::F16 => Self::Float(ElementType::F16),
            Dtype::BF16 => Self::Float(ElementType::Bf16),
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for StoredType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Float(element) => WeightFormat::from(*element).fmt(f),
            Self::Quantised(kind) => f.write_str(kind.name()),
            Self::Other(dtype) => dtype.fmt(f),
        }
    }
}
