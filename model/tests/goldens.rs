//! Every family computes what Hugging Face's `transformers` computes from the same files: logits and greedy texts that
//! `scripts/family-goldens` has written to `tests/goldens`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::BTreeMap;
use std::path::PathBuf;

use common::families::cases;
use common::{Whole, largest_difference, synthetic};
use serde::Deserialize;
use swarm_protocol::model_id::WeightFormat;

/// What the reference implementation computed for one checkpoint.
#[derive(Deserialize)]
struct Golden {
    prompt: Vec<u32>,
    /// Of every sixteenth id, at each position of `at`.
    logits: Vec<Vec<f32>>,
    at: Vec<usize>,
    greedy: Vec<u32>,
}

const EVERY: usize = 16;

fn goldens() -> BTreeMap<String, Golden> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/goldens/families.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn logits_and_greedy_texts_are_those_of_the_reference() {
    let goldens = goldens();
    for (name, spec) in cases() {
        let golden = goldens.get(name).unwrap_or_else(|| panic!("no golden for {name}"));
        let (_directory, checkpoint) = synthetic(&spec);
        let ours = Whole::load(&checkpoint, WeightFormat::F32);
        let logits = ours.logits(&ours.prefill(&golden.prompt));
        for (at, expected) in golden.at.iter().zip(&golden.logits) {
            let found: Vec<f32> = logits[*at].iter().copied().step_by(EVERY).collect();
            assert_eq!(found.len(), expected.len(), "{name}");
            let difference = largest_difference(&found, expected);
            assert!(difference < 1e-3, "{name} at {at}: {difference}");
        }
        assert_eq!(ours.greedy(&golden.prompt, golden.greedy.len()), golden.greedy, "{name}");
    }
    assert_eq!(goldens.len(), cases().len());
}

/// Writes the checkpoints for `scripts/family-goldens`.
#[test]
#[ignore = "a tool for scripts/family-goldens"]
fn write_checkpoints() {
    let directory = PathBuf::from(std::env::var("SWARM_GOLDENS").unwrap());
    for (name, spec) in cases() {
        let directory = directory.join(name);
        std::fs::create_dir_all(&directory).unwrap();
        spec.write(&directory).unwrap();
    }
}
