//! Random checkpoints of any size, for tests and benchmarks: they compute at full speed and say nothing sensible.

mod gguf;
mod gguf_config;
mod gguf_file;
mod gguf_names;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use half::{bf16, f16};
use serde_json::{Map, Value, json};
use swarm_protocol::block::BlockIndex;
use swarm_protocol::model_id::WeightFormat;
use swarm_protocol::wire::ElementType;

use crate::block_tensors::{BlockTensors, TensorShape};
use crate::config::ModelConfig;
use crate::error::ModelError;
use crate::families::Family;
use crate::kernels::Element;
use crate::rope::RopeScaling;
use crate::source::demo_tokenizer_files;
use crate::tensors::{INDEX, SINGLE};

pub use gguf::{GgufTypes, gguf_of, write_gguf};
pub use gguf_file::{GgufFile, GgufTensor, GgufValue};

/// The shape of a random checkpoint.
#[derive(Debug, Clone)]
pub struct SyntheticSpec {
    /// Its family.
    pub family: Family,
    /// Width of the activations.
    pub hidden: usize,
    /// Width inside the feed-forward part.
    pub intermediate: usize,
    /// Number of blocks.
    pub blocks: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Token ids; below 1024, the tokenizer (the demo model's) knows ids the model does not.
    pub vocab: usize,
    /// `max_position_embeddings`.
    pub max_positions: usize,
    /// Stored type; of a quantised format, that of its activations.
    pub dtype: WeightFormat,
    /// Seed of the weights.
    pub seed: u64,
    /// Whether the head is the embedding.
    pub tied: bool,
    /// Base of the rotary embedding.
    pub rope_theta: f32,
    /// Scaling of the rotary embedding.
    pub rope_scaling: RopeScaling,
    /// Whether all projections have biases, in a family that leaves it to `config.json`.
    pub biases: bool,
    /// Keys of `config.json` besides those above, or in their place.
    pub keys: Vec<(&'static str, Value)>,
    /// Number of safetensors files; above 1 there is an index.
    pub shards: usize,
}

impl Default for SyntheticSpec {
    /// A model of a few hundred thousand weights with grouped-query attention, tied, in one bf16 file.
    fn default() -> Self {
        Self {
            family: Family::Llama,
            hidden: 64,
            intermediate: 176,
            blocks: 4,
            heads: 4,
            kv_heads: 2,
            head_dim: 16,
            vocab: 1024,
            max_positions: 2048,
            dtype: WeightFormat::Bf16,
            seed: 1,
            tied: true,
            rope_theta: 10_000.0,
            rope_scaling: RopeScaling::Default,
            biases: false,
            keys: Vec::new(),
            shards: 1,
        }
    }
}

impl SyntheticSpec {
    /// A small model of any family with all that distinguishes it; windows are short, experts are few.
    pub fn of(family: Family) -> Self {
        let plain = Self { family, tied: false, ..Self::default() };
        let window = ("sliding_window", json!(24));
        let keys = match family {
            Family::Llama => vec![],
            Family::Mistral => vec![window],
            Family::Mixtral => vec![window, ("num_local_experts", json!(6)), ("num_experts_per_tok", json!(2))],
            Family::Qwen2 | Family::Qwen3 => {
                vec![window, ("use_sliding_window", json!(true)), ("max_window_layers", json!(2))]
            }
            Family::Qwen3Moe => vec![
                ("num_experts", json!(8)),
                ("num_experts_per_tok", json!(3)),
                ("moe_intermediate_size", json!(48)),
                ("norm_topk_prob", json!(true)),
                ("mlp_only_layers", json!([1])),
            ],
            Family::Gemma2 | Family::Gemma3 => vec![window, ("query_pre_attn_scalar", json!(24))],
            Family::Phi3 => vec![window, ("partial_rotary_factor", json!(0.75))],
            Family::GptOss => vec![window, ("num_local_experts", json!(5)), ("num_experts_per_tok", json!(2))],
        };
        let tied = matches!(family, Family::Gemma2 | Family::Gemma3);
        Self { keys, tied, ..plain }
    }

    /// The same with one more key in `config.json`, or another value for it.
    pub fn with(mut self, key: &'static str, value: Value) -> Self {
        self.keys.push((key, value));
        self
    }
}

/// A tensor to write: its values are uniform around `centre`, at most `spread` away.
struct Planned {
    name: String,
    shape: Vec<usize>,
    centre: f32,
    spread: f32,
}

impl Planned {
    fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// A matrix that keeps the variance of what it multiplies.
    fn matrix(name: String, out: usize, inner: usize) -> Self {
        Self { name, shape: vec![out, inner], centre: 0.0, spread: (3.0 / inner as f32).sqrt() }
    }

    fn vector(name: String, width: usize, centre: f32) -> Self {
        Self { name, shape: vec![width], centre, spread: 0.1 }
    }
}

impl SyntheticSpec {
    /// Writes `config.json`, the weights and the demo model's tokenizer files to the existing directory `directory`.
    ///
    /// # Errors
    /// [`ModelError::Io`] if a file cannot be written.
    /// What [`ModelConfig::parse`] says where the family does not know such a model.
    pub fn write(&self, directory: &Path) -> Result<(), ModelError> {
        let config = serde_json::to_vec_pretty(&self.config_json()).map_err(json_failed)?;
        write_file(directory, "config.json", &config)?;
        demo_tokenizer_files().try_for_each(|(name, bytes)| write_file(directory, name, bytes))?;
        let tensors = self.tensors()?;
        if self.shards <= 1 {
            return self.write_tensors(directory, SINGLE, &tensors);
        }
        let mut map = Map::new();
        for (index, part) in tensors.chunks(tensors.len().div_ceil(self.shards)).enumerate() {
            let name = format!("model-{:05}-of-{:05}.safetensors", index + 1, self.shards);
            self.write_tensors(directory, &name, part)?;
            map.extend(part.iter().map(|tensor| (tensor.name.clone(), json!(name))));
        }
        let index = json!({"metadata": {}, "weight_map": map}).to_string();
        write_file(directory, INDEX, index.as_bytes())
    }

    /// The number of weights written; none where the family does not know such a model.
    pub fn parameters(&self) -> usize {
        self.tensors().map_or(0, |tensors| tensors.iter().map(Planned::elements).sum())
    }

    fn element(&self) -> ElementType {
        self.dtype.into()
    }

    fn config_json(&self) -> Value {
        let mut config = json!({
            "architectures": [self.family.architecture()],
            "model_type": self.family.model_type(),
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.blocks,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "vocab_size": self.vocab,
            "max_position_embeddings": self.max_positions,
            "rms_norm_eps": 1e-5,
            "rope_theta": self.rope_theta,
            "rope_scaling": scaling_json(&self.rope_scaling),
            "tie_word_embeddings": self.tied,
            "bos_token_id": 0,
            "eos_token_id": [1, 4],
        });
        match self.family {
            Family::Llama => {
                config["hidden_act"] = json!("silu");
                config["attention_bias"] = json!(self.biases);
                config["mlp_bias"] = json!(self.biases);
            }
            Family::Qwen3 | Family::Qwen3Moe | Family::Gemma2 | Family::Gemma3 => {
                config["attention_bias"] = json!(self.biases);
            }
            _ => {}
        }
        for (key, value) in &self.keys {
            config[*key] = value.clone();
        }
        config
    }

    fn tensors(&self) -> Result<Vec<Planned>, ModelError> {
        let config = ModelConfig::parse(self.config_json().to_string().as_bytes())?;
        let table = |name: &str| Planned::matrix(name.into(), self.vocab, self.hidden);
        let norm = 1.0 - config.norm_offset;
        let mut tensors = vec![table("model.embed_tokens.weight")];
        for block in 0..config.blocks {
            block_tensors(&BlockTensors::new(&config, BlockIndex(block)), norm, &mut tensors);
        }
        tensors.push(Planned::vector("model.norm.weight".into(), self.hidden, norm));
        if !self.tied {
            tensors.push(table("lm_head.weight"));
        }
        Ok(tensors)
    }

    fn write_tensors(&self, directory: &Path, name: &str, tensors: &[Planned]) -> Result<(), ModelError> {
        let path = directory.join(name);
        let io = |error| ModelError::io(path.display().to_string(), error);
        let mut file = BufWriter::with_capacity(1 << 20, File::create(&path).map_err(io)?);
        let header = self.header(tensors);
        file.write_all(&(header.len() as u64).to_le_bytes()).map_err(io)?;
        file.write_all(header.as_bytes()).map_err(io)?;
        for tensor in tensors {
            match self.element() {
                ElementType::F32 => write_values::<f32>(&mut file, tensor, self.seed),
                ElementType::F16 => write_values::<f16>(&mut file, tensor, self.seed),
                ElementType::Bf16 => write_values::<bf16>(&mut file, tensor, self.seed),
            }
            .map_err(io)?;
        }
        file.flush().map_err(io)
    }

    fn header(&self, tensors: &[Planned]) -> String {
        let mut header = Map::new();
        let mut start = 0;
        for tensor in tensors {
            let end = start + tensor.elements() * self.element().bytes();
            let dtype = WeightFormat::from(self.element()).name().to_uppercase();
            let entry = json!({"dtype": dtype, "shape": tensor.shape, "data_offsets": [start, end]});
            header.insert(tensor.name.clone(), entry);
            start = end;
        }
        let mut text = Value::Object(header).to_string();
        // The data starts at a multiple of 8 bytes, as the format asks.
        text.push_str(&" ".repeat(text.len().next_multiple_of(8) - text.len()));
        text
    }
}

/// The tensors of a block as its family's checkpoints store them; `norm` is a norm's weight that changes nothing.
fn block_tensors(block: &BlockTensors<'_>, norm: f32, tensors: &mut Vec<Planned>) {
    let fused = block.fused();
    let is_part = |tensor: &TensorShape| fused.iter().any(|(_, parts)| parts.contains(tensor));
    for tensor in block.all().into_iter().filter(|tensor| !is_part(tensor)) {
        let centre = if tensor.name.contains("norm") { norm } else { 0.0 };
        tensors.push(match tensor.shape[..] {
            [out, inner] => Planned::matrix(tensor.name, out, inner),
            _ => Planned::vector(tensor.name.clone(), tensor.width(), centre),
        });
    }
    for (name, parts) in fused {
        let rows = parts.iter().map(TensorShape::width).sum();
        let inner = parts.first().map_or(0, |part| part.matrix().1);
        tensors.push(Planned::matrix(name, rows, inner));
    }
}

/// Elements drawn and written at a time.
const CHUNK: usize = 1 << 12;

fn write_values<E: Element>(file: &mut impl Write, tensor: &Planned, seed: u64) -> std::io::Result<()> {
    let name = blake3::hash(tensor.name.as_bytes());
    let mut state = name.as_bytes().iter().fold(seed, |state, byte| mix(state ^ u64::from(*byte)));
    let (centre, step) = (tensor.centre, tensor.spread / f32::from(i16::MAX));
    let mut values = [E::zeroed(); CHUNK];
    let mut left = tensor.elements();
    while left > 0 {
        let count = left.min(CHUNK);
        for four in values[..count].chunks_mut(4) {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let bits = mix(state);
            for (lane, value) in four.iter_mut().enumerate() {
                *value = E::round(centre + f32::from((bits >> (16 * lane)) as i16) * step);
            }
        }
        file.write_all(bytemuck::cast_slice(&values[..count]))?;
        left -= count;
    }
    Ok(())
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood 2014).
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

fn scaling_json(scaling: &RopeScaling) -> Value {
    match scaling {
        RopeScaling::Default => Value::Null,
        RopeScaling::Yarn { factor, beta_fast, beta_slow, truncate, original_positions, magnitude } => json!({
            "rope_type": "yarn",
            "factor": factor,
            "beta_fast": beta_fast,
            "beta_slow": beta_slow,
            "truncate": truncate,
            "original_max_position_embeddings": original_positions,
            "attention_factor": magnitude,
        }),
        RopeScaling::Long { factors, magnitude } => json!({
            "rope_type": "longrope",
            "short_factor": factors,
            "long_factor": factors,
            "attention_factor": magnitude,
        }),
        RopeScaling::Linear { factor } => json!({"rope_type": "linear", "factor": factor}),
        RopeScaling::Llama3 { factor, low_frequency_factor, high_frequency_factor, original_positions } => json!({
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": low_frequency_factor,
            "high_freq_factor": high_frequency_factor,
            "original_max_position_embeddings": original_positions,
        }),
    }
}

fn write_file(directory: &Path, name: &str, bytes: &[u8]) -> Result<(), ModelError> {
    let path = directory.join(name);
    std::fs::write(&path, bytes).map_err(|error| ModelError::io(path.display().to_string(), error))
}

fn json_failed(error: serde_json::Error) -> ModelError {
    ModelError::file("config.json", error)
}
