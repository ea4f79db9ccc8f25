//! What can go wrong with a model, and what to do about it.

use std::ops::Range;
use std::path::PathBuf;

use swarm_protocol::block::BlockRange;
use swarm_protocol::model_id::WeightFormat;
use thiserror::Error;

/// Why a model could not be named, read or run.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The text names no model.
    #[error(
        "\"{0}\" names no model; give `demo`, a directory with config.json, *.safetensors and tokenizer.json, a .gguf file, or org/name[@revision][:FILE.gguf]"
    )]
    BadSpec(String),
    /// The text looks like a directory, and there is none.
    #[error("there is no directory {}; MODEL must be `demo`, an existing directory with config.json, *.safetensors and tokenizer.json, a .gguf file, or org/name[@revision][:FILE.gguf]", .0.display())]
    NoSuchDirectory(PathBuf),
    /// The text names a GGUF file, and there is none.
    #[error("there is no file {}; check its path, or name a file of the hub: org/name:FILE.gguf", .0.display())]
    NoSuchFile(PathBuf),
    /// The text names a file of another kind.
    #[error(
        "{} is a file, but no .gguf file; MODEL must be a directory with config.json, *.safetensors and tokenizer.json, a .gguf file, `demo`, or org/name[@revision][:FILE.gguf]",
        .0.display()
    )]
    NoModelFile(PathBuf),
    /// The kind of model is known but not read yet.
    #[error(
        "{what} cannot be read here; use a directory with config.json, *.safetensors and tokenizer.json, a .gguf file, or `demo`"
    )]
    UnsupportedSource {
        /// The model as given.
        what: String,
    },
    /// A file the checkpoint needs is missing.
    #[error(
        "{file} is missing; a model directory holds config.json, model.safetensors (or model.safetensors.index.json and its shards) and tokenizer.json"
    )]
    MissingFile {
        /// The missing file.
        file: String,
    },
    /// The model lies elsewhere and cannot be had; what brings it here says why and what to do.
    #[error(transparent)]
    Source(Box<dyn std::error::Error + Send + Sync>),
    /// A file could not be read.
    #[error("reading {file} failed: {error}")]
    Io {
        /// The file.
        file: String,
        /// What the system said.
        #[source]
        error: std::io::Error,
    },
    /// A file is not what its name says, or breaks a bound.
    #[error("{file} is damaged or not supported: {reason}; fetch the file again or use another checkpoint")]
    BadFile {
        /// The file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A safetensors file ends before its tensors do.
    #[error("{file} is cut short: tensor {tensor} ends at byte {needed}, the file at {found}; fetch the file again")]
    Truncated {
        /// The file.
        file: String,
        /// The first tensor that does not lie in the file.
        tensor: String,
        /// Where the tensor ends, in bytes from the start of the file.
        needed: u64,
        /// The file's length in bytes.
        found: u64,
    },
    /// No file of the checkpoint holds the tensor.
    #[error("the checkpoint lacks tensor {tensor}; it is incomplete or of another architecture")]
    MissingTensor {
        /// The tensor's name.
        tensor: String,
    },
    /// The checkpoint holds more than the architecture has.
    #[error(
        "tensor {tensor} is in the checkpoint, but {architecture} has none of that name: the model is of another kind than config.json says, or of one that is not supported"
    )]
    UnknownTensor {
        /// The tensor's name.
        tensor: String,
        /// What config.json says the model is.
        architecture: String,
    },
    /// A tensor's shape contradicts config.json.
    #[error(
        "tensor {tensor} has shape {found:?}, but config.json asks for {expected:?}; config.json and weights belong to different models"
    )]
    WrongShape {
        /// The tensor's name.
        tensor: String,
        /// What the configuration asks for.
        expected: Vec<usize>,
        /// What the file says.
        found: Vec<usize>,
    },
    /// A tensor's element type is not supported.
    #[error("tensor {tensor} is stored as {found}; supported are floats, and quantised weights in GGUF files")]
    WrongType {
        /// The tensor's name.
        tensor: String,
        /// The type in the file.
        found: String,
    },
    /// Weights as a GGUF file stores them were asked of another checkpoint.
    #[error("{name} is no GGUF file, so there is no --format gguf of it; leave --format out for its own, {native}")]
    NoGguf {
        /// The model.
        name: String,
        /// What it is stored in.
        native: WeightFormat,
    },
    /// The architecture is not supported.
    #[error("the architecture {found} is not supported; supported are {supported}")]
    UnknownArchitecture {
        /// What config.json says.
        found: String,
        /// What is.
        supported: String,
    },
    /// A key of config.json is missing, out of bounds or not supported.
    #[error("config.json: {key} {reason}")]
    BadConfig {
        /// The key.
        key: String,
        /// What is wrong with its value.
        reason: String,
    },
    /// The model has no such blocks.
    #[error(
        "the model has blocks 0..{blocks}; {range} is not among them; choose --block-range within these, or --blocks N"
    )]
    RangePastModel {
        /// What was asked for.
        range: BlockRange,
        /// How many blocks the model has.
        blocks: u32,
    },
    /// The blocks are not hosted here.
    #[error("blocks {asked} were asked for, but {hosted} are loaded")]
    RangeNotLoaded {
        /// What was asked for.
        asked: BlockRange,
        /// What is loaded.
        hosted: BlockRange,
    },
    /// A KV cache was made for other blocks or another model.
    #[error("the KV cache holds {cache}, but needed is {asked}")]
    WrongCache {
        /// What the cache was made for.
        cache: String,
        /// What the step needs.
        asked: String,
    },
    /// The sequence would outgrow its KV cache.
    #[error("the sequence would need {needed} positions, but its KV cache is reserved for {max_tokens}")]
    CacheFull {
        /// Positions after the step.
        needed: usize,
        /// Positions reserved.
        max_tokens: usize,
    },
    /// The KV caches of a server would outgrow its memory for them.
    #[error(
        "{wanted} bytes more of KV cache were asked for, but {used} of {budget} are in use; wait for room, or open elsewhere"
    )]
    KvBudget {
        /// Bytes asked for.
        wanted: u64,
        /// Bytes of all pages alive.
        used: u64,
        /// The most bytes that pages may have.
        budget: u64,
    },
    /// Keys and values of positions were asked for that the KV cache does not hold.
    #[error("positions {}..{} were asked for, but the KV cache holds 0..{len}", .asked.start, .asked.end)]
    PositionsNotHeld {
        /// What was asked for.
        asked: Range<usize>,
        /// Positions held.
        len: usize,
    },
    /// Keys and values do not follow those a KV cache holds.
    #[error("the keys and values start at position {position}, but the KV cache goes on at {len}")]
    WrongPosition {
        /// The first position brought.
        position: usize,
        /// Positions held.
        len: usize,
    },
    /// Raw keys and values are empty or break off within a position.
    #[error("{found} bytes of keys and values were brought; expected one or more positions of {per_position} bytes")]
    WrongKvBytes {
        /// Bytes given.
        found: usize,
        /// Bytes of one position in all blocks of the KV cache.
        per_position: usize,
    },
    /// The input of a step has the wrong shape or type.
    #[error("the step's input is {found}; expected {expected}")]
    BadInput {
        /// What was given.
        found: String,
        /// What the step needs.
        expected: String,
    },
    /// A token id the model does not know.
    #[error("token id {id} does not exist; the vocabulary ends at {vocab}")]
    TokenOutOfRange {
        /// The id.
        id: u32,
        /// The number of ids.
        vocab: usize,
    },
    /// A sampling option is out of its bounds.
    #[error("{option} is {found}; it must be {expected}")]
    BadSampling {
        /// The option.
        option: &'static str,
        /// Its value.
        found: String,
        /// Its bounds.
        expected: &'static str,
    },
    /// A constraint cannot be used.
    #[error("{what} cannot be used: {reason}")]
    BadConstraint {
        /// What kind of constraint it is.
        what: &'static str,
        /// What is wrong with it, and where.
        reason: String,
    },
    /// A constraint that became too complex on the way, or does not fit the text.
    #[error("the constraint cannot be followed any further: {0}; make it simpler")]
    ConstraintFailed(String),
    /// Constraints cannot be used with this vocabulary.
    #[error("this model's texts cannot be constrained: {0}")]
    NoConstraints(String),
    /// A constraint leaves no token to choose.
    #[error("the constraint allows no token here; it asks for what the vocabulary cannot write")]
    NothingAllowed,
    /// The tokenizer failed.
    #[error("the tokenizer failed: {0}")]
    Tokenizer(String),
    /// The chat template failed.
    #[error("the model's chat template failed: {0}")]
    ChatTemplate(String),
    /// The checkpoint is written in another format than this name says.
    #[error("the raw bytes are {found} long; {rows} rows of {width} in {format} are {expected} bytes")]
    WrongByteCount {
        /// Bytes given.
        found: usize,
        /// Bytes needed.
        expected: usize,
        /// Rows expected.
        rows: usize,
        /// Elements in a row.
        width: usize,
        /// The element format.
        format: WeightFormat,
    },
    /// The text names no device.
    #[error("\"{0}\" names no device; give auto, cpu, cuda:0 (or another number) or metal")]
    BadDevice(String),
    /// The device is of a kind that this program was built without.
    #[error(
        "this program was built without {device}; build it with `cargo build --release -p swarm-node --features {feature}`, or use --device cpu"
    )]
    DeviceNotCompiled {
        /// The device asked for.
        device: String,
        /// The cargo feature that brings it.
        feature: &'static str,
    },
    /// Keys and values in 8 bits on an accelerator.
    #[error("keys and values in 8 bits are for --device cpu; on an accelerator use --kv-bits 16")]
    KvFormatOfDevice,
    /// The device is not there or does not answer.
    #[error(
        "{device} cannot be used: {reason}; check the driver and that no other program fills it, or use --device cpu"
    )]
    DeviceUnavailable {
        /// The device asked for.
        device: String,
        /// What its driver said.
        reason: String,
    },
    /// The compute threads could not be started.
    #[error("the compute threads could not be started: {0}")]
    Pool(String),
    /// A tensor operation failed: a bug of ours, or memory ran out.
    #[error("a tensor operation failed: {0}")]
    Tensor(#[from] candle_core::Error),
}

impl ModelError {
    pub(crate) fn config(key: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::BadConfig { key: key.into(), reason: reason.into() }
    }

    pub(crate) fn file(file: impl Into<String>, reason: impl ToString) -> Self {
        Self::BadFile { file: file.into(), reason: reason.to_string() }
    }

    pub(crate) fn io(file: impl Into<String>, error: std::io::Error) -> Self {
        let file = file.into();
        match error.kind() {
            std::io::ErrorKind::NotFound => Self::MissingFile { file },
            _ => Self::Io { file, error },
        }
    }
}
