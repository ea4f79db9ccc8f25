//! The model side of swarm-node: configuration, weights, block math, KV caches, embedding and head, tokenizer, chat
//! template and sampling. Knows no network and no async runtime.
//!
//! A [`ModelSpec`] names a model, a [`Checkpoint`] reads its headers, [`Blocks`] hosts a range of its blocks and
//! [`Edges`] what the client holds: embedding, final norm and head. Every step is row-invariant, bit for bit:
//! see `docs/architecture.md`, "Numbers".
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

#[cfg(target_endian = "big")]
compile_error!("weights and activations are read in place as little-endian");

pub mod activations;
mod attention;
mod block;
mod block_loader;
mod blocks;
mod cache;
mod chat;
mod checkpoint;
mod config;
mod device;
mod edges;
mod error;
mod generation;
mod kernels;
// What is public in it is so through `cache`.
#[allow(unreachable_pub)]
mod kv;
mod linear;
mod manifest;
mod pool;
mod products;
mod raw_config;
mod rope;
mod sampling;
mod source;
mod spec;
pub mod synthetic;
mod tensor_file;
mod tensors;
mod text;
mod weights;

pub use blocks::{Blocks, Sequence};
pub use cache::KvCache;
pub use chat::{ChatMessage, ChatTemplate};
pub use checkpoint::{Checkpoint, LoadProgress};
pub use config::ModelConfig;
pub use device::{ComputeDevice, DeviceChoice};
pub use edges::Edges;
pub use error::ModelError;
pub use generation::GenerationDefaults;
#[doc(hidden)]
pub use kernels::peak::multiply_adds;
pub use kv::{KvArena, KvFormat, KvPage, PAGE_POSITIONS};
pub use pool::ComputePool;
pub use rope::RopeScaling;
pub use sampling::{Sampler, SamplingConfig};
pub use spec::ModelSpec;
pub use text::{TextDecoder, TextTokenizer};

/// The tensors of this crate's interface, so that users need not name candle.
pub use candle_core::{DType, Device, Tensor};
