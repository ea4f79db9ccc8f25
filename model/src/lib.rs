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
mod block_tensors;
mod blocks;
mod cache;
mod chat;
mod chat_json;
mod chat_message;
mod checkpoint;
mod config;
mod config_keys;
mod constraint;
mod device;
mod edges;
mod elementwise;
mod embedding;
mod error;
mod families;
mod feed_forward;
mod generation;
mod gguf;
mod history;
mod kernels;
// What is public in it is so through `cache`.
#[allow(unreachable_pub)]
mod kv;
mod large_pages;
mod linear;
mod log_probabilities;
mod manifest;
mod pool;
mod products;
mod rope;
mod routing;
mod sampling;
mod source;
mod spec;
mod stacked_experts;
mod stop;
mod stored_type;
pub mod synthetic;
mod tensor_file;
mod tensor_read;
mod tensor_views;
mod tensors;
mod text;
mod tools;
mod weights;

pub use blocks::{Blocks, Sequence};
pub use cache::KvCache;
pub use chat::{ChatOptions, ChatTemplate};
pub use chat_message::ChatMessage;
pub use checkpoint::{Checkpoint, LoadProgress, LoadStage, ModelPart};
pub use config::{Activation, BlockKind, Experts, ModelConfig, StoredTypes};
pub use constraint::{Constraint, Grammars, TextMatcher, TokenMask};
pub use device::{ComputeDevice, DeviceChoice};
pub use edges::Edges;
pub use error::ModelError;
pub use families::Family;
pub use generation::GenerationDefaults;
pub use gguf::gguf_parts;
pub use history::History;
#[doc(hidden)]
pub use kernels::peak::{multiply_adds, read};
pub use kv::{KvArena, KvFormat, KvPage, PAGE_POSITIONS};
pub use log_probabilities::LogProbabilities;
pub use pool::ComputePool;
pub use rope::{Rope, RopeScaling};
pub use sampling::{Sampler, SamplingConfig};
pub use source::{ByteSource, CheckpointFiles, FileBytes, FileRange, open_file};
pub use spec::ModelSpec;
pub use stop::{MAX_STOP_BYTES, MAX_STOPS, Passed, StopFilter};
pub use text::{TextDecoder, TextTokenizer};
pub use tools::{ToolCall, ToolChoice, ToolDefinition, ToolEvent, ToolFamily, ToolFormat, ToolParser};

/// The tensors of this crate's interface, so that users need not name candle.
pub use candle_core::{DType, Device, Tensor};
