//! What the tests of this crate share.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

pub mod families;

use candle_transformers::models::llama as reference;
use swarm_model::synthetic::SyntheticSpec;
use swarm_model::{Blocks, Checkpoint, ComputeDevice, DType, Device, Edges, KvCache, ModelConfig, ModelSpec};
use swarm_model::{RopeScaling, Sequence, Tensor, activations};
use swarm_protocol::block::BlockRange;
use swarm_protocol::model_id::WeightFormat;

pub fn range(start: u32, end: u32) -> BlockRange {
    BlockRange::new(start, end).unwrap()
}

/// A whole model in this process: all blocks and the edges.
pub struct Whole {
    pub blocks: Blocks,
    pub edges: Edges,
}

impl Whole {
    pub fn load(checkpoint: &Checkpoint, format: WeightFormat) -> Self {
        Self::load_on(&ComputeDevice::cpu(), checkpoint, format)
    }

    pub fn load_on(device: &ComputeDevice, checkpoint: &Checkpoint, format: WeightFormat) -> Self {
        let all = checkpoint.config().all_blocks().unwrap();
        Self {
            blocks: checkpoint.load_blocks_on(device, all, format, &mut |_| ()).unwrap(),
            edges: checkpoint.load_edges(format).unwrap(),
        }
    }

    pub fn demo(format: WeightFormat) -> Self {
        Self::load(&Checkpoint::open(&ModelSpec::Demo).unwrap(), format)
    }

    /// One cache for each part of the model.
    pub fn caches(&self, cut: &[BlockRange]) -> Vec<KvCache> {
        cut.iter().map(|part| self.blocks.new_cache(*part, 512).unwrap()).collect()
    }

    /// The final hidden state of `ids`, through the parts of `cut` one after the other; rows travel as bytes.
    pub fn step(&self, cut: &[BlockRange], caches: &mut [KvCache], ids: &[u32]) -> Tensor {
        let mut hidden = self.edges.embed(ids).unwrap();
        for (part, cache) in cut.iter().zip(caches) {
            let bytes = activations::to_bytes(&hidden).unwrap();
            let width = self.edges.config().hidden;
            let input = activations::from_bytes(self.blocks.format(), ids.len(), width, &bytes).unwrap();
            let rows = ids.len();
            hidden = self.blocks.forward(*part, &input, &mut [Sequence { cache, rows }]).unwrap();
        }
        hidden
    }

    /// The final hidden state of `ids` at once through uncut blocks.
    pub fn prefill(&self, ids: &[u32]) -> Tensor {
        let cut = [self.blocks.range()];
        self.step(&cut, &mut self.caches(&cut), ids)
    }

    pub fn logits(&self, hidden: &Tensor) -> Vec<Vec<f32>> {
        self.edges.logits(hidden).unwrap().to_vec2().unwrap()
    }

    pub fn greedy(&self, prompt: &[u32], count: usize) -> Vec<u32> {
        let cut = [self.blocks.range()];
        let mut caches = self.caches(&cut);
        let mut hidden = self.step(&cut, &mut caches, prompt);
        let mut ids = Vec::new();
        while ids.len() < count {
            ids.push(argmax(self.logits(&hidden).last().unwrap()));
            hidden = self.step(&cut, &mut caches, &ids[ids.len() - 1..]);
        }
        ids
    }
}

pub fn argmax(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.unwrap().0 as u32
}

pub fn bits(tensor: &Tensor) -> Vec<u8> {
    activations::to_bytes(tensor).unwrap()
}

pub fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// The same checkpoint in candle-transformers, f32.
pub struct Reference {
    model: reference::Llama,
    config: reference::Config,
}

impl Reference {
    /// From safetensors files already in memory.
    pub fn new(config: &ModelConfig, files: &[Vec<u8>]) -> Self {
        let config = reference_config(config);
        let mut tensors = std::collections::HashMap::new();
        for file in files {
            let loaded = candle_core::safetensors::load_buffer(file, &Device::Cpu).unwrap();
            tensors.extend(loaded.into_iter().map(|(name, t)| (name, t.to_dtype(DType::F32).unwrap())));
        }
        let vars = candle_nn::VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
        let model = reference::Llama::load(vars, &config).unwrap();
        Self { model, config }
    }

    pub fn demo() -> Self {
        let config = Checkpoint::open(&ModelSpec::Demo).unwrap().config().clone();
        Self::new(&config, &[include_bytes!("../../demo/model.safetensors").to_vec()])
    }

    pub fn cache(&self) -> reference::Cache {
        reference::Cache::new(true, DType::F32, &self.config, &Device::Cpu).unwrap()
    }

    /// The logits of the last of `ids`.
    pub fn step(&self, cache: &mut reference::Cache, position: usize, ids: &[u32]) -> Vec<f32> {
        let input = Tensor::new(ids, &Device::Cpu).unwrap().unsqueeze(0).unwrap();
        let logits = self.model.forward(&input, position, cache).unwrap();
        logits.flatten_all().unwrap().to_vec1().unwrap()
    }

    pub fn greedy(&self, prompt: &[u32], count: usize) -> Vec<u32> {
        let mut cache = self.cache();
        let mut logits = self.step(&mut cache, 0, prompt);
        let mut ids = Vec::new();
        while ids.len() < count {
            ids.push(argmax(&logits));
            logits = self.step(&mut cache, prompt.len() + ids.len() - 1, &ids[ids.len() - 1..]);
        }
        ids
    }
}

fn reference_config(config: &ModelConfig) -> reference::Config {
    let rope_scaling = match config.rope.scaling {
        RopeScaling::Llama3 { factor, low_frequency_factor, high_frequency_factor, original_positions } => {
            Some(reference::Llama3RopeConfig {
                factor,
                low_freq_factor: low_frequency_factor,
                high_freq_factor: high_frequency_factor,
                original_max_position_embeddings: original_positions as usize,
                rope_type: reference::Llama3RopeType::Llama3,
            })
        }
        _ => None,
    };
    reference::Config {
        hidden_size: config.hidden,
        intermediate_size: config.intermediate,
        vocab_size: config.vocab,
        num_hidden_layers: config.blocks as usize,
        num_attention_heads: config.heads,
        num_key_value_heads: config.kv_heads,
        use_flash_attn: false,
        rms_norm_eps: config.rms_eps,
        rope_theta: config.rope.theta,
        bos_token_id: None,
        eos_token_id: None,
        rope_scaling,
        max_position_embeddings: config.max_positions,
        tie_word_embeddings: config.tied,
    }
}

/// A random checkpoint in a directory that goes away with the value.
pub fn synthetic(spec: &SyntheticSpec) -> (tempfile::TempDir, Checkpoint) {
    let directory = tempfile::tempdir().unwrap();
    spec.write(directory.path()).unwrap();
    let checkpoint = open(directory.path()).unwrap();
    (directory, checkpoint)
}

pub fn open(directory: &std::path::Path) -> Result<Checkpoint, swarm_model::ModelError> {
    Checkpoint::open(&ModelSpec::Directory(directory.to_path_buf()))
}

pub fn safetensors_files(directory: &std::path::Path) -> Vec<Vec<u8>> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let weights = entries.filter(|path| path.extension().is_some_and(|end| end == "safetensors"));
    weights.map(|path| std::fs::read(path).unwrap()).collect()
}
