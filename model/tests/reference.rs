//! Our logits are those of candle-transformers' Llama.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Reference, Whole, largest_difference, safetensors_files, synthetic};
use swarm_model::synthetic::SyntheticSpec;
use swarm_model::{Checkpoint, ModelSpec, RopeScaling};
use swarm_protocol::model_id::WeightFormat;

const PROMPTS: [&str; 20] = [
    "Once upon a time",
    "One night, a big storm came.",
    "In a little village, there lived",
    "There once was a curious elephant",
    "This is the story of Max, a shy penguin",
    "The fox",
    "Luna the owl",
    "It was a sunny day",
    "Deep in the forest",
    "A turtle named Rosie",
    "Once upon a time, there was a brave fox named Luna.",
    "\"Hello!\" said the crow.",
    "Tom was sad because",
    "The end of the",
    "She looked at the moon and",
    "Every morning",
    "Ben and Ada",
    "Far away,",
    "What is",
    "a",
];

#[test]
fn logits_of_the_demo_model_agree() {
    let (ours, theirs) = (Whole::demo(WeightFormat::F32), Reference::demo());
    let tokenizer = Checkpoint::open(&ModelSpec::Demo).unwrap().tokenizer().unwrap();
    for prompt in PROMPTS {
        let ids = tokenizer.encode(prompt, true).unwrap();
        let logits = ours.logits(&ours.prefill(&ids)).pop().unwrap();
        let expected = theirs.step(&mut theirs.cache(), 0, &ids);
        let difference = largest_difference(&logits, &expected);
        assert!(difference < 1e-4, "{prompt}: {difference}");
    }
}

#[test]
fn greedy_text_of_the_demo_model_is_the_same() {
    let (ours, theirs) = (Whole::demo(WeightFormat::F32), Reference::demo());
    let tokenizer = Checkpoint::open(&ModelSpec::Demo).unwrap().tokenizer().unwrap();
    for prompt in PROMPTS {
        let ids = tokenizer.encode(prompt, true).unwrap();
        assert_eq!(ours.greedy(&ids, 64), theirs.greedy(&ids, 64), "{prompt}");
    }
}

#[test]
fn other_shapes_agree_too() {
    let llama3 = RopeScaling::Llama3 {
        factor: 8.0,
        low_frequency_factor: 1.0,
        high_frequency_factor: 4.0,
        original_positions: 64,
    };
    let plain = SyntheticSpec::default;
    let specs = [
        plain(),
        SyntheticSpec { tied: false, dtype: WeightFormat::F32, kv_heads: 4, ..plain() },
        SyntheticSpec { tied: false, shards: 3, rope_scaling: llama3, rope_theta: 500_000.0, ..plain() },
        SyntheticSpec { dtype: WeightFormat::F16, heads: 8, kv_heads: 2, head_dim: 8, ..plain() },
        SyntheticSpec { hidden: 60, heads: 6, kv_heads: 3, head_dim: 10, intermediate: 101, ..plain() },
        SyntheticSpec { heads: 8, kv_heads: 1, head_dim: 8, vocab: 1031, shards: 2, ..plain() },
    ];
    for spec in specs {
        let (directory, checkpoint) = synthetic(&spec);
        let ours = Whole::load(&checkpoint, WeightFormat::F32);
        let theirs = Reference::new(checkpoint.config(), &safetensors_files(directory.path()));
        let ids: Vec<u32> = (0..150).map(|i| i * 37 % 1000).collect();
        let logits = ours.logits(&ours.prefill(&ids)).pop().unwrap();
        let expected = theirs.step(&mut theirs.cache(), 0, &ids);
        let difference = largest_difference(&logits, &expected);
        assert!(difference < 1e-4, "{spec:?}: {difference}");
    }
}

#[test]
fn fewer_bits_stay_near() {
    let exact = Whole::demo(WeightFormat::F32);
    let ids = [0, 300, 301, 302, 400, 500];
    let expected = exact.logits(&exact.prefill(&ids)).pop().unwrap();
    let formats = [
        (WeightFormat::Bf16, 0.5),
        (WeightFormat::F16, 0.1),
        (WeightFormat::Q8_0, 0.8),
        (WeightFormat::Q4_0, 5.0),
        (WeightFormat::Q4K, 5.0),
    ];
    for (format, near) in formats {
        let rounded = Whole::demo(format);
        let logits = rounded.logits(&rounded.prefill(&ids)).pop().unwrap();
        let difference = largest_difference(&logits, &expected);
        assert!(difference > 0.0 && difference < near, "{format}: {difference}");
    }
}
