//! gpt-oss (OpenAI 2025). Unlike a Llama: biases everywhere but in the head; every other block, the first among them, sees a
//! window of 128; each head has a sink; every feed-forward part is a mixture of experts with biases and an activation of its own;
//! YaRN. The published files hold all experts in one tensor, gate and up alternating, in MXFP4 ([`crate::stacked_experts`]).

use serde_json::Value;

use super::base::{SILENT, Silent, plain, set_experts, set_windows, window};
use super::names::{ExpertNames, LLAMA, TensorNames};
use super::{Entry, Family, QUANTIZATION};
use crate::config::{Activation, Experts, ModelConfig};
use crate::config_keys::ConfigKeys;
use crate::error::ModelError;

pub(super) const ENTRY: Entry =
    Entry { architectures: &["GptOssForCausalLM"], model_types: &["gpt_oss"], read, names: &NAMES };

const NAMES: TensorNames = TensorNames {
    experts: ExpertNames {
        router: "mlp.router",
        prefix: "mlp.experts",
        gate: "gate_proj",
        up: "up_proj",
        down: "down_proj",
        stacked: Some("mlp.experts"),
    },
    ..LLAMA
};

const GPT_OSS: Silent =
    Silent { head_dim: Some(64), positions: 131_072, rms_eps: 1e-5, rope_theta: 150_000.0, ..SILENT };

fn read(keys: &ConfigKeys<'_>) -> Result<ModelConfig, ModelError> {
    let mut config = plain(keys, Family::GptOss, &GPT_OSS)?;
    config.qkv_bias = keys.flag("attention_bias", true)?;
    config.output_bias = config.qkv_bias;
    config.sinks = true;
    let alpha = keys.positive("swiglu_alpha")?.unwrap_or(1.702);
    config.activation = Activation::ClampedSilu { alpha, limit: keys.positive("swiglu_limit")?.unwrap_or(7.0) };
    // Other names for what is read above and below.
    keys.ignore(&["experts_per_token", "initial_context_length"]);
    let window = window(keys)?.unwrap_or(128);
    set_windows(&mut config, keys, Some(window), |block| block.is_multiple_of(2))?;
    let (intermediate, mxfp4) = (config.intermediate, mxfp4(keys)?);
    let experts = Experts { count: 0, chosen: 4, intermediate, normalised: true, biases: true, mxfp4 };
    set_experts(&mut config, keys, ("num_local_experts", None), experts)?;
    Ok(config)
}

/// Whether the experts are in MXFP4, and nothing else in anything.
fn mxfp4(keys: &ConfigKeys<'_>) -> Result<bool, ModelError> {
    let Some(value) = keys.get(QUANTIZATION) else { return Ok(false) };
    match value.get("quant_method").and_then(Value::as_str) {
        Some("mxfp4") => Ok(true),
        method => {
            let method = method.unwrap_or("(none)");
            Err(ModelError::config(QUANTIZATION, format!("has the method {method}; mxfp4 is read, and files without")))
        }
    }
}
