//! What two servers must share to stand in for one another.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// blake3 over a model's canonical manifest: the configuration that affects the math, the weight format, and the
/// repository's name and revision where there is one. Written by `swarm-model`; opaque everywhere else.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ModelId(pub [u8; 32]);

impl ModelId {
    /// The first 12 hexadecimal digits, for people.
    pub fn short(&self) -> String {
        hex(&self.0[..6])
    }
}

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ModelId({})", self.short())
    }
}

/// blake3 over the names, shapes, types and bytes of one block's tensors as stored in the checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BlockDigest(pub [u8; 32]);

impl fmt::Display for BlockDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for BlockDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlockDigest({})", hex(&self.0[..6]))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// How a server holds its weights and computes on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum WeightFormat {
    /// 32-bit floats.
    F32,
    /// 16-bit IEEE floats.
    F16,
    /// bfloat16.
    Bf16,
    /// ggml's Q8_0: 32 signed bytes under a 16-bit scale.
    Q8_0,
    /// ggml's Q4_0: 32 nibbles under a 16-bit scale.
    Q4_0,
    /// ggml's Q4_K: 256 nibbles in eights of 32, each with a scale and a minimum of its own.
    Q4K,
    /// Every tensor in the type in which a GGUF file stores it; activations are bfloat16.
    Gguf,
}

impl WeightFormat {
    /// Every format.
    pub const ALL: [Self; 7] = [Self::F32, Self::F16, Self::Bf16, Self::Q8_0, Self::Q4_0, Self::Q4K, Self::Gguf];
    /// The formats that weights can be converted to, whatever they are stored in.
    pub const CONVERTED: [Self; 6] = [Self::F32, Self::F16, Self::Bf16, Self::Q8_0, Self::Q4_0, Self::Q4K];

    /// Bytes of so many weights, which are whole blocks of the format. Those of [`Self::Gguf`] depend on the file: they are
    /// taken for 16 bits each here.
    pub fn weight_bytes(self, weights: u64) -> u64 {
        let (bytes, of) = match self {
            Self::F32 => (4, 1),
            Self::F16 | Self::Bf16 | Self::Gguf => (2, 1),
            Self::Q8_0 => (34, 32),
            Self::Q4_0 => (18, 32),
            Self::Q4K => (144, 256),
        };
        weights.div_ceil(of) * bytes
    }

    /// The name used on the command line, in announcements and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Q8_0 => "q8_0",
            Self::Q4_0 => "q4_0",
            Self::Q4K => "q4_k",
            Self::Gguf => "gguf",
        }
    }
}

impl fmt::Display for WeightFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A weight format that is not known, or not yet served.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "the weight format \"{0}\" is not supported; use bf16, f16, f32, q8_0, q4_0, q4_k, or gguf for a .gguf file as it is"
)]
pub struct UnknownFormat(pub String);

impl FromStr for WeightFormat {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Self, UnknownFormat> {
        Self::ALL.into_iter().find(|format| format.name() == text).ok_or_else(|| UnknownFormat(text.to_string()))
    }
}

/// Servers of one numeric class give the same bits for the same input: weight format and arithmetic backend.
/// A lost hop is only ever replaced within its class.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NumericClass(String);

/// The longest name of a numeric class, in bytes.
const MAX_CLASS_BYTES: usize = 64;

/// A numeric class whose name is empty, too long or not printable.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("a numeric class is 1 to {MAX_CLASS_BYTES} printable ASCII characters")]
pub struct BadNumericClass;

impl NumericClass {
    /// The class of that name, for example `bf16/fma/x86_64-linux`.
    ///
    /// # Errors
    /// [`BadNumericClass`] if the name is empty, longer than 64 bytes or not printable ASCII.
    pub fn new(name: impl Into<String>) -> Result<Self, BadNumericClass> {
        let name = name.into();
        let fits = (1..=MAX_CLASS_BYTES).contains(&name.len());
        if !fits || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(BadNumericClass);
        }
        Ok(Self(name))
    }

    /// The class's name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for NumericClass {
    type Error = BadNumericClass;

    fn try_from(name: String) -> Result<Self, BadNumericClass> {
        Self::new(name)
    }
}

impl From<NumericClass> for String {
    fn from(class: NumericClass) -> Self {
        class.0
    }
}

impl fmt::Display for NumericClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
