//! The canonical manifest: two servers share a model id if, and only if, they would compute the same function in the
//! same format from the same weights' shapes. That the weights themselves agree is what block digests show.

use swarm_protocol::model_id::{ModelId, WeightFormat};

use crate::config::{Activation, BlockKind, ModelConfig};
use crate::rope::{Rope, RopeScaling};

/// One `key=value` line for each setting that affects the math; floats by their bits. A change of meaning is a new
/// version in the first line.
pub(crate) fn manifest(config: &ModelConfig, format: WeightFormat) -> String {
    // Nothing is left out by accident: a new field is an error here.
    let ModelConfig {
        family,
        hidden,
        intermediate,
        blocks,
        kinds,
        heads,
        kv_heads,
        head_dim,
        vocab,
        max_positions,
        rms_eps,
        norm_offset,
        after_norms,
        query_key_norms,
        rope,
        local_rope,
        query_scale,
        attention_cap,
        sinks,
        qkv_bias,
        output_bias,
        mlp_bias,
        activation,
        experts,
        embedding_scale,
        logit_cap,
        tied,
        bos: _,
        eos: _,
        stored,
    } = config;
    let experts = experts.map(|experts| {
        let (count, chosen, width) = (experts.count, experts.chosen, experts.intermediate);
        let mxfp4 = if experts.mxfp4 { " mxfp4" } else { "" };
        format!("{chosen} of {count} width {width} normalised {} biases {}{mxfp4}", experts.normalised, experts.biases)
    });
    let mut lines = vec![
        "swarm-model manifest 2".to_string(),
        format!("architecture={}", family.architecture()),
        format!("format={format}"),
        format!("hidden={hidden}"),
        format!("intermediate={intermediate}"),
        format!("blocks={blocks}"),
        format!("kinds={}", kinds.iter().map(kind).collect::<Vec<_>>().join(" ")),
        format!("heads={heads}"),
        format!("kv_heads={kv_heads}"),
        format!("head_dim={head_dim}"),
        format!("vocab={vocab}"),
        format!("max_positions={max_positions}"),
        format!("rms_eps={:016x}", rms_eps.to_bits()),
        format!("norm_offset={}", bits(*norm_offset)),
        format!("after_norms={after_norms}"),
        format!("query_key_norms={query_key_norms}"),
        format!("rope={}", rotary(rope)),
        format!("local_rope={}", local_rope.as_ref().map_or("none".into(), rotary)),
        format!("query_scale={}", bits(*query_scale)),
        format!("attention_cap={}", attention_cap.map_or("none".into(), bits)),
        format!("sinks={sinks}"),
        format!("biases={qkv_bias} {output_bias} {mlp_bias}"),
        format!("activation={}", gated(*activation)),
        format!("experts={}", experts.unwrap_or("none".into())),
        format!("embedding_scale={}", embedding_scale.map_or("none".into(), bits)),
        format!("logit_cap={}", logit_cap.map_or("none".into(), bits)),
        format!("tied={tied}"),
    ];
    // Its blocks' digests are over what is stored, which no other checkpoint has.
    lines.extend(stored.as_ref().map(|stored| format!("gguf={}", blake3::Hash::from_bytes(stored.digest))));
    lines.join("\n")
}

/// The model id of a configuration in a format.
pub(crate) fn model_id(config: &ModelConfig, format: WeightFormat) -> ModelId {
    ModelId(*blake3::hash(manifest(config, format).as_bytes()).as_bytes())
}

fn bits(value: f32) -> String {
    format!("{:08x}", value.to_bits())
}

fn kind(kind: &BlockKind) -> String {
    let window = kind.window.map_or("all".into(), |window| window.to_string());
    format!("{window}{}", if kind.experts { "/experts" } else { "" })
}

fn gated(activation: Activation) -> String {
    match activation {
        Activation::Silu => "silu".into(),
        Activation::GeluTanh => "gelu_tanh".into(),
        Activation::ClampedSilu { alpha, limit } => format!("clamped_silu {} {}", bits(alpha), bits(limit)),
    }
}

fn rotary(Rope { theta, scaling, rotated }: &Rope) -> String {
    format!("{rotated} {} {}", bits(*theta), stretched(scaling))
}

fn stretched(scaling: &RopeScaling) -> String {
    match scaling {
        RopeScaling::Default => "default".into(),
        RopeScaling::Linear { factor } => format!("linear {}", bits(*factor)),
        RopeScaling::Llama3 { factor, low_frequency_factor, high_frequency_factor, original_positions } => {
            let numbers = [factor, low_frequency_factor, high_frequency_factor].map(|value| bits(*value)).join(" ");
            format!("llama3 {numbers} {original_positions}")
        }
        RopeScaling::Yarn { factor, beta_fast, beta_slow, truncate, original_positions, magnitude } => {
            let numbers = [factor, beta_fast, beta_slow, magnitude].map(|value| bits(*value)).join(" ");
            format!("yarn {numbers} {truncate} {original_positions}")
        }
        RopeScaling::Long { factors, magnitude } => {
            let factors = factors.iter().map(|factor| bits(*factor)).collect::<Vec<_>>().join(" ");
            format!("long {} {factors}", bits(*magnitude))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StoredTypes;

    #[test]
    fn what_changes_the_math_changes_the_id() {
        let config = ModelConfig::parse(include_bytes!("../demo/config.json")).unwrap();
        let id = |config: &ModelConfig| model_id(config, WeightFormat::Bf16);
        let changes: [fn(&mut ModelConfig); 6] = [
            |config| config.rope.scaling = RopeScaling::Linear { factor: 2.0 },
            |config| config.rope.rotated = 16,
            |config| config.kinds[3].window = Some(64),
            |config| config.attention_cap = Some(50.0),
            |config| config.activation = Activation::GeluTanh,
            |config| config.norm_offset = 1.0,
        ];
        for change in changes {
            let mut changed = config.clone();
            change(&mut changed);
            assert_ne!(id(&config), id(&changed));
        }
        let mut talkative = config.clone();
        talkative.eos = vec![9];
        assert_ne!(id(&config), model_id(&config, WeightFormat::F32));
        assert_eq!(id(&config), id(&talkative));
        let of_types = |types: u8| {
            let stored = Some(StoredTypes { digest: [types; 32], block_bytes: 1 });
            id(&ModelConfig { stored, ..config.clone() })
        };
        assert_eq!(of_types(1), of_types(1));
        assert!(of_types(1) != of_types(2) && of_types(1) != id(&config));
    }
}
