//! Our logits are those of candle-transformers, for the families besides Llama (`reference.rs`) that it has.
//!
//! Where candle departs from Hugging Face's models, which we follow, the case says how it is stepped around. Of all
//! windows: candle lets a row see `sliding_window` keys before its own, Hugging Face one less, so candle is told one
//! less. It also forgets the window after the prompt, so that it computes each next token from the whole text anew.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use candle_nn::VarBuilder;
use candle_transformers::models::{gemma2, gemma3, mistral, mixtral, phi3, qwen2, qwen3, qwen3_moe};
use common::{Whole, argmax, families, largest_difference, safetensors_files, synthetic};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::HashMap;
use swarm_model::synthetic::SyntheticSpec;
use swarm_model::{DType, Device, Tensor};
use swarm_protocol::model_id::WeightFormat;

/// Tokens of the prompt: more than the window of 24.
const PROMPT: usize = 40;
/// Tokens chosen after it.
const CHOSEN: usize = 8;
/// A window that no prompt here fills.
const WIDE: usize = 4096;
/// What candle is told of the checkpoints' window of 24.
const WINDOW: usize = 23;

/// The logits of the last of the ids, from no cache.
type Logits = Box<dyn Fn(&[u32]) -> Vec<f32>>;

fn case(name: &str) -> SyntheticSpec {
    families::cases().into_iter().find(|(of, _)| *of == name).expect("a case of this name").1
}

/// With scores divided by the root of the heads' width, as most families do.
fn scaled_by_width(spec: SyntheticSpec) -> SyntheticSpec {
    let width = spec.head_dim;
    spec.with("query_pre_attn_scalar", json!(width))
}

/// `forward` on a copy of `model`, whose cache is empty: not every model of candle's can clear it.
fn fresh<M: Clone + 'static>(
    model: candle_core::Result<M>,
    forward: fn(&mut M, &Tensor, usize) -> candle_core::Result<Tensor>,
) -> Logits {
    let model = model.unwrap();
    Box::new(move |ids| {
        let input = Tensor::new(ids, &Device::Cpu).unwrap().unsqueeze(0).unwrap();
        forward(&mut model.clone(), &input, 0).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    })
}

/// The checkpoint's config.json as candle's, with `keys` added or in place of its own.
fn config<C: DeserializeOwned>(mut config: Value, keys: Value) -> C {
    config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    serde_json::from_value(config).unwrap()
}

/// Compares `spec` with what `load` makes of its config.json and tensors.
fn agree(name: &str, spec: &SyntheticSpec, load: impl FnOnce(Value, VarBuilder<'static>) -> Logits) {
    let (directory, checkpoint) = synthetic(spec);
    let ours = Whole::load(&checkpoint, WeightFormat::F32);
    let mut tensors = HashMap::new();
    for file in safetensors_files(directory.path()) {
        tensors.extend(candle_core::safetensors::load_buffer(&file, &Device::Cpu).unwrap());
    }
    let json = std::fs::read(directory.path().join("config.json")).unwrap();
    let vars = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
    let theirs = load(serde_json::from_slice(&json).unwrap(), vars);

    let mut ids: Vec<u32> = (0..PROMPT as u32).map(|i| (i * 131 + i * i * 7) % 1000).collect();
    let logits = ours.logits(&ours.prefill(&ids)).pop().unwrap();
    let expected = theirs(&ids);
    assert_eq!(logits.len(), expected.len(), "{name}");
    let largest = expected.iter().fold(0.0f32, |most, logit| most.max(logit.abs()));
    let difference = largest_difference(&logits, &expected);
    assert!(difference < 1e-3 * largest, "{name}: {difference} of {largest}");

    for chosen in ours.greedy(&ids, CHOSEN) {
        assert_eq!(chosen, argmax(&theirs(&ids)), "{name}, after {} tokens", ids.len());
        ids.push(chosen);
    }
}

#[test]
fn qwen2_agrees() {
    let load = |window: usize| {
        move |json: Value, vars: VarBuilder<'static>| {
            let keys = json!({"sliding_window": window, "max_window_layers": 0, "hidden_act": "silu"});
            let config: qwen2::Config = config(json, keys);
            fresh(qwen2::ModelForCausalLM::new(&config, vars), qwen2::ModelForCausalLM::forward)
        }
    };
    // candle has the window in all blocks whatever `max_window_layers` and `use_sliding_window` say.
    agree("qwen2", &case("qwen2").with("max_window_layers", json!(0)), load(WINDOW));
    let all = case("qwen2-all");
    agree("qwen2-all", &all, load(WIDE));
    agree("qwen2-tied", &SyntheticSpec { tied: true, ..all }, load(WIDE));
}

#[test]
fn qwen3_agrees() {
    // candle refuses windows.
    for name in ["qwen3", "qwen3-tied-biases"] {
        let spec = case(name).with("use_sliding_window", json!(false));
        agree(name, &spec, |json, vars| {
            let config: qwen3::Config = config(json, json!({"hidden_act": "silu"}));
            fresh(qwen3::ModelForCausalLM::new(&config, vars), qwen3::ModelForCausalLM::forward)
        });
    }
}

#[test]
fn mistral_agrees() {
    for (name, window) in [("mistral", Some(WINDOW)), ("mistral-all", None)] {
        agree(name, &case(name), |json, vars| {
            let config: mistral::Config = config(json, json!({"sliding_window": window}));
            fresh(mistral::Model::new(&config, vars), mistral::Model::forward)
        });
    }
}

#[test]
fn gemma2_agrees() {
    let capped = json!({"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0});
    for (name, caps) in [("gemma2", capped), ("gemma2-uncapped", json!({}))] {
        // candle has the window in all blocks, Hugging Face in every other; and it scales by the heads' width whatever
        // `query_pre_attn_scalar` says.
        let spec = case(name).with("sliding_window", json!(WIDE));
        let spec = scaled_by_width(spec);
        agree(name, &spec, |json, vars| {
            let mut keys = caps.clone();
            keys["hidden_activation"] = json!("gelu_pytorch_tanh");
            let config: gemma2::Config = config(json, keys);
            fresh(gemma2::Model::new(false, &config, vars), gemma2::Model::forward)
        });
    }
}

#[test]
fn gemma3_agrees() {
    // Two bases, so that a block with the other's is seen.
    let spec = SyntheticSpec { rope_theta: 1_000_000.0, ..case("gemma3") };
    let spec = scaled_by_width(spec);
    agree("gemma3", &spec, |json, vars| {
        let keys = json!({
            "sliding_window": WINDOW + 1,
            "sliding_window_pattern": 6,
            "rope_local_base_freq": 10_000.0,
            "hidden_activation": "gelu_pytorch_tanh",
        });
        let config: gemma3::Config = config(json, keys);
        // Its caches take no more than one position at a time; those of blocks with a window hold just the window.
        fresh(gemma3::Model::new(false, &config, vars), |model, ids, _| {
            let step = |position| gemma3::Model::forward(model, &ids.narrow(1, position, 1)?, position);
            (0..ids.dim(1)?).map(step).last().expect("a prompt")
        })
    });
}

#[test]
fn phi3_agrees() {
    // candle has no window; of LongRoPE it lacks the magnitude, and changes factors by the row instead of the text.
    agree("phi3", &case("phi3").with("sliding_window", json!(null)), |json, vars| {
        let config: phi3::Config = config(json, json!({"hidden_act": "silu", "eos_token_id": 1}));
        fresh(phi3::Model::new(&config, vars), phi3::Model::forward)
    });
}

#[test]
fn mixtral_agrees() {
    agree("mixtral", &case("mixtral"), |json, vars| {
        let keys = json!({"sliding_window": WINDOW, "hidden_act": "silu", "use_flash_attn": false});
        let config: mixtral::Config = config(json, keys);
        fresh(mixtral::Model::new(&config, vars), mixtral::Model::forward)
    });
}

#[test]
fn qwen3_moe_agrees() {
    for (name, step) in [("qwen3-moe", 1), ("qwen3-moe-sparse", 2)] {
        // candle knows no `mlp_only_layers`.
        let spec = case(name).with("mlp_only_layers", json!([]));
        agree(name, &spec, |json, vars| {
            let keys = json!({
                "hidden_act": "silu",
                "decoder_sparse_step": step,
                "max_window_layers": 0,
                "use_sliding_window": false,
            });
            let config: qwen3_moe::Config = config(json, keys);
            fresh(qwen3_moe::ModelForCausalLM::new(&config, vars), qwen3_moe::ModelForCausalLM::forward)
        });
    }
}
