//! candle-transformers' Llama on the same weights: the plain way to compute what swarm-model computes.

use std::path::Path;

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::llama::{Cache, Config, Llama};
use swarm_model::ModelConfig;

use super::workloads::Workload;

/// A whole model; its head has next to no vocabulary and costs nothing to speak of.
pub(crate) struct Candle {
    model: Llama,
    config: Config,
    dtype: DType,
}

/// A workload's sequences, each at the position where the measured call begins.
pub(crate) struct Prepared {
    cache: Cache,
    past: usize,
    /// `(sequences, rows, hidden)`.
    input: Tensor,
}

impl Candle {
    pub(crate) fn load(weights: &Path, config: &ModelConfig, dtype: DType) -> Result<Self> {
        let tensors = candle_core::safetensors::load(weights, &Device::Cpu)?;
        let vars = VarBuilder::from_tensors(tensors, dtype, &Device::Cpu);
        let config = candle_config(config);
        Ok(Self { model: Llama::load(vars, &config)?, config, dtype })
    }

    /// `input` is `(sequences * rows, hidden)`, `past` what each sequence has before it.
    pub(crate) fn prepare(&self, workload: &Workload, past: &Tensor, input: &Tensor) -> Result<Prepared> {
        let Workload { sequences, rows, .. } = *workload;
        let mut cache = Cache::new(true, self.dtype, &self.config, &Device::Cpu)?;
        let hidden = self.config.hidden_size;
        if workload.past > 0 {
            let past = past.unsqueeze(0)?.expand((sequences, workload.past, hidden))?.contiguous()?;
            self.model.forward_input_embed(&past, 0, &mut cache)?;
        }
        Ok(Prepared { cache, past: workload.past, input: input.reshape((sequences, rows, hidden))? })
    }

    pub(crate) fn run(&self, prepared: &Prepared) -> Result<Tensor> {
        // Its cache cannot be rewound; a clone shares the tensors, which are never changed.
        let mut cache = prepared.cache.clone();
        Ok(self.model.forward_input_embed(&prepared.input, prepared.past, &mut cache)?)
    }
}

fn candle_config(config: &ModelConfig) -> Config {
    Config {
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
        rope_scaling: None,
        max_position_embeddings: config.max_positions,
        tie_word_embeddings: config.tied,
    }
}
