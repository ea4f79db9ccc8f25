//! A checkpoint on disk or in the binary: its headers read, its tensors on demand.

use std::fmt;

use blake3::Hasher;
use candle_core::Tensor;
use swarm_protocol::block::{BlockIndex, BlockRange};
use swarm_protocol::model_id::{BlockDigest, ModelId, WeightFormat};

use crate::block::Block;
use crate::blocks::Blocks;
use crate::chat::ChatTemplate;
use crate::config::ModelConfig;
use crate::edges::Edges;
use crate::error::ModelError;
use crate::generation::GenerationDefaults;
use crate::linear::Linear;
use crate::manifest::model_id;
use crate::source::Files;
use crate::spec::ModelSpec;
use crate::tensors::Tensors;
use crate::text::TextTokenizer;

/// The longest JSON file read beside the weights: large vocabularies have tokenizers of some 20 MiB.
const MAX_JSON: u64 = 256 << 20;

const EMBEDDING: &str = "model.embed_tokens.weight";
const FINAL_NORM: &str = "model.norm.weight";
const HEAD: &str = "lm_head.weight";

/// How far [`Checkpoint::load_blocks`] has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadProgress {
    /// The block being read.
    pub block: BlockIndex,
    /// Bytes read so far.
    pub bytes_done: u64,
    /// Bytes to read in all.
    pub bytes_total: u64,
}

/// A model whose headers are read; weights are read by [`Checkpoint::load_blocks`] and [`Checkpoint::load_edges`].
pub struct Checkpoint {
    name: String,
    files: Files,
    config: ModelConfig,
    tensors: Tensors,
    native: WeightFormat,
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpoint")
            .field("name", &self.name)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Checkpoint {
    /// Reads `config.json` and the headers of the safetensors files.
    ///
    /// # Errors
    /// [`ModelError`] if a file is missing, damaged or hostile, or the model is of a kind that is not supported.
    pub fn open(spec: &ModelSpec) -> Result<Self, ModelError> {
        let files = match spec {
            ModelSpec::Demo => Files::Demo,
            ModelSpec::Directory(path) => Files::Directory(path.clone()),
            ModelSpec::Hub { .. } => return Err(unsupported("the Hugging Face model", spec)),
            ModelSpec::Gguf(_) => return Err(unsupported("the GGUF file", spec)),
        };
        let tensors = |files: &Files| Tensors::open(files);
        Self::open_files(name(spec), files, tensors)
    }

    pub(crate) fn open_files(
        name: String,
        files: Files,
        open: impl FnOnce(&Files) -> Result<Tensors, ModelError>,
    ) -> Result<Self, ModelError> {
        let config = ModelConfig::parse(&files.read("config.json", MAX_JSON)?)?;
        let tensors = open(&files)?;
        let native = tensors.format_of(&BlockNames::new(BlockIndex(0)).matrix("self_attn.q_proj"))?;
        Ok(Self {
            name,
            files,
            config,
            tensors,
            native,
        })
    }

    /// The model's configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The model's name for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The format the weights are stored in.
    pub fn native_format(&self) -> WeightFormat {
        self.native
    }

    /// What servers of this model in `format` share.
    pub fn id(&self, format: WeightFormat) -> ModelId {
        model_id(&self.config, format)
    }

    /// Reads blocks `range`, and nothing else, into memory as `format`.
    ///
    /// # Errors
    /// [`ModelError`] if the model has no such blocks, or a tensor is missing, damaged or of another shape.
    pub fn load_blocks(
        &self,
        range: BlockRange,
        format: WeightFormat,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Blocks, ModelError> {
        if range.end() > self.config.blocks {
            let blocks = self.config.blocks;
            return Err(ModelError::RangePastModel { range, blocks });
        }
        let stored = |block| -> u64 {
            let names = BlockNames::new(block);
            names.all(&self.config).iter().map(|name| self.tensors.stored_bytes(name)).sum()
        };
        let bytes_total = range.blocks().map(stored).sum();
        let mut bytes_done = 0;
        let (mut blocks, mut digests) = (Vec::new(), Vec::new());
        for block in range.blocks() {
            let loaded = BlockLoader::new(self, block, format).load()?;
            blocks.push(loaded.0);
            digests.push(loaded.1);
            bytes_done += stored(block);
            progress(LoadProgress {
                block,
                bytes_done,
                bytes_total,
            });
        }
        Blocks::new(self.config.clone(), range, format, blocks, digests)
    }

    /// Reads embedding, final norm and head into memory.
    ///
    /// # Errors
    /// [`ModelError`] if a tensor is missing, damaged or of another shape.
    pub fn load_edges(&self, format: WeightFormat) -> Result<Edges, ModelError> {
        let config = &self.config;
        let table = [config.vocab, config.hidden];
        let mut digest = Hasher::new();
        let embedding = self.tensors.load(EMBEDDING, &table, format, &mut digest)?;
        let norm = self.tensors.load(FINAL_NORM, &[config.hidden], WeightFormat::F32, &mut digest)?;
        let head = match config.tied {
            true => None,
            false => Some(self.tensors.load(HEAD, &table, format, &mut digest)?),
        };
        Ok(Edges::new(config.clone(), format, embedding, norm, head))
    }

    /// The model's tokenizer.
    ///
    /// # Errors
    /// [`ModelError`] if `tokenizer.json` is missing or damaged.
    pub fn tokenizer(&self) -> Result<TextTokenizer, ModelError> {
        TextTokenizer::parse(&self.files.read("tokenizer.json", MAX_JSON)?)
    }

    /// The model's chat template, if it has one: `chat_template.jinja`, or what `tokenizer_config.json` holds.
    ///
    /// # Errors
    /// [`ModelError`] if a file is damaged or the template does not parse.
    pub fn chat_template(&self) -> Result<Option<ChatTemplate>, ModelError> {
        let jinja = self.files.read_if_there("chat_template.jinja", MAX_JSON)?;
        let config = self.files.read_if_there("tokenizer_config.json", MAX_JSON)?;
        ChatTemplate::parse(jinja.as_deref(), config.as_deref())
    }

    /// What `generation_config.json` suggests, with `config.json` where it is silent.
    ///
    /// # Errors
    /// [`ModelError::BadFile`] if the file is damaged.
    pub fn generation_defaults(&self) -> Result<GenerationDefaults, ModelError> {
        let name = "generation_config.json";
        let json = self.files.read_if_there(name, MAX_JSON)?;
        GenerationDefaults::parse(json.as_deref(), &self.files.label(name), &self.config)
    }
}

fn unsupported(kind: &str, spec: &ModelSpec) -> ModelError {
    ModelError::UnsupportedSource {
        what: format!("{kind} {spec}"),
    }
}

fn name(spec: &ModelSpec) -> String {
    let file_name = match spec {
        ModelSpec::Directory(path) => path.canonicalize().ok().and_then(|path| {
            let name = path.file_name()?;
            Some(name.to_string_lossy().into_owned())
        }),
        _ => None,
    };
    file_name.unwrap_or_else(|| spec.to_string())
}

/// The projections of a block, and whether `attention_bias` or `mlp_bias` speaks of theirs.
const PROJECTIONS: [(&str, bool); 7] = [
    ("self_attn.q_proj", true),
    ("self_attn.k_proj", true),
    ("self_attn.v_proj", true),
    ("self_attn.o_proj", true),
    ("mlp.gate_proj", false),
    ("mlp.up_proj", false),
    ("mlp.down_proj", false),
];
const ATTENTION_NORM: &str = "input_layernorm";
const FEED_FORWARD_NORM: &str = "post_attention_layernorm";

/// The names of one block's tensors.
struct BlockNames {
    prefix: String,
}

impl BlockNames {
    fn new(block: BlockIndex) -> Self {
        let prefix = format!("model.layers.{block}.");
        Self { prefix }
    }

    fn matrix(&self, part: &str) -> String {
        format!("{}{part}.weight", self.prefix)
    }

    fn bias(&self, part: &str) -> String {
        format!("{}{part}.bias", self.prefix)
    }

    fn all(&self, config: &ModelConfig) -> Vec<String> {
        let norms = [ATTENTION_NORM, FEED_FORWARD_NORM].map(|part| self.matrix(part));
        let matrices = PROJECTIONS.iter().map(|(part, _)| self.matrix(part));
        let biased = PROJECTIONS.iter().filter(|(_, attention)| has_bias(config, *attention));
        let biases = biased.map(|(part, _)| self.bias(part));
        norms.into_iter().chain(matrices).chain(biases).collect()
    }
}

fn has_bias(config: &ModelConfig, attention: bool) -> bool {
    match attention {
        true => config.attention_bias,
        false => config.mlp_bias,
    }
}

/// Reads one block's tensors in a fixed order, which its digest follows.
struct BlockLoader<'a> {
    checkpoint: &'a Checkpoint,
    names: BlockNames,
    format: WeightFormat,
    digest: Hasher,
}

impl<'a> BlockLoader<'a> {
    fn new(checkpoint: &'a Checkpoint, block: BlockIndex, format: WeightFormat) -> Self {
        Self {
            checkpoint,
            names: BlockNames::new(block),
            format,
            digest: Hasher::new(),
        }
    }

    fn load(mut self) -> Result<(Block, BlockDigest), ModelError> {
        let config = &self.checkpoint.config;
        let (hidden, inter) = (config.hidden, config.intermediate);
        let (query, kv) = (config.query_width(), config.kv_width());
        let block = Block {
            attention_norm: self.norm(ATTENTION_NORM)?,
            query: self.linear(0, query, hidden)?,
            key: self.linear(1, kv, hidden)?,
            value: self.linear(2, kv, hidden)?,
            output: self.linear(3, hidden, query)?,
            feed_forward_norm: self.norm(FEED_FORWARD_NORM)?,
            gate: self.linear(4, inter, hidden)?,
            up: self.linear(5, inter, hidden)?,
            down: self.linear(6, hidden, inter)?,
        };
        Ok((block, BlockDigest(*self.digest.finalize().as_bytes())))
    }

    /// Norms stay f32 in every format: they are few, and rounding them would gain nothing.
    fn norm(&mut self, part: &str) -> Result<Tensor, ModelError> {
        let shape = [self.checkpoint.config.hidden];
        self.tensor(&self.names.matrix(part), &shape, WeightFormat::F32)
    }

    fn linear(&mut self, projection: usize, out: usize, inner: usize) -> Result<Linear, ModelError> {
        let (part, attention) = PROJECTIONS[projection];
        let weight = self.tensor(&self.names.matrix(part), &[out, inner], self.format)?;
        let bias = match has_bias(&self.checkpoint.config, attention) {
            true => Some(self.tensor(&self.names.bias(part), &[out], WeightFormat::F32)?),
            false => None,
        };
        Ok(Linear { weight, bias })
    }

    fn tensor(&mut self, name: &str, shape: &[usize], format: WeightFormat) -> Result<Tensor, ModelError> {
        self.checkpoint.tensors.load(name, shape, format, &mut self.digest)
    }
}
