//! Tokens, logits and text of GGUF files are llama.cpp's; the files and its answers were written by `scripts/gguf-goldens`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::path::Path;

use common::families::gguf_cases;
use common::{Whole, largest_difference, synthetic};
use serde_json::Value;
use swarm_model::synthetic::{GgufTypes, GgufValue, SyntheticSpec, gguf_of, write_gguf};
use swarm_model::{Checkpoint, ModelSpec};
use swarm_protocol::model_id::WeightFormat;

/// llama.cpp rounds activations to the weights' 16 bits before each product.
const NEAR: f32 = 0.02;

fn golden(name: &str) -> (Checkpoint, Value) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/gguf");
    let told = std::fs::read(directory.join("llama.json")).unwrap();
    let told: Value = serde_json::from_slice(&told).unwrap();
    let checkpoint = Checkpoint::open(&ModelSpec::Gguf(directory.join(format!("{name}.gguf")))).unwrap();
    (checkpoint, told[name].clone())
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

#[test]
fn tokens_are_those_of_llama_cpp() {
    for name in ["spm", "bpe"] {
        let (checkpoint, told) = golden(name);
        let tokenizer = checkpoint.tokenizer().unwrap();
        for pair in told["texts"].as_array().unwrap() {
            let text = pair[0].as_str().unwrap();
            assert_eq!(tokenizer.encode(text, true).unwrap(), ids(&pair[1]), "{name} {text:?}");
        }
    }
}

#[test]
fn logits_and_greedy_text_are_those_of_llama_cpp() {
    for name in ["spm", "bpe"] {
        let (checkpoint, told) = golden(name);
        let whole = Whole::load(&checkpoint, WeightFormat::F32);
        let prompt = ids(&told["prompt"]);
        let logits = whole.logits(&whole.prefill(&prompt)).pop().unwrap();
        let expected: Vec<f32> =
            told["logits"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect();
        let far = largest_difference(&logits, &expected);
        assert!(far < NEAR, "{name}: {far} from llama.cpp");
        let answer = ids(&told["answer"]);
        assert_eq!(whole.greedy(&prompt, answer.len()), answer, "{name}");
    }
}

/// Cases of which llama.cpp computes all there is: it knows no windows in Llamas, and leaves out those of Phi-3.
const FAMILIES: [&str; 14] = [
    "llama",
    "mixtral-all",
    "qwen2",
    "qwen2-tied-yarn",
    "qwen3",
    "qwen3-tied-yarn",
    "qwen3-moe",
    "qwen3-moe-yarn",
    "gemma2",
    "gemma3",
    "gemma3-linear",
    "phi3-all",
    "phi3-part",
    "phi3-long",
];
/// Of the last logits, every so manyth is kept.
const EVERY: usize = 16;
/// As far as sums in another order take logits of a few units.
const NEAR_F32: f32 = 2e-3;

/// More files: a case with one more key.
const KEYS: [(&str, &str, &str, f32); 2] = [
    ("qwen2-yarn-factor", "qwen2-tied-yarn", "qwen2.rope.scaling.attn_factor", 0.75),
    ("qwen2-yarn-multiplier", "qwen2-tied-yarn", "qwen2.rope.scaling.yarn_log_multiplier", 0.5),
];

fn names() -> impl Iterator<Item = &'static str> {
    FAMILIES.into_iter().chain(KEYS.map(|(name, ..)| name))
}

fn written(name: &str, directory: &Path) -> Checkpoint {
    let more = KEYS.iter().find(|(own, ..)| *own == name);
    let of = more.map_or(name, |(_, of, ..)| of);
    let spec = gguf_cases().into_iter().find(|(own, _)| *own == of).unwrap().1;
    let (_directory, from) = synthetic(&SyntheticSpec { dtype: WeightFormat::F32, ..spec });
    let mut file = gguf_of(&from, &GgufTypes::all("f32", "f32")).unwrap();
    if let Some((.., key, value)) = more {
        file.put(*key, GgufValue::F32(*value));
    }
    let path = write_gguf(&file, &directory.join(format!("{name}.gguf")), 1).unwrap();
    Checkpoint::open(&ModelSpec::Gguf(path)).unwrap()
}

#[test]
fn families_compute_what_llama_cpp_does() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/gguf/families.json");
    let told: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    for name in names() {
        let directory = tempfile::tempdir().unwrap();
        let whole = Whole::load(&written(name, directory.path()), WeightFormat::F32);
        let (prompt, answer) = (ids(&told[name]["prompt"]), ids(&told[name]["answer"]));
        let logits = whole.logits(&whole.prefill(&prompt)).pop().unwrap();
        let found: Vec<f32> = logits.into_iter().step_by(EVERY).collect();
        let expected = told[name]["logits"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32);
        let far = largest_difference(&found, &expected.collect::<Vec<_>>());
        assert!(far < NEAR_F32, "{name}: {far} from llama.cpp");
        assert_eq!(whole.greedy(&prompt, answer.len()), answer, "{name}");
    }
}

/// Writes the files that `scripts/gguf-goldens` lets llama.cpp compute.
#[test]
#[ignore = "a tool for scripts/gguf-goldens"]
fn write_files() {
    let directory = std::path::PathBuf::from(std::env::var("SWARM_GOLDENS").unwrap());
    names().for_each(|name| drop(written(name, &directory)));
}
