//! The canonical manifest: two servers share a model id if, and only if, they would compute the same function in the
//! same format from the same weights' shapes. That the weights themselves agree is what block digests show.

use swarm_protocol::model_id::{ModelId, WeightFormat};

use crate::config::ModelConfig;
use crate::rope::RopeScaling;

/// One `key=value` line for each setting that affects the math; floats by their bits. A change of meaning is a new
/// version in the first line.
pub(crate) fn manifest(config: &ModelConfig, format: WeightFormat) -> String {
    let lines = [
        "swarm-model manifest 1".to_string(),
        "architecture=LlamaForCausalLM".to_string(),
        format!("format={format}"),
        format!("hidden={}", config.hidden),
        format!("intermediate={}", config.intermediate),
        format!("blocks={}", config.blocks),
        format!("heads={}", config.heads),
        format!("kv_heads={}", config.kv_heads),
        format!("head_dim={}", config.head_dim),
        format!("vocab={}", config.vocab),
        format!("max_positions={}", config.max_positions),
        format!("rms_eps={:016x}", config.rms_eps.to_bits()),
        format!("rope_theta={:08x}", config.rope_theta.to_bits()),
        format!("rope_scaling={}", scaling(&config.rope_scaling)),
        format!("tied={}", config.tied),
        format!("attention_bias={}", config.attention_bias),
        format!("mlp_bias={}", config.mlp_bias),
    ];
    lines.join("\n")
}

/// The model id of a configuration in a format.
pub(crate) fn model_id(config: &ModelConfig, format: WeightFormat) -> ModelId {
    ModelId(*blake3::hash(manifest(config, format).as_bytes()).as_bytes())
}

fn scaling(scaling: &RopeScaling) -> String {
    match scaling {
        RopeScaling::Default => "default".into(),
        RopeScaling::Linear { factor } => format!("linear {:08x}", factor.to_bits()),
        RopeScaling::Llama3 { factor, low_frequency_factor, high_frequency_factor, original_positions } => format!(
            "llama3 {:08x} {:08x} {:08x} {original_positions}",
            factor.to_bits(),
            low_frequency_factor.to_bits(),
            high_frequency_factor.to_bits()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_the_math_changes_the_id() {
        let config = ModelConfig::parse(include_bytes!("../demo/config.json")).unwrap();
        let mut stretched = config.clone();
        stretched.rope_scaling = RopeScaling::Linear { factor: 2.0 };
        let mut talkative = config.clone();
        talkative.eos = vec![9];
        let id = |config| model_id(config, WeightFormat::Bf16);
        assert_ne!(id(&config), id(&stretched));
        assert_ne!(id(&config), model_id(&config, WeightFormat::F32));
        assert_eq!(id(&config), id(&talkative));
    }
}
