//! The demo model in candle-transformers: other people's arithmetic.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::llama;
use swarm_model::{Checkpoint, ModelSpec};

/// The demo model in candle-transformers, f32.
pub struct Reference {
    model: llama::Llama,
    config: llama::Config,
}

impl Reference {
    /// Loads it.
    pub fn demo() -> Self {
        let ours = Checkpoint::open(&ModelSpec::Demo).expect("the demo model").config().clone();
        let config = llama::Config {
            hidden_size: ours.hidden,
            intermediate_size: ours.intermediate,
            vocab_size: ours.vocab,
            num_hidden_layers: ours.blocks as usize,
            num_attention_heads: ours.heads,
            num_key_value_heads: ours.kv_heads,
            use_flash_attn: false,
            rms_norm_eps: ours.rms_eps,
            rope_theta: ours.rope.theta,
            bos_token_id: None,
            eos_token_id: None,
            rope_scaling: None,
            max_position_embeddings: ours.max_positions,
            tie_word_embeddings: ours.tied,
        };
        let file = include_bytes!("../../../model/demo/model.safetensors");
        let stored = candle_core::safetensors::load_buffer(file, &Device::Cpu).expect("its weights");
        let exact = |(name, tensor): (String, Tensor)| (name, tensor.to_dtype(DType::F32).expect("f32"));
        let tensors: HashMap<_, _> = stored.into_iter().map(exact).collect();
        let weights = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
        Self { model: llama::Llama::load(weights, &config).expect("its blocks"), config }
    }

    /// The logits of the last of `ids`.
    pub fn logits(&self, ids: &[u32]) -> Vec<f32> {
        let mut cache = llama::Cache::new(true, DType::F32, &self.config, &Device::Cpu).expect("a cache");
        let input = Tensor::new(ids, &Device::Cpu).and_then(|ids| ids.unsqueeze(0)).expect("its input");
        let logits = self.model.forward(&input, 0, &mut cache).and_then(|logits| logits.flatten_all());
        logits.and_then(|logits| logits.to_vec1()).expect("logits")
    }
}
