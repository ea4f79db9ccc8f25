//! Random checkpoints of any size, for tests and benchmarks: they compute at full speed and say nothing sensible.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use half::{bf16, f16};
use serde_json::{Map, Value, json};
use swarm_protocol::model_id::WeightFormat;
use swarm_protocol::wire::ElementType;

use crate::error::ModelError;
use crate::kernels::Element;
use crate::rope::RopeScaling;
use crate::source::demo_tokenizer_files;
use crate::tensors::{INDEX, SINGLE};

/// The shape of a random checkpoint.
#[derive(Debug, Clone)]
pub struct SyntheticSpec {
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
    /// Whether all projections have biases.
    pub biases: bool,
    /// Number of safetensors files; above 1 there is an index.
    pub shards: usize,
}

impl Default for SyntheticSpec {
    /// A model of a few hundred thousand weights with grouped-query attention, tied, in one bf16 file.
    fn default() -> Self {
        Self {
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
            shards: 1,
        }
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
    pub fn write(&self, directory: &Path) -> Result<(), ModelError> {
        let config = serde_json::to_vec_pretty(&self.config_json()).map_err(json_failed)?;
        write_file(directory, "config.json", &config)?;
        demo_tokenizer_files().try_for_each(|(name, bytes)| write_file(directory, name, bytes))?;
        let tensors = self.tensors();
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

    /// The number of weights written.
    pub fn parameters(&self) -> usize {
        self.tensors().iter().map(Planned::elements).sum()
    }

    fn element(&self) -> ElementType {
        self.dtype.into()
    }

    fn config_json(&self) -> Value {
        json!({
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_act": "silu",
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
            "attention_bias": self.biases,
            "mlp_bias": self.biases,
            "bos_token_id": 0,
            "eos_token_id": [1, 4],
        })
    }

    fn tensors(&self) -> Vec<Planned> {
        let table = |name: &str| Planned::matrix(name.into(), self.vocab, self.hidden);
        let mut tensors = vec![table("model.embed_tokens.weight")];
        (0..self.blocks).for_each(|block| self.block_tensors(block, &mut tensors));
        tensors.push(Planned::vector("model.norm.weight".into(), self.hidden, 1.0));
        if !self.tied {
            tensors.push(table("lm_head.weight"));
        }
        tensors
    }

    fn block_tensors(&self, block: usize, tensors: &mut Vec<Planned>) {
        let (query, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let matrices = [
            ("self_attn.q_proj", query, self.hidden),
            ("self_attn.k_proj", kv, self.hidden),
            ("self_attn.v_proj", kv, self.hidden),
            ("self_attn.o_proj", self.hidden, query),
            ("mlp.gate_proj", self.intermediate, self.hidden),
            ("mlp.up_proj", self.intermediate, self.hidden),
            ("mlp.down_proj", self.hidden, self.intermediate),
        ];
        let name = |part: &str, kind: &str| format!("model.layers.{block}.{part}.{kind}");
        for (part, out, inner) in matrices {
            tensors.push(Planned::matrix(name(part, "weight"), out, inner));
            if self.biases {
                tensors.push(Planned::vector(name(part, "bias"), out, 0.0));
            }
        }
        for part in ["input_layernorm", "post_attention_layernorm"] {
            tensors.push(Planned::vector(name(part, "weight"), self.hidden, 1.0));
        }
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
