//! gpt-oss as it is published: all experts of a block in one tensor, in MXFP4 or turned.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use common::{Whole, bits, range, synthetic};
use half::bf16;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use swarm_model::synthetic::SyntheticSpec;
use swarm_model::{Checkpoint, Family, ModelConfig, ModelError, ModelPart};
use swarm_protocol::model_id::WeightFormat;

const BLOCKS: usize = 4;
const EXPERTS: usize = 5;
const HIDDEN: usize = 64;
const INTERMEDIATE: usize = 96;

/// What a nibble stands for.
const ELEMENTS: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];

/// Name to type, shape and bytes.
type Contents = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

fn spec() -> SyntheticSpec {
    SyntheticSpec { intermediate: INTERMEDIATE, blocks: BLOCKS, hidden: HIDDEN, ..SyntheticSpec::of(Family::GptOss) }
}

fn read(directory: &Path) -> Contents {
    let bytes = std::fs::read(directory.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = file.tensors().into_iter();
    tensors.map(|(name, view)| (name, (view.dtype(), view.shape().to_vec(), view.data().to_vec()))).collect()
}

/// Writes files beside the configuration of `directory`, which are those `in_file` names for each tensor.
fn write(directory: &Path, contents: &Contents, in_file: impl Fn(&str) -> usize) {
    // The old file may be mapped: another one takes its place.
    std::fs::remove_file(directory.join("model.safetensors")).ok();
    let mut files: BTreeMap<usize, Vec<&String>> = BTreeMap::new();
    contents.keys().for_each(|name| files.entry(in_file(name)).or_default().push(name));
    let mut map = serde_json::Map::new();
    let single = files.len() == 1;
    for (number, names) in &files {
        let file = if single { "model.safetensors".into() } else { format!("part-{number}.safetensors") };
        let views = names.iter().map(|name| {
            let (dtype, shape, bytes) = &contents[*name];
            (name.as_str(), safetensors::tensor::TensorView::new(*dtype, shape.clone(), bytes).unwrap())
        });
        std::fs::write(directory.join(&file), safetensors::serialize(views, None).unwrap()).unwrap();
        names.iter().for_each(|name| drop(map.insert((*name).clone(), json!(file))));
    }
    if !single {
        let index = json!({"weight_map": map}).to_string();
        std::fs::write(directory.join("model.safetensors.index.json"), index).unwrap();
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(2).map(|two| bf16::from_le_bytes([two[0], two[1]]).to_f32()).collect()
}

fn bytes(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    values.into_iter().flat_map(|value| bf16::from_f32(value).to_le_bytes()).collect()
}

fn expert(block: usize, expert: usize, part: &str) -> String {
    format!("model.layers.{block}.mlp.experts.{expert}.{part}")
}

/// Each expert's rows of gate and up in turn, and those of down; their biases likewise.
struct Stacks {
    gate_up: Vec<Vec<f32>>,
    down: Vec<Vec<f32>>,
    gate_up_bias: Vec<f32>,
    down_bias: Vec<f32>,
}

/// Takes the experts of a block out of `contents`.
fn take(contents: &mut Contents, block: usize) -> Stacks {
    let mut values = |number: usize, part: &str| floats(&contents.remove(&expert(block, number, part)).unwrap().2);
    let in_turn = |gate: &[f32], up: &[f32], width: usize| -> Vec<f32> {
        gate.chunks(width).zip(up.chunks(width)).flat_map(|(gate, up)| [gate, up].concat()).collect()
    };
    let mut stacks = Stacks { gate_up: vec![], down: vec![], gate_up_bias: vec![], down_bias: vec![] };
    for number in 0..EXPERTS {
        let [gate, up] = ["gate_proj.weight", "up_proj.weight"].map(|part| values(number, part));
        stacks.gate_up.push(in_turn(&gate, &up, HIDDEN));
        stacks.down.push(values(number, "down_proj.weight"));
        let [gate, up] = ["gate_proj.bias", "up_proj.bias"].map(|part| values(number, part));
        stacks.gate_up_bias.extend(in_turn(&gate, &up, 1));
        stacks.down_bias.extend(values(number, "down_proj.bias"));
    }
    stacks
}

fn put_biases(contents: &mut Contents, block: usize, stacks: &Stacks) {
    let name = |part: &str| format!("model.layers.{block}.mlp.experts.{part}");
    let gate_up = (Dtype::BF16, vec![EXPERTS, 2 * INTERMEDIATE], bytes(stacks.gate_up_bias.clone()));
    contents.insert(name("gate_up_proj_bias"), gate_up);
    let down = (Dtype::BF16, vec![EXPERTS, HIDDEN], bytes(stacks.down_bias.clone()));
    contents.insert(name("down_proj_bias"), down);
}

/// 32 values in MXFP4: the scale's byte, the nibbles, and what they stand for. The nearest of all elements is taken.
fn microscaled(values: &[f32]) -> (u8, Vec<u8>, Vec<f32>) {
    let largest = values.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    let exponent = (largest / 6.0).log2().ceil() as i32;
    let scale = 2.0f32.powi(exponent);
    let nearest = |value: &f32| {
        let distance = |nibble: &usize| (ELEMENTS[*nibble] * scale - value.abs()).abs();
        let nibble = (0..8).min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap();
        let sign = value.is_sign_negative();
        (nibble as u8 | u8::from(sign) << 3, if sign { -1.0 } else { 1.0 } * ELEMENTS[nibble] * scale)
    };
    let (nibbles, stand_for): (Vec<u8>, Vec<f32>) = values.iter().map(nearest).unzip();
    ((exponent + 127) as u8, nibbles, stand_for)
}

/// Puts a stack of matrices with rows of `inner` into `contents` as elements and scales, and replaces its values by what these
/// stand for.
fn put_microscaled(contents: &mut Contents, name: &str, stack: &mut [Vec<f32>], inner: usize) {
    let (mut blocks, mut scales) = (Vec::new(), Vec::new());
    for matrix in stack.iter_mut() {
        for cell in matrix.chunks_exact_mut(32) {
            let (scale, nibbles, stand_for) = microscaled(cell);
            scales.push(scale);
            blocks.extend(nibbles.chunks(2).map(|two| two[0] | two[1] << 4));
            cell.copy_from_slice(&stand_for);
        }
    }
    let rows = stack[0].len() / inner;
    contents.insert(format!("{name}_blocks"), (Dtype::U8, vec![EXPERTS, rows, inner / 32, 16], blocks));
    contents.insert(format!("{name}_scales"), (Dtype::U8, vec![EXPERTS, rows, inner / 32], scales));
}

/// Puts the experts of a block back under names of their own.
fn put_apart(contents: &mut Contents, block: usize, stacks: &Stacks) {
    let mut put = |number: usize, part: &str, shape: Vec<usize>, values: Vec<f32>| {
        contents.insert(expert(block, number, part), (Dtype::BF16, shape, bytes(values)));
    };
    let every_other = |values: &[f32], width: usize, first: usize| -> Vec<f32> {
        values.chunks(width).skip(first).step_by(2).flatten().copied().collect()
    };
    for number in 0..EXPERTS {
        let biases = &stacks.gate_up_bias[number * 2 * INTERMEDIATE..][..2 * INTERMEDIATE];
        for (first, part) in ["gate_proj", "up_proj"].into_iter().enumerate() {
            let weights = every_other(&stacks.gate_up[number], HIDDEN, first);
            put(number, &format!("{part}.weight"), vec![INTERMEDIATE, HIDDEN], weights);
            put(number, &format!("{part}.bias"), vec![INTERMEDIATE], every_other(biases, 1, first));
        }
        put(number, "down_proj.weight", vec![HIDDEN, INTERMEDIATE], stacks.down[number].clone());
        put(number, "down_proj.bias", vec![HIDDEN], stacks.down_bias[number * HIDDEN..][..HIDDEN].to_vec());
    }
}

fn set(directory: &Path, key: &str, value: Value) {
    let path = directory.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config[key] = value;
    std::fs::write(path, config.to_string()).unwrap();
}

/// A checkpoint as it is published, and one that holds the same values in bf16, each expert apart.
fn published() -> [tempfile::TempDir; 2] {
    let (apart, _) = synthetic(&spec());
    let (packed, _) = synthetic(&spec());
    let mut plain = read(apart.path());
    let mut contents = plain.clone();
    for block in 0..BLOCKS {
        let mut stacks = take(&mut contents, block);
        take(&mut plain, block);
        let name = |part: &str| format!("model.layers.{block}.mlp.experts.{part}");
        put_biases(&mut contents, block, &stacks);
        put_microscaled(&mut contents, &name("gate_up_proj"), &mut stacks.gate_up, HIDDEN);
        put_microscaled(&mut contents, &name("down_proj"), &mut stacks.down, INTERMEDIATE);
        put_apart(&mut plain, block, &stacks);
    }
    write(apart.path(), &plain, |_| 0);
    // Scales lie in another file than what they scale.
    write(packed.path(), &contents, |name| usize::from(name.ends_with("_scales")));
    set(packed.path(), "quantization_config", json!({"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}));
    [packed, apart]
}

fn open(directory: &Path) -> Checkpoint {
    common::open(directory).unwrap()
}

fn ids() -> Vec<u32> {
    (0..80).map(|i| (i * 131 + 7) % 1000).collect()
}

#[test]
fn turned_stacks_are_the_same_experts() {
    let (apart, plain) = synthetic(&spec());
    let (turned, _) = synthetic(&spec());
    let mut contents = read(apart.path());
    for block in 0..BLOCKS {
        let stacks = take(&mut contents, block);
        put_biases(&mut contents, block, &stacks);
        for (part, stack, inner) in
            [("gate_up_proj", &stacks.gate_up, HIDDEN), ("down_proj", &stacks.down, INTERMEDIATE)]
        {
            let rows = stack[0].len() / inner;
            let turn = |matrix: &Vec<f32>| -> Vec<f32> {
                (0..inner)
                    .flat_map(|column| (0..rows).map(move |row| row * inner + column))
                    .map(|i| matrix[i])
                    .collect()
            };
            let values = stack.iter().flat_map(turn);
            let name = format!("model.layers.{block}.mlp.experts.{part}");
            contents.insert(name, (Dtype::BF16, vec![EXPERTS, inner, rows], bytes(values)));
        }
    }
    write(turned.path(), &contents, |_| 0);
    let turned = open(turned.path());
    assert_eq!(turned.id(WeightFormat::Bf16), plain.id(WeightFormat::Bf16));
    for format in [WeightFormat::Bf16, WeightFormat::Q8_0] {
        let [a, b] = [&turned, &plain].map(|checkpoint| Whole::load(checkpoint, format));
        assert!(bits(&a.prefill(&ids())) == bits(&b.prefill(&ids())), "{format}");
    }
}

#[test]
fn experts_in_mxfp4_are_what_they_stand_for() {
    let [packed, apart] = published();
    let [packed, apart] = [open(packed.path()), open(apart.path())];
    assert_ne!(packed.id(WeightFormat::Bf16), apart.id(WeightFormat::Bf16));
    for format in [WeightFormat::F32, WeightFormat::Q8_0] {
        let [a, b] = [&packed, &apart].map(|checkpoint| Whole::load(checkpoint, format));
        assert!(bits(&a.prefill(&ids())) == bits(&b.prefill(&ids())), "{format}");
    }
    // As they are stored, rows are multiplied in eight bits, as with other quantised formats.
    let exact = Whole::load(&apart, WeightFormat::F32);
    let exact = exact.logits(&exact.prefill(&ids()));
    let norm = |rows: &[Vec<f32>]| rows.iter().flatten().map(|value| value * value).sum::<f32>().sqrt();
    let formats = [(&packed, WeightFormat::Bf16), (&apart, WeightFormat::Q8_0)];
    let [packed, q8_0] = formats.map(|(checkpoint, format)| {
        let whole = Whole::load(checkpoint, format);
        let found = whole.logits(&whole.prefill(&ids()));
        let apart = |(a, b): (&Vec<f32>, &Vec<f32>)| -> Vec<f32> { a.iter().zip(b).map(|(a, b)| a - b).collect() };
        norm(&found.iter().zip(&exact).map(apart).collect::<Vec<_>>()) / norm(&exact)
    });
    assert!(packed < 0.06 && packed < 1.5 * q8_0, "{packed} {q8_0}");
}

#[test]
fn a_candle_device_computes_them_up_to_rounding() {
    let [packed, _] = published();
    let packed = open(packed.path());
    let device = "cpu-candle".parse::<swarm_model::DeviceChoice>().unwrap().open().unwrap();
    let [ours, theirs] = [Whole::load(&packed, WeightFormat::F32), Whole::load_on(&device, &packed, WeightFormat::F32)];
    let (a, b) = (ours.logits(&ours.prefill(&ids())), theirs.logits(&theirs.prefill(&ids())));
    let difference = a.iter().zip(&b).map(|(a, b)| common::largest_difference(a, b)).fold(0.0, f32::max);
    assert!(difference < 1e-3, "{difference}");
    Whole::load_on(&device, &packed, WeightFormat::Bf16).prefill(&ids());
}

#[test]
fn only_the_bytes_of_the_range_are_named_and_memory_is_estimated() {
    let [packed, _] = published();
    let checkpoint = open(packed.path());
    let of = |from, to| {
        let mut bytes: Vec<(String, u64)> = Vec::new();
        for range in checkpoint.byte_ranges(ModelPart::Blocks(range(from, to))) {
            bytes.extend(range.bytes.map(|byte| (range.file.clone(), byte)));
        }
        bytes.sort();
        bytes.dedup();
        bytes
    };
    let (first, rest, all) = (of(0, 1), of(1, 4), of(0, 4));
    assert_eq!(first.len() + rest.len(), all.len());
    assert!(first.iter().all(|byte| rest.binary_search(byte).is_err()));
    let mut last = None;
    checkpoint.load_blocks(range(0, 4), WeightFormat::Bf16, &mut |progress| last = Some(progress)).unwrap();
    let progress = last.unwrap();
    assert_eq!((progress.bytes_done, progress.bytes_total), (all.len() as u64, all.len() as u64));
    let estimate = 4 * checkpoint.config().block_bytes(WeightFormat::Bf16);
    assert!(estimate >= progress.bytes_total && estimate < 2 * progress.bytes_total, "{estimate}");
}

#[test]
fn what_does_not_fit_is_named() {
    let spoil = |change: &dyn Fn(&mut Contents)| {
        let [packed, _] = published();
        let file = packed.path().join("part-1.safetensors");
        let bytes = std::fs::read(&file).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap().tensors();
        let mut scales: Contents =
            tensors.into_iter().map(|(n, v)| (n, (v.dtype(), v.shape().to_vec(), v.data().to_vec()))).collect();
        change(&mut scales);
        let views = scales.iter().map(|(name, (dtype, shape, bytes))| {
            (name.as_str(), safetensors::tensor::TensorView::new(*dtype, shape.clone(), bytes).unwrap())
        });
        std::fs::remove_file(&file).unwrap();
        std::fs::write(&file, safetensors::serialize(views, None).unwrap()).unwrap();
        let Err(error) = common::open(packed.path()) else { panic!("it does not fit") };
        error
    };
    let name = "model.layers.2.mlp.experts.down_proj_scales";
    let missing = spoil(&|scales| drop(scales.remove(name)));
    assert!(matches!(&missing, ModelError::MissingTensor { tensor } if tensor == name), "{missing}");
    let shape = spoil(&|scales| {
        let (_, shape, _) = scales.get_mut(name).unwrap();
        shape.swap(0, 1);
    });
    assert!(matches!(&shape, ModelError::WrongShape { tensor, .. } if tensor == name), "{shape}");
    let kind = spoil(&|scales| {
        let (dtype, _, bytes) = scales.get_mut(name).unwrap();
        *dtype = Dtype::BF16;
        *bytes = bytes.repeat(2);
    });
    assert!(matches!(&kind, ModelError::WrongType { .. }), "{kind}");
}

#[test]
fn the_published_configuration_is_understood() {
    let window = |block: usize| if block.is_multiple_of(2) { "sliding_attention" } else { "full_attention" };
    let config = json!({
        "architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss", "attention_bias": true, "attention_dropout": 0.0,
        "eos_token_id": 200_002, "pad_token_id": 199_999, "experts_per_token": 4, "num_experts_per_tok": 4,
        "num_local_experts": 32, "head_dim": 64, "hidden_act": "silu", "hidden_size": 2880, "intermediate_size": 2880,
        "initial_context_length": 4096, "initializer_range": 0.02, "max_position_embeddings": 131_072,
        "layer_types": (0..24).map(window).collect::<Vec<_>>(), "num_attention_heads": 64, "num_hidden_layers": 24,
        "num_key_value_heads": 8, "output_router_logits": false, "rms_norm_eps": 1e-5, "rope_theta": 150_000,
        "rope_scaling": {
            "beta_fast": 32.0, "beta_slow": 1.0, "factor": 32.0, "original_max_position_embeddings": 4096,
            "rope_type": "yarn", "truncate": false,
        },
        "quantization_config": {
            "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router", "lm_head"],
            "quant_method": "mxfp4",
        },
        "router_aux_loss_coef": 0.9, "sliding_window": 128, "swiglu_limit": 7.0, "tie_word_embeddings": false,
        "transformers_version": "4.55.0.dev0", "use_cache": true, "vocab_size": 201_088,
    });
    let config = ModelConfig::parse(config.to_string().as_bytes()).unwrap();
    assert!(config.experts.unwrap().mxfp4);
    // 796 million weights of experts in 18 bytes each 32, and 27 million others in bf16.
    let block = config.block_bytes(WeightFormat::Bf16);
    assert!((495_000_000..510_000_000).contains(&block), "{block}");
}
