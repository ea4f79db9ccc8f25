//! GGUF files compute and tell what the same weights in a directory do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::path::Path;

use common::families::{gguf_cases, long_phi3};
use common::{Whole, argmax, bits, synthetic};
use swarm_model::synthetic::{GgufFile, GgufTensor, GgufTypes, GgufValue, SyntheticSpec, gguf_of, write_gguf};
use swarm_model::{ChatMessage, Checkpoint, ModelSpec, RopeScaling};
use swarm_protocol::model_id::WeightFormat;

/// A few tokens that every vocabulary has.
const IDS: [u32; 9] = [0, 17, 300, 5, 999, 42, 42, 611, 88];

fn gguf(from: &Checkpoint, types: &GgufTypes, directory: &Path, parts: usize) -> Checkpoint {
    let path = write_gguf(&gguf_of(from, types).unwrap(), &directory.join("made.gguf"), parts).unwrap();
    Checkpoint::open(&ModelSpec::Gguf(path)).unwrap()
}

fn demo() -> Checkpoint {
    Checkpoint::open(&ModelSpec::Demo).unwrap()
}

/// The last hidden state, and the logits.
fn computed(checkpoint: &Checkpoint, format: WeightFormat) -> (Vec<u8>, Vec<Vec<f32>>) {
    let whole = Whole::load(checkpoint, format);
    let hidden = whole.prefill(&IDS);
    let logits = whole.logits(&hidden);
    (bits(&hidden), logits)
}

/// Wide enough for the types of 256 elements a block.
fn wide() -> SyntheticSpec {
    SyntheticSpec {
        hidden: 256,
        intermediate: 512,
        blocks: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 64,
        ..Default::default()
    }
}

#[test]
fn floats_give_the_bits_that_a_directory_gives() {
    let scalings = [
        RopeScaling::Default,
        RopeScaling::Linear { factor: 4.0 },
        RopeScaling::Llama3 {
            factor: 8.0,
            low_frequency_factor: 1.0,
            high_frequency_factor: 4.0,
            original_positions: 8192,
        },
    ];
    for (index, rope_scaling) in scalings.into_iter().enumerate() {
        let (tied, biases) = (index == 0, index == 1);
        let rope_theta = 500_000.0;
        let spec = SyntheticSpec { rope_scaling: rope_scaling.clone(), rope_theta, tied, biases, ..wide() };
        let (directory, from) = synthetic(&spec);
        for (kind, format) in [("bf16", WeightFormat::Bf16), ("f32", WeightFormat::F32)] {
            let made = gguf(&from, &GgufTypes::all(kind, kind), directory.path(), 1);
            assert_eq!(made.native_format(), format);
            let mut config = made.config().clone();
            assert!(config.stored.take().is_some());
            assert_eq!(&config, from.config());
            assert_eq!(computed(&made, format), computed(&from, format), "{kind} {rope_scaling:?}");
        }
    }
}

#[test]
fn quantised_weights_give_the_bits_of_those_quantised_at_load() {
    let (directory, from) = synthetic(&wide());
    for (kind, format) in [("q8_0", WeightFormat::Q8_0), ("q4_0", WeightFormat::Q4_0), ("q4_k", WeightFormat::Q4K)] {
        // The edges stay as they are in the directory.
        let made = gguf(&from, &GgufTypes::all(kind, "bf16"), directory.path(), 1);
        assert_eq!(made.native_format(), WeightFormat::Gguf);
        let expected = computed(&from, format);
        assert_eq!(computed(&made, WeightFormat::Gguf), expected, "{kind} as stored");
        assert_eq!(computed(&made, format), expected, "{kind} by its name");
        let made_of_floats = gguf(&from, &GgufTypes::all("bf16", "bf16"), directory.path(), 1);
        assert_eq!(computed(&made_of_floats, format), expected, "{kind} out of floats");
    }
}

#[test]
fn the_demo_model_tells_the_same_text_out_of_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let from = demo();
    let tokenizer = from.tokenizer().unwrap();
    let prompt = tokenizer.encode("Once upon a time", true).unwrap();
    for (kind, format) in [("bf16", WeightFormat::Bf16), ("q8_0", WeightFormat::Q8_0), ("q4_0", WeightFormat::Q4_0)] {
        let made = gguf(&from, &GgufTypes::all(kind, "bf16"), directory.path(), 1);
        let native = made.native_format();
        let expected = Whole::load(&from, format).greedy(&prompt, 48);
        assert_eq!(Whole::load(&made, native).greedy(&prompt, 48), expected, "{kind}");
    }
}

#[test]
fn edges_may_be_quantised_too() {
    let (directory, from) = synthetic(&wide());
    let expected = computed(&from, WeightFormat::Bf16).1;
    for tied in [true, false] {
        let (_directory, from) = synthetic(&SyntheticSpec { tied, ..wide() });
        let made = gguf(&from, &GgufTypes::all("q8_0", "q6_k"), directory.path(), 1);
        let edges = made.load_edges(WeightFormat::Gguf).unwrap();
        assert!(format!("{edges:?}").contains("bytes: in place"), "the embedding is looked up in the file");
        let logits = computed(&made, WeightFormat::Gguf).1;
        if tied {
            let near = expected.iter().zip(&logits).filter(|(one, other)| argmax(one) == argmax(other)).count();
            assert!(near * 3 >= IDS.len() * 2, "{near} of {} choices are the same", IDS.len());
        }
        // In another format they are floats.
        let widened = made.load_edges(WeightFormat::Bf16).unwrap();
        assert!(!format!("{widened:?}").contains("Packed"));
    }
}

#[test]
fn files_that_mix_types_are_read_as_they_are() {
    let (directory, from) = synthetic(&wide());
    let types = GgufTypes { matrices: "q4_k", careful: "q6_k", edges: "q6_k" };
    let made = gguf(&from, &types, directory.path(), 1);
    let of_one = gguf(&from, &GgufTypes::all("q4_k", "q6_k"), directory.path(), 1);
    let id = |checkpoint: &Checkpoint| checkpoint.id(WeightFormat::Gguf);
    assert_ne!(id(&made), id(&of_one), "other types are another model");
    let bytes = |checkpoint: &Checkpoint| checkpoint.config().block_bytes(WeightFormat::Gguf);
    let (q4, q6) = (256 * 144 / 256, 256 * 210 / 256);
    let (careful, others) = (256 * 128 + 256 * 512, 256 * (256 + 128 + 256) + 2 * 256 * 512);
    let norms = 2 * 256 * 4;
    assert_eq!(bytes(&of_one), (careful + others) / 256 * q4 + norms);
    assert_eq!(bytes(&made), others / 256 * q4 + careful / 256 * q6 + norms);
    // What is quantised in another way is quantised again.
    let again = computed(&made, WeightFormat::Q8_0).1;
    let stored = computed(&made, WeightFormat::Gguf).1;
    let same = again.iter().zip(&stored).filter(|(one, other)| argmax(one) == argmax(other)).count();
    assert!(same * 3 >= IDS.len() * 2, "{same} of {} choices are the same", IDS.len());
}

/// Types that no format on the command line makes.
#[test]
fn every_type_is_close_to_its_floats() {
    let (directory, from) = synthetic(&wide());
    let expected = computed(&from, WeightFormat::F32).1;
    for kind in ["f16", "q4_1", "q5_0", "q5_1", "q5_k", "q6_k"] {
        let made = gguf(&from, &GgufTypes::all(kind, "f32"), directory.path(), 1);
        let logits = computed(&made, WeightFormat::Gguf).1;
        let same = expected.iter().zip(&logits).filter(|(one, other)| argmax(one) == argmax(other)).count();
        assert!(same * 3 >= IDS.len() * 2, "{kind}: {same} of {} choices are the same", IDS.len());
    }
}

#[test]
fn parts_are_one_model() {
    let (directory, from) = synthetic(&wide());
    let types = GgufTypes { matrices: "q4_k", careful: "q6_k", edges: "q6_k" };
    let whole = gguf(&from, &types, directory.path(), 1);
    let parts = gguf(&from, &types, directory.path(), 3);
    assert_eq!(parts.name(), "made");
    assert_eq!(whole.id(WeightFormat::Gguf), parts.id(WeightFormat::Gguf));
    assert_eq!(computed(&whole, WeightFormat::Gguf), computed(&parts, WeightFormat::Gguf));
    // Any part names the model.
    let last = directory.path().join("made-00003-of-00003.gguf");
    let named = Checkpoint::open(&ModelSpec::Gguf(last.clone())).unwrap();
    assert_eq!(computed(&whole, WeightFormat::Gguf), computed(&named, WeightFormat::Gguf));
    // A part that is missing, or another one under its name, is named.
    // The other one is mapped, so it is replaced and not written over.
    std::fs::remove_file(&last).unwrap();
    std::fs::copy(directory.path().join("made-00002-of-00003.gguf"), &last).unwrap();
    let error = Checkpoint::open(&ModelSpec::Gguf(last.clone())).unwrap_err().to_string();
    assert!(error.contains("made-00003-of-00003") && error.contains("split.no"), "{error}");
    std::fs::remove_file(&last).unwrap();
    let error = Checkpoint::open(&ModelSpec::Gguf(directory.path().join("made-00001-of-00003.gguf"))).unwrap_err();
    assert!(error.to_string().contains("made-00003-of-00003"), "{error}");
}

#[test]
fn tokenizer_template_and_defaults_come_out_of_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let from = demo();
    let made = gguf(&from, &GgufTypes::all("bf16", "bf16"), directory.path(), 1);
    let (own, theirs) = (made.tokenizer().unwrap(), from.tokenizer().unwrap());
    assert_eq!(own.vocab(), theirs.vocab());
    for text in ["Once upon a time, 12 birds' nests.\n\n  Two\tmore é 🐦!", "", " ", "<|user|>\nhi<|end|>\n", "don't"]
    {
        for special in [true, false] {
            let ids = own.encode(text, special).unwrap();
            assert_eq!(ids, theirs.encode(text, special).unwrap(), "{text:?}");
            assert_eq!(own.decode(&ids).unwrap(), theirs.decode(&ids).unwrap());
        }
    }
    let conversation = [ChatMessage::new("system", "Be kind."), ChatMessage::new("user", "Hello!")];
    let render =
        |checkpoint: &Checkpoint| checkpoint.chat_template().unwrap().unwrap().render(&conversation, true).unwrap();
    assert_eq!(render(&made), render(&from));
    let defaults = made.generation_defaults().unwrap();
    assert_eq!((defaults.bos, defaults.eos), (Some(0), vec![1, 4]));
    // What ends an answer is found by its text, in a file that names the end of texts alone.
    let mut file = gguf_of(&from, &GgufTypes::all("bf16", "bf16")).unwrap();
    file.metadata.retain(|(key, _)| key != "tokenizer.ggml.eot_token_id");
    assert_eq!(opened(&file, directory.path()).unwrap().generation_defaults().unwrap().eos, [1, 4]);
}

#[test]
fn a_directory_has_no_types_of_a_file() {
    let error = demo().load_edges(WeightFormat::Gguf).unwrap_err().to_string();
    assert!(error.contains("--format gguf") && error.contains("bf16"), "{error}");
}

fn tokens() -> Vec<u32> {
    // More than the windows are wide.
    (0..40).map(|i| (i * 131 + i * i * 7) % 1000).collect()
}

fn outcome(checkpoint: &Checkpoint, format: WeightFormat) -> (Vec<u8>, Vec<Vec<f32>>) {
    let whole = Whole::load(checkpoint, format);
    let hidden = whole.prefill(&tokens());
    (bits(&hidden), whole.logits(&hidden))
}

#[test]
fn every_family_gives_the_bits_that_a_directory_gives() {
    for (name, spec) in gguf_cases() {
        for format in [WeightFormat::Bf16, WeightFormat::F32] {
            let (directory, from) = synthetic(&SyntheticSpec { dtype: format, ..spec.clone() });
            let kind = format.name();
            let made = gguf(&from, &GgufTypes::all(kind, kind), directory.path(), 1);
            let mut config = made.config().clone();
            assert!(config.stored.take().is_some());
            assert_eq!(&config, from.config(), "{name}");
            assert_eq!(made.native_format(), format, "{name}");
            assert!(outcome(&made, format) == outcome(&from, format), "{name} {kind}");
        }
    }
}

#[test]
fn every_family_computes_in_quantised_types() {
    for (name, spec) in gguf_cases() {
        let (directory, from) = synthetic(&SyntheticSpec { dtype: WeightFormat::F32, ..spec });
        let expected = outcome(&from, WeightFormat::F32).1;
        let scale = expected.iter().flatten().map(|logit| logit.abs()).fold(0.0, f32::max);
        let mixed = GgufTypes { matrices: "q4_k", careful: "q6_k", edges: "q6_k" };
        for (types, allowed) in [(GgufTypes::all("q8_0", "q8_0"), 0.1), (mixed, 0.5)] {
            let made = gguf(&from, &types, directory.path(), 1);
            assert_eq!(made.native_format(), WeightFormat::Gguf, "{name}");
            let found = outcome(&made, WeightFormat::Gguf).1;
            let apart = |(one, other): (&Vec<f32>, &Vec<f32>)| {
                let squares = one.iter().zip(other).map(|(one, other)| (one - other).powi(2)).sum::<f32>();
                (squares / one.len() as f32).sqrt() / scale
            };
            let far: Vec<f32> = expected.iter().zip(&found).map(apart).collect();
            let mean = far.iter().sum::<f32>() / far.len() as f32;
            assert!(mean < allowed * 0.25, "{name} {types:?}: {mean} of the largest logit {scale}");
        }
    }
}

fn opened(file: &GgufFile, directory: &Path) -> Result<Checkpoint, swarm_model::ModelError> {
    let path = write_gguf(file, &directory.join("bent.gguf"), 1).unwrap();
    Checkpoint::open(&ModelSpec::Gguf(path))
}

fn case(name: &str) -> SyntheticSpec {
    gguf_cases().into_iter().find(|(own, _)| *own == name).unwrap().1
}

#[test]
fn old_files_have_a_tensor_for_each_expert() {
    let (directory, from) = synthetic(&case("mixtral"));
    let mut file = gguf_of(&from, &GgufTypes::all("bf16", "bf16")).unwrap();
    let expected = outcome(&opened(&file, directory.path()).unwrap(), WeightFormat::Bf16);
    let apart = |tensor: GgufTensor| {
        let Some((before, after)) = tensor.name.split_once("_exps") else { return vec![tensor] };
        let each = tensor.bytes.chunks(tensor.bytes.len() / tensor.shape[0]).enumerate();
        let one = |(expert, bytes): (usize, &[u8])| GgufTensor {
            name: format!("{before}.{expert}{after}"),
            shape: tensor.shape[1..].to_vec(),
            kind: tensor.kind,
            bytes: bytes.to_vec(),
        };
        each.map(one).collect()
    };
    file.tensors = file.tensors.into_iter().flat_map(apart).collect();
    assert!(file.tensors.iter().any(|tensor| tensor.name == "blk.0.ffn_gate.5.weight"));
    assert!(outcome(&opened(&file, directory.path()).unwrap(), WeightFormat::Bf16) == expected);
    file.tensors.retain(|tensor| tensor.name != "blk.0.ffn_gate.5.weight");
    let missing = opened(&file, directory.path()).unwrap();
    let error = missing.load_blocks(missing.config().all_blocks().unwrap(), WeightFormat::Bf16, &mut |_| ());
    assert!(error.unwrap_err().to_string().contains("experts.5.w1"));
}

#[test]
fn short_factors_are_for_files_that_are_not_longer_than_their_original() {
    let (directory, from) = synthetic(&long_phi3());
    let mut file = gguf_of(&from, &GgufTypes::all("bf16", "bf16")).unwrap();
    let expected = outcome(&from, WeightFormat::Bf16);
    let bend = |file: &mut GgufFile, name: &str| {
        let tensor = file.tensors.iter_mut().find(|tensor| tensor.name == name).unwrap();
        tensor.bytes = (0..24).flat_map(|i| (2.0 + i as f32).to_le_bytes()).collect();
    };
    bend(&mut file, "rope_factors_short.weight");
    assert!(outcome(&opened(&file, directory.path()).unwrap(), WeightFormat::Bf16) == expected);
    bend(&mut file, "rope_factors_long.weight");
    assert!(outcome(&opened(&file, directory.path()).unwrap(), WeightFormat::Bf16) != expected);
}

/// Keys and tensors that converters of other years wrote.
#[test]
fn what_changes_nothing_may_be_there_and_what_does_may_not() {
    let text = |value: &str| GgufValue::Text(value.into());
    let fine = [
        ("qwen3-moe", "qwen3moe.expert_gating_func", GgufValue::U32(1)),
        ("qwen3-moe", "qwen3moe.expert_weights_norm", GgufValue::Bool(true)),
        ("qwen3-moe", "qwen3moe.expert_shared_count", GgufValue::U32(0)),
        ("qwen2-tied-yarn", "qwen2.rope.scaling.finetuned", GgufValue::Bool(true)),
        ("qwen2-tied-yarn", "qwen2.rope.scaling.attn_factor", GgufValue::F32(1.0)),
        ("qwen2-tied-yarn", "qwen2.rope.scaling.yarn_log_multiplier", GgufValue::F32(0.5)),
        ("qwen2-tied-yarn", "qwen2.rope.scaling.yarn_ext_factor", GgufValue::F32(1.0)),
        ("qwen2", "qwen2.attention.sliding_window", GgufValue::U32(24)),
        ("gemma3", "gemma3.attention.key_length_swa", GgufValue::U32(64)),
        ("gemma3", "gemma3.rope.dimension_count_swa", GgufValue::U32(64)),
        ("gemma3", "gemma3.mm.tokens_per_image", GgufValue::U32(256)),
        ("gemma3", "gemma3.vision.block_count", GgufValue::U32(27)),
        ("gemma3", "gemma3.attention.sliding_window_pattern", GgufValue::U32(6)),
        ("gemma2", "general.quantized_by", text("somebody")),
    ];
    for (name, key, value) in fine {
        let (directory, from) = synthetic(&case(name));
        let mut file = gguf_of(&from, &GgufTypes::all("bf16", "bf16")).unwrap();
        file.put(key, value);
        let mut config = opened(&file, directory.path()).expect(key).config().clone();
        config.stored = None;
        assert_eq!(&config, from.config(), "{key}");
    }
    let not = [
        ("qwen3-moe", "qwen3moe.expert_gating_func", GgufValue::U32(2)),
        ("qwen3-moe", "qwen3moe.expert_shared_count", GgufValue::U32(1)),
        ("qwen2-tied-yarn", "qwen2.rope.scaling.yarn_ext_factor", GgufValue::F32(0.5)),
        ("gemma3", "gemma3.attention.key_length_swa", GgufValue::U32(32)),
        ("gemma2", "gemma2.vision.block_count", GgufValue::U32(27)),
        ("llama", "llama.expert_gating_func", GgufValue::U32(1)),
    ];
    for (name, key, value) in not {
        let (directory, from) = synthetic(&case(name));
        let mut file = gguf_of(&from, &GgufTypes::all("bf16", "bf16")).unwrap();
        file.put(key, value);
        let error = opened(&file, directory.path()).expect_err(key).to_string();
        assert!(error.contains(key), "{error}");
    }
}

/// Files with the part that sees pictures hold it under `v.` and `mm.`.
#[test]
fn what_sees_pictures_is_left_alone() {
    let (directory, from) = synthetic(&case("gemma3"));
    let mut file = gguf_of(&from, &GgufTypes::all("bf16", "bf16")).unwrap();
    let extra = |name: &str| GgufTensor { name: name.into(), shape: vec![2], kind: 0, bytes: vec![0; 8] };
    file.tensors.extend([extra("v.patch_embedding.bias"), extra("mm.mm_soft_emb_norm.weight")]);
    let expected = outcome(&from, WeightFormat::Bf16);
    assert!(outcome(&opened(&file, directory.path()).unwrap(), WeightFormat::Bf16) == expected);
    file.tensors.push(extra("audio.weight"));
    assert!(opened(&file, directory.path()).unwrap_err().to_string().contains("audio.weight"));
}
