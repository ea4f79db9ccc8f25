//! What holds for one family holds for all: a row's bits do not depend on cuts, chunks or company, a rewind goes on with the same
//! bits, what is not understood is refused by name.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Whole, bits, range, synthetic};
use serde_json::json;
use swarm_model::synthetic::SyntheticSpec;
use swarm_model::{DeviceChoice, Family, KvCache, ModelError, Sequence};
use swarm_protocol::model_id::WeightFormat;

fn tokens(count: usize, seed: usize) -> Vec<u32> {
    (0..count).map(|i| ((i * 131 + seed * 977 + i * i * 7) % 1000) as u32).collect()
}

fn cache(whole: &Whole) -> KvCache {
    whole.blocks.new_cache(whole.blocks.range(), 512).unwrap()
}

fn step(whole: &Whole, cache: &mut KvCache, ids: &[u32]) -> Vec<u8> {
    bits(&whole.step(&[whole.blocks.range()], std::slice::from_mut(cache), ids))
}

fn everywhere(check: impl Fn(Family, WeightFormat, &Whole)) {
    for family in Family::ALL {
        let (_directory, checkpoint) = synthetic(&SyntheticSpec::of(family));
        for format in [WeightFormat::Bf16, WeightFormat::Q8_0] {
            check(family, format, &Whole::load(&checkpoint, format));
        }
    }
}

#[test]
fn cuts_and_chunks_change_no_bit() {
    everywhere(|family, format, whole| {
        let ids = tokens(100, 1);
        let expected = bits(&whole.prefill(&ids));
        for cut in [vec![range(0, 1), range(1, 4)], vec![range(0, 3), range(3, 4)]] {
            let found = bits(&whole.step(&cut, &mut whole.caches(&cut), &ids));
            assert!(found == expected, "{family:?} {format} {cut:?}");
        }
        for chunk in [1, 7, 40] {
            let mut cache = cache(whole);
            let found: Vec<u8> = ids.chunks(chunk).flat_map(|ids| step(whole, &mut cache, ids)).collect();
            assert!(found == expected, "{family:?} {format} {chunk}");
        }
    });
}

#[test]
fn company_changes_no_bit() {
    everywhere(|family, format, whole| {
        let (a, b) = (tokens(90, 2), tokens(61, 3));
        let (mut of_a, mut of_b) = (cache(whole), cache(whole));
        step(whole, &mut of_a, &a[..89]);
        step(whole, &mut of_b, &b[..30]);
        let hidden = whole.edges.embed(&[&a[89..], &b[30..]].concat()).unwrap();
        let mut sequences = [Sequence { cache: &mut of_a, rows: 1 }, Sequence { cache: &mut of_b, rows: 31 }];
        let together = bits(&whole.blocks.forward(whole.blocks.range(), &hidden, &mut sequences).unwrap());
        let (alone_a, alone_b) = (bits(&whole.prefill(&a)), bits(&whole.prefill(&b)));
        let row = together.len() / 32;
        assert!(alone_a.ends_with(&together[..row]), "{family:?} {format}");
        assert!(alone_b.ends_with(&together[row..]), "{family:?} {format}");
    });
}

#[test]
fn a_rewind_behind_the_window_goes_on_with_the_same_bits() {
    everywhere(|family, format, whole| {
        let (ids, wrong) = (tokens(150, 4), tokens(60, 5));
        let expected = bits(&whole.prefill(&ids));
        let mut cache = cache(whole);
        step(whole, &mut cache, &ids[..100]);
        step(whole, &mut cache, &wrong);
        for keep in [100, 65, 30, 3, 0] {
            cache.truncate(keep);
            let rest = step(whole, &mut cache, &ids[keep..]);
            assert!(expected.ends_with(&rest), "{family:?} {format} {keep}");
        }
    });
}

#[test]
fn memory_is_estimated_for_every_family() {
    for family in Family::ALL {
        let (_directory, checkpoint) = synthetic(&SyntheticSpec::of(family));
        let mut last = None;
        checkpoint.load_blocks(range(0, 4), WeightFormat::Bf16, &mut |progress| last = Some(progress)).unwrap();
        let progress = last.unwrap();
        assert_eq!(progress.bytes_done, progress.bytes_total, "{family:?}");
        let (stored, estimate) = (progress.bytes_total, 4 * checkpoint.config().block_bytes(WeightFormat::Bf16));
        assert!(estimate >= stored && estimate < 2 * stored, "{family:?}: {estimate} for {stored}");
    }
}

#[test]
fn candle_computes_the_same_up_to_rounding() {
    let device = "cpu-candle".parse::<DeviceChoice>().unwrap().open().unwrap();
    for family in Family::ALL {
        let (_directory, checkpoint) =
            synthetic(&SyntheticSpec { dtype: WeightFormat::F32, ..SyntheticSpec::of(family) });
        let ours = Whole::load(&checkpoint, WeightFormat::F32);
        let theirs = Whole::load_on(&device, &checkpoint, WeightFormat::F32);
        let ids = tokens(100, 6);
        let (a, b) = (ours.logits(&ours.prefill(&ids)), theirs.logits(&theirs.prefill(&ids)));
        let difference = a.iter().zip(&b).map(|(a, b)| common::largest_difference(a, b)).fold(0.0, f32::max);
        assert!(difference < 1e-3, "{family:?}: {difference}");
    }
}

#[test]
fn what_is_not_understood_is_named() {
    let cases = [
        (Family::Mistral, "sliding_window", json!("long"), "sliding_window"),
        (Family::Mistral, "attention_bias", json!(true), "attention_bias"),
        (Family::Qwen2, "layer_types", json!(["full_attention"]), "layer_types"),
        (Family::Qwen2, "layer_types", json!(["a", "b", "c", "d"]), "layer_types"),
        (Family::Gemma2, "hidden_activation", json!("relu"), "hidden_activation"),
        (Family::Gemma2, "query_pre_attn_scalar", json!(0), "query_pre_attn_scalar"),
        (Family::Gemma3, "use_bidirectional_attention", json!(true), "use_bidirectional_attention"),
        (Family::Phi3, "partial_rotary_factor", json!(-3.0), "partial_rotary_factor"),
        (
            Family::Phi3,
            "rope_scaling",
            json!({"type": "longrope", "short_factor": [1], "long_factor": [1]}),
            "short_factor",
        ),
        (Family::Mixtral, "num_local_experts", json!(1u64 << 40), "num_local_experts"),
        (Family::Mixtral, "num_experts_per_tok", json!(7), "num_experts_per_tok"),
        (Family::Qwen3Moe, "shared_expert_intermediate_size", json!(64), "shared_expert_intermediate_size"),
        (Family::GptOss, "quantization_config", json!({"quant_method": "awq"}), "quantization_config"),
    ];
    for (family, key, value, named) in cases {
        let directory = tempfile::tempdir().unwrap();
        let error = SyntheticSpec::of(family).with(key, value).write(directory.path()).unwrap_err();
        assert!(matches!(error, ModelError::BadConfig { .. }) && error.to_string().contains(named), "{key}: {error}");
    }
}

#[test]
fn a_tensor_that_the_family_does_not_have_is_named() {
    let (directory, _) = synthetic(&SyntheticSpec::of(Family::Qwen3));
    let path = directory.path().join("config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let other = text.replace("Qwen3ForCausalLM", "LlamaForCausalLM").replace("max_window_layers", "_a");
    let other = other.replace("use_sliding_window", "_b").replace("sliding_window", "_c");
    std::fs::write(&path, other).unwrap();
    let checkpoint = common::open(directory.path()).unwrap();
    let error = checkpoint.load_blocks(range(0, 1), WeightFormat::Bf16, &mut |_| ()).unwrap_err();
    assert!(matches!(error, ModelError::UnknownTensor { .. }) && error.to_string().contains("_norm"), "{error}");
}

#[test]
fn the_text_model_of_one_that_sees_pictures_is_found() {
    let (directory, alone) = synthetic(&SyntheticSpec::of(Family::Gemma3));
    let config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(directory.path().join("config.json")).unwrap()).unwrap();
    let whole = json!({
        "architectures": ["Gemma3ForConditionalGeneration"],
        "model_type": "gemma3",
        "text_config": config,
        "vision_config": {"hidden_size": 8},
        "eos_token_id": [7],
    });
    std::fs::write(directory.path().join("config.json"), whole.to_string()).unwrap();
    // The same tensors under the names that they have there.
    let path = directory.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = String::from_utf8(bytes[8..8 + length].to_vec()).unwrap();
    let header = header.replace("\"model.", "\"language_model.model.");
    let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &bytes[8 + length..]].concat();
    std::fs::write(&path, file).unwrap();
    let inside = common::open(directory.path()).unwrap();
    assert_eq!(inside.config().eos, [7]);
    assert_eq!(inside.id(WeightFormat::Bf16), alone.id(WeightFormat::Bf16));
    Whole::load(&inside, WeightFormat::Bf16).prefill(&tokens(5, 1));
}

/// Adds a tensor of one byte to a safetensors file.
fn add_tensor(path: &std::path::Path, name: &str) {
    let bytes = std::fs::read(path).unwrap();
    let (length, rest) = bytes.split_at(8);
    let length = u64::from_le_bytes(length.try_into().unwrap()) as usize;
    let (header, data) = rest.split_at(length);
    let mut header: serde_json::Value = serde_json::from_slice(header).unwrap();
    header[name] = json!({"dtype": "U8", "shape": [8], "data_offsets": [data.len(), data.len() + 8]});
    let mut header = header.to_string();
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    // The old file may be mapped: another one takes its place.
    std::fs::remove_file(path).unwrap();
    let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data, &[0; 8]].concat();
    std::fs::write(path, file).unwrap();
}

#[test]
fn a_tensor_beside_the_blocks_is_named_unless_it_sees_pictures() {
    let fine = ["vision_tower.a.weight", "model.multi_modal_projector.b", "model.rotary_emb.inv_freq"];
    let odd =
        ["lm_head.bias", "model.norm.bias", "score.weight", "model.layers.4.mlp.up_proj.weight", "model.layers.x.y"];
    for (name, refused) in fine.map(|name| (name, false)).into_iter().chain(odd.map(|name| (name, true))) {
        let (directory, _) = synthetic(&SyntheticSpec::of(Family::Gemma3));
        add_tensor(&directory.path().join("model.safetensors"), name);
        match common::open(directory.path()) {
            Ok(_) => assert!(!refused, "{name}"),
            Err(error) => assert!(refused && error.to_string().contains(name), "{name}: {error}"),
        }
    }
}
