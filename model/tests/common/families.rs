//! Random checkpoints of every family, with the settings that matter.

use serde_json::json;
use swarm_model::synthetic::SyntheticSpec;
use swarm_model::{Family, RopeScaling};
use swarm_protocol::model_id::WeightFormat;

fn of(family: Family) -> SyntheticSpec {
    SyntheticSpec { dtype: WeightFormat::F32, ..SyntheticSpec::of(family) }
}

fn llama3() -> RopeScaling {
    RopeScaling::Llama3 { factor: 8.0, low_frequency_factor: 1.0, high_frequency_factor: 4.0, original_positions: 64 }
}

/// Checkpoints by name, in f32.
pub fn cases() -> Vec<(&'static str, SyntheticSpec)> {
    use Family::*;
    let yarn = json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32});
    let long = |factor: f32| (0..6).map(|i| 1.0 + factor * i as f32).collect::<Vec<_>>();
    let longrope = json!({"type": "longrope", "short_factor": long(0.1), "long_factor": long(0.5)});
    let nested = json!({
        "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 50_000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 500.0},
    });
    let turns = ["full_attention", "sliding_attention", "sliding_attention", "full_attention"];
    vec![
        ("llama", of(Llama)),
        ("llama-biases", SyntheticSpec { biases: true, tied: true, ..of(Llama) }),
        ("llama-llama3", SyntheticSpec { rope_scaling: llama3(), rope_theta: 500_000.0, ..of(Llama) }),
        ("llama-linear", SyntheticSpec { rope_scaling: RopeScaling::Linear { factor: 2.0 }, ..of(Llama) }),
        ("llama-yarn", of(Llama).with("rope_scaling", yarn.clone())),
        ("mistral", of(Mistral)),
        ("mistral-all", SyntheticSpec { head_dim: 32, ..of(Mistral).with("sliding_window", json!(null)) }),
        ("qwen2", of(Qwen2)),
        ("qwen2-tied-yarn", SyntheticSpec { tied: true, ..of(Qwen2).with("rope_scaling", yarn) }),
        ("qwen2-all", of(Qwen2).with("use_sliding_window", json!(false))),
        ("qwen3", of(Qwen3)),
        ("qwen3-tied-biases", SyntheticSpec { tied: true, biases: true, ..of(Qwen3) }),
        ("qwen3-types", of(Qwen3).with("layer_types", json!(turns))),
        ("gemma2", of(Gemma2)),
        (
            "gemma2-uncapped",
            of(Gemma2).with("attn_logit_softcapping", json!(null)).with("final_logit_softcapping", json!(null)),
        ),
        ("gemma3", SyntheticSpec { blocks: 7, ..of(Gemma3) }),
        ("gemma3-nested-rope", of(Gemma3).with("rope_parameters", nested).with("layer_types", json!(turns))),
        ("phi3", of(Phi3)),
        ("phi3-long", of(Phi3).with("rope_scaling", longrope).with("original_max_position_embeddings", json!(32))),
        ("mixtral", of(Mixtral)),
        ("qwen3-moe", of(Qwen3Moe)),
        ("qwen3-moe-sparse", of(Qwen3Moe).with("decoder_sparse_step", json!(2)).with("norm_topk_prob", json!(false))),
    ]
}

/// Wide enough for the types of 256 elements a block.
fn wide(family: Family) -> SyntheticSpec {
    SyntheticSpec { hidden: 256, intermediate: 512, head_dim: 64, ..SyntheticSpec::of(family) }
}

/// With LongRoPE for twice its original context, and no window.
pub fn long_phi3() -> SyntheticSpec {
    let long = json!({
        "type": "longrope",
        "short_factor": (0..24).map(|i| 1.0 + 0.25 * i as f32).collect::<Vec<_>>(),
        "long_factor": (0..24).map(|i| 1.0 + 0.5 * i as f32).collect::<Vec<_>>(),
    });
    let spec = wide(Family::Phi3).with("sliding_window", json!(null)).with("rope_scaling", long);
    spec.with("original_max_position_embeddings", json!(1024))
}

/// Checkpoints of every family that GGUF files are read of, with what the format has words for.
pub fn gguf_cases() -> Vec<(&'static str, SyntheticSpec)> {
    use Family::*;
    let of = wide;
    let yarn = json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32});
    let linear = json!({"rope_type": "linear", "factor": 8.0});
    let gemma = |family| of(family).with("query_pre_attn_scalar", json!(64));
    let qwen = |family| of(family).with("use_sliding_window", json!(false));
    let experts = || qwen(Qwen3Moe).with("mlp_only_layers", json!([])).with("moe_intermediate_size", json!(256));
    vec![
        ("llama", of(Llama)),
        ("mistral", of(Mistral)),
        ("mixtral", of(Mixtral)),
        ("mixtral-all", of(Mixtral).with("sliding_window", json!(null))),
        ("qwen2", qwen(Qwen2)),
        ("qwen2-tied-yarn", SyntheticSpec { tied: true, ..qwen(Qwen2).with("rope_scaling", yarn.clone()) }),
        ("qwen3", qwen(Qwen3)),
        ("qwen3-tied-yarn", SyntheticSpec { tied: true, ..qwen(Qwen3).with("rope_scaling", yarn.clone()) }),
        ("qwen3-biases", SyntheticSpec { biases: true, ..qwen(Qwen3) }),
        ("qwen3-moe", experts()),
        ("qwen3-moe-yarn", experts().with("rope_scaling", yarn)),
        ("gemma2", gemma(Gemma2)),
        ("gemma3", SyntheticSpec { blocks: 7, ..gemma(Gemma3) }),
        ("gemma3-linear", SyntheticSpec { blocks: 7, ..gemma(Gemma3).with("rope_scaling", linear) }),
        ("gemma3-pattern", gemma(Gemma3).with("sliding_window_pattern", json!(2))),
        ("gemma3-untied", SyntheticSpec { tied: false, ..gemma(Gemma3) }),
        ("phi3", of(Phi3)),
        ("phi3-all", of(Phi3).with("sliding_window", json!(null)).with("partial_rotary_factor", json!(1.0))),
        ("phi3-part", of(Phi3).with("sliding_window", json!(null))),
        ("phi3-long", long_phi3()),
    ]
}
