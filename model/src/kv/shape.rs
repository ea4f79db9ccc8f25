//! What keys and values look like, and where in a page they lie.

use std::fmt;
use std::ops::Range;

use swarm_protocol::block::BlockRange;
use swarm_protocol::model_id::WeightFormat;
use swarm_protocol::wire::ElementType;

use super::PAGE_POSITIONS;
use crate::config::ModelConfig;

/// How keys and values are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum KvFormat {
    /// In the type of the activations between blocks: 16 bits, with f32 weights 32.
    #[default]
    Activations,
    /// In 8 bits, with an f32 scale for the key and one for the value of each position and head.
    Int8,
}

impl KvFormat {
    /// What a numeric class says of it after the weight format; nothing of what is the rule.
    pub(crate) fn class_suffix(self) -> &'static str {
        match self {
            Self::Activations => "",
            Self::Int8 => "+kv8",
        }
    }
}

impl fmt::Display for KvFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Activations => "activations",
            Self::Int8 => "int8",
        })
    }
}

/// The type of the elements of keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KvElement {
    Float(ElementType),
    /// Of which each run of a head has an f32 scale.
    Int8,
}

/// What keys and values look like: two caches of one shape hold the same model's sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KvShape {
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) element: KvElement,
}

/// What of a position is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Keys = 0,
    Values = 1,
}

impl KvShape {
    pub(crate) fn new(config: &ModelConfig, format: WeightFormat, kv: KvFormat) -> Self {
        let element = match kv {
            KvFormat::Activations => KvElement::Float(format.into()),
            KvFormat::Int8 => KvElement::Int8,
        };
        Self { kv_heads: config.kv_heads, head_dim: config.head_dim, element }
    }

    /// Bytes of the key (or value) of one head and position, without its scale.
    pub(crate) fn run_bytes(&self) -> usize {
        match self.element {
            KvElement::Float(element) => self.head_dim * element.bytes(),
            KvElement::Int8 => self.head_dim,
        }
    }

    /// Bytes of the scale of a run.
    pub(crate) fn scale_bytes(&self) -> usize {
        match self.element {
            KvElement::Float(_) => 0,
            KvElement::Int8 => size_of::<f32>(),
        }
    }

    /// Bytes of keys and values of one position in one block.
    pub(crate) fn position_bytes(&self) -> usize {
        2 * self.kv_heads * (self.run_bytes() + self.scale_bytes())
    }

    /// Bytes of a page for the blocks of `range`.
    pub(crate) fn page_bytes(&self, range: BlockRange) -> u64 {
        (range.len() as usize * PAGE_POSITIONS * self.position_bytes()) as u64
    }

    /// Bytes of the keys (or values) of one head in one page: `(PAGE_POSITIONS, head_dim)` elements, then the scales of
    /// each position if there are any.
    pub(crate) fn head_bytes(&self) -> usize {
        PAGE_POSITIONS * (self.run_bytes() + self.scale_bytes())
    }

    /// Where the keys (or values) of all heads of a block lie in a page: one block after the other, keys before values.
    pub(crate) fn side(&self, block: usize, side: Side) -> Range<usize> {
        let bytes = self.kv_heads * self.head_bytes();
        let start = (2 * block + side as usize) * bytes;
        start..start + bytes
    }

    /// Where in [`KvShape::head_bytes`] the run of position `slot` lies.
    pub(crate) fn run(&self, slot: usize) -> Range<usize> {
        slot * self.run_bytes()..(slot + 1) * self.run_bytes()
    }

    /// Where in [`KvShape::head_bytes`] the scale of position `slot` lies; nowhere if there is none.
    pub(crate) fn scale(&self, slot: usize) -> Range<usize> {
        let start = PAGE_POSITIONS * self.run_bytes() + slot * self.scale_bytes();
        start..start + self.scale_bytes()
    }
}
