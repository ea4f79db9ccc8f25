//! candle-transformers' quantised Llama, which takes one sequence at a time and reads its weights from a GGUF file.

use std::collections::HashMap;
use std::io::{BufReader, BufWriter, Seek};
use std::path::Path;

use anyhow::{Context, Result};
use candle_core::quantized::gguf_file::{self, Content, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Tensor};
use candle_transformers::models::quantized_llama::ModelWeights;
use swarm_model::ModelConfig;
use swarm_protocol::model_id::WeightFormat;

use super::workloads::Workload;

/// The tensors of a model and of each of its blocks: their names in checkpoints and in GGUF files, and whether they are quantised.
const OF_MODEL: [(&str, &str, bool); 2] =
    [("model.embed_tokens", "token_embd", false), ("model.norm", "output_norm", false)];
const OF_BLOCK: [(&str, &str, bool); 9] = [
    ("self_attn.q_proj", "attn_q", true),
    ("self_attn.k_proj", "attn_k", true),
    ("self_attn.v_proj", "attn_v", true),
    ("self_attn.o_proj", "attn_output", true),
    ("mlp.gate_proj", "ffn_gate", true),
    ("mlp.up_proj", "ffn_up", true),
    ("mlp.down_proj", "ffn_down", true),
    ("input_layernorm", "attn_norm", false),
    ("post_attention_layernorm", "ffn_norm", false),
];

/// A whole model; its head has next to no vocabulary and costs nothing to speak of.
pub(crate) struct CandleQuantised {
    model: ModelWeights,
}

/// The sequence at the position where the measured call begins.
pub(crate) struct Prepared {
    model: ModelWeights,
    ids: Tensor,
    past: usize,
}

impl CandleQuantised {
    /// Quantises the checkpoint's weights; `None` for formats that are not quantised.
    ///
    /// # Errors
    /// If the checkpoint cannot be read, or there is no room for the file.
    pub(crate) fn load(weights: &Path, config: &ModelConfig, format: WeightFormat) -> Result<Option<Self>> {
        let quantised = match format {
            WeightFormat::F32 | WeightFormat::F16 | WeightFormat::Bf16 | WeightFormat::Gguf => return Ok(None),
            WeightFormat::Q8_0 => GgmlDType::Q8_0,
            WeightFormat::Q4_0 => GgmlDType::Q4_0,
            WeightFormat::Q4K => GgmlDType::Q4K,
        };
        let tensors = quantise(&candle_core::safetensors::load(weights, &Device::Cpu)?, config.blocks, quantised)?;
        let mut file = tempfile::tempfile()?;
        let metadata = metadata(config);
        let metadata: Vec<_> = metadata.iter().map(|(key, value)| (*key, value)).collect();
        let named: Vec<_> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        gguf_file::write(&mut BufWriter::new(&mut file), &metadata, &named)?;
        drop(tensors);
        file.rewind()?;
        let mut reader = BufReader::new(file);
        let content = Content::read(&mut reader)?;
        Ok(Some(Self { model: ModelWeights::from_gguf(content, &mut reader, &Device::Cpu)? }))
    }

    /// `None` if it takes more sequences, or a long prompt, which it computes row by row.
    ///
    /// # Errors
    /// candle's.
    pub(crate) fn prepare(&self, workload: &Workload) -> Result<Option<Prepared>> {
        if workload.all_rows() != 1 {
            return Ok(None);
        }
        // A clone shares the weights, and has keys and values of its own.
        let mut model = self.model.clone();
        model.forward(&Tensor::zeros((1, workload.past), DType::U32, &Device::Cpu)?, 0)?;
        let ids = Tensor::zeros((1, 1), DType::U32, &Device::Cpu)?;
        Ok(Some(Prepared { model, ids, past: workload.past }))
    }
}

impl Prepared {
    /// A step from the prepared position; a fresh copy of keys and values grows by it.
    pub(crate) fn run(&self) -> Result<Tensor> {
        Ok(self.model.clone().forward(&self.ids, self.past)?)
    }
}

fn metadata(config: &ModelConfig) -> Vec<(&'static str, Value)> {
    vec![
        ("general.architecture", Value::String("llama".to_string())),
        ("llama.attention.head_count", Value::U32(config.heads as u32)),
        ("llama.attention.head_count_kv", Value::U32(config.kv_heads as u32)),
        ("llama.block_count", Value::U32(config.blocks)),
        ("llama.embedding_length", Value::U32(config.hidden as u32)),
        ("llama.rope.dimension_count", Value::U32(config.head_dim as u32)),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(config.rms_eps as f32)),
        ("llama.rope.freq_base", Value::F32(config.rope.theta)),
    ]
}

fn quantise(tensors: &HashMap<String, Tensor>, blocks: u32, to: GgmlDType) -> Result<Vec<(String, QTensor)>> {
    let one = |from: String, name: String, quantised: bool| {
        let tensor = tensors.get(&from).with_context(|| format!("the checkpoint has no {from}"))?;
        let to = if quantised { to } else { GgmlDType::F32 };
        Ok((name, QTensor::quantize(&tensor.to_dtype(DType::F32)?, to)?))
    };
    let of_model =
        OF_MODEL.map(|(from, name, quantised)| (format!("{from}.weight"), format!("{name}.weight"), quantised));
    let of_block = (0..blocks).flat_map(|block| {
        OF_BLOCK.map(|(from, name, quantised)| {
            (format!("model.layers.{block}.{from}.weight"), format!("blk.{block}.{name}.weight"), quantised)
        })
    });
    of_model.into_iter().chain(of_block).map(|(from, name, quantised)| one(from, name, quantised)).collect()
}

#[cfg(test)]
mod tests {
    use swarm_model::synthetic::SyntheticSpec;
    use swarm_model::{Checkpoint, ModelSpec};

    use super::*;
    use crate::compute::workloads::{EIGHT_ROWS, ONE_ROW};

    #[test]
    fn a_quantised_copy_of_a_checkpoint_computes_one_row_at_a_time() -> Result<()> {
        let directory = tempfile::tempdir()?;
        SyntheticSpec {
            hidden: 256,
            intermediate: 256,
            blocks: 2,
            heads: 4,
            head_dim: 64,
            vocab: 64,
            ..SyntheticSpec::default()
        }
        .write(directory.path())?;
        let checkpoint = Checkpoint::open(&ModelSpec::Directory(directory.path().into()))?;
        let weights = directory.path().join("model.safetensors");
        for format in [WeightFormat::Q8_0, WeightFormat::Q4_0, WeightFormat::Q4K] {
            let model = CandleQuantised::load(&weights, checkpoint.config(), format)?.context("a quantised format")?;
            assert!(model.prepare(&EIGHT_ROWS)?.is_none());
            let prepared = model.prepare(&ONE_ROW)?.context("one row")?;
            let (one, again) = (prepared.run()?.flatten_all()?.to_vec1::<f32>()?, prepared.run()?);
            assert_eq!(one, again.flatten_all()?.to_vec1::<f32>()?, "{format}");
            assert!(one.iter().all(|value| value.is_finite()));
        }
        assert!(CandleQuantised::load(&weights, checkpoint.config(), WeightFormat::Bf16)?.is_none(), "dense");
        Ok(())
    }
}
