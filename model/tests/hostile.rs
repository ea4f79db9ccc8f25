//! Damaged and hostile checkpoints are typed errors that name the file or tensor; nothing panics.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::path::Path;

use common::{open, range, synthetic};
use proptest::prelude::*;
use swarm_model::synthetic::SyntheticSpec;
use swarm_model::{Checkpoint, ModelError, ModelSpec};
use swarm_protocol::model_id::WeightFormat;

fn tiny() -> SyntheticSpec {
    SyntheticSpec {
        hidden: 8,
        intermediate: 12,
        blocks: 2,
        heads: 2,
        kv_heads: 1,
        head_dim: 4,
        vocab: 16,
        ..SyntheticSpec::default()
    }
}

fn load_all(checkpoint: &Checkpoint) -> Result<(), ModelError> {
    checkpoint.load_blocks(checkpoint.config().all_blocks()?, WeightFormat::F32, &mut |_| ())?;
    checkpoint.load_edges(WeightFormat::F32).map(|_| ())
}

fn try_all(directory: &Path) -> Result<(), ModelError> {
    load_all(&open(directory)?)
}

#[test]
fn what_is_missing_is_named() {
    let (directory, _) = synthetic(&SyntheticSpec { shards: 3, ..tiny() });
    fs::remove_file(directory.path().join("model-00002-of-00003.safetensors")).unwrap();
    let error = try_all(directory.path()).unwrap_err().to_string();
    assert!(error.contains("model-00002-of-00003.safetensors is missing"), "{error}");
    let empty = tempfile::tempdir().unwrap();
    let error = open(empty.path()).unwrap_err().to_string();
    assert!(error.contains("config.json is missing"), "{error}");
    fs::copy(directory.path().join("config.json"), empty.path().join("config.json")).unwrap();
    let error = open(empty.path()).unwrap_err().to_string();
    assert!(error.contains("model.safetensors is missing"), "{error}");
}

#[test]
fn a_file_cut_short_is_named_with_its_tensor() {
    let (directory, _) = synthetic(&tiny());
    let path = directory.path().join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let error = try_all(directory.path()).unwrap_err();
    assert!(matches!(&error, ModelError::Truncated { tensor, .. } if tensor == "model.norm.weight"), "{error}");
    assert!(error.to_string().contains("model.safetensors"));
    for length in [0, 1, 7, 8, 9, 100] {
        fs::write(&path, &bytes[..length]).unwrap();
        let error = try_all(directory.path()).unwrap_err();
        assert!(matches!(error, ModelError::BadFile { .. }), "{error}");
    }
}

/// Replaces text in the header by text of the same length.
fn edit_header(directory: &Path, from: &str, to: &str) {
    assert_eq!(from.len(), to.len());
    let path = directory.join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
    let edited = [&bytes[..at], to.as_bytes(), &bytes[at + from.len()..]].concat();
    fs::write(&path, edited).unwrap();
}

#[test]
fn shapes_types_and_names_are_checked() {
    type Expected = fn(&ModelError) -> bool;
    let cases: [(&str, &str, Expected); 3] = [
        ("[16,8]", "[8,16]", |e| matches!(e, ModelError::WrongShape { found, .. } if found == &[8, 16])),
        ("layers.1.mlp.up_proj", "layers.1.mlp.xx_proj", |e| matches!(e, ModelError::MissingTensor { .. })),
        ("\"BF16\"", "\"I16\" ", |e| matches!(e, ModelError::WrongType { .. })),
    ];
    for (from, to, expected) in cases {
        let (directory, _) = synthetic(&tiny());
        edit_header(directory.path(), from, to);
        let error = try_all(directory.path()).unwrap_err();
        assert!(expected(&error), "{error}");
        assert!(error.to_string().contains("model."), "{error}");
    }
}

#[test]
fn an_index_cannot_lead_elsewhere() {
    let (directory, _) = synthetic(&tiny());
    let index = directory.path().join("model.safetensors.index.json");
    for shard in ["../secret.safetensors", "/etc/passwd", "C:\\x.safetensors", ""] {
        let map = serde_json::json!({"weight_map": {"model.norm.weight": shard}});
        fs::write(&index, map.to_string()).unwrap();
        let error = open(directory.path()).unwrap_err();
        assert!(matches!(error, ModelError::BadFile { .. }), "{error}");
    }
    fs::write(&index, "{}").unwrap();
    assert!(matches!(open(directory.path()).unwrap_err(), ModelError::BadFile { .. }));
}

#[test]
fn a_range_past_the_model_is_named() {
    let demo = Checkpoint::open(&ModelSpec::Demo).unwrap();
    let error = demo.load_blocks(range(8, 13), WeightFormat::Bf16, &mut |_| ()).unwrap_err();
    assert!(error.to_string().contains("0..12") && error.to_string().contains("8..13"), "{error}");
}

#[test]
fn what_cannot_be_read_yet_says_what_can() {
    let text = "meta-llama/Llama-3.2-1B";
    let error = Checkpoint::open(&text.parse().unwrap()).unwrap_err();
    assert!(matches!(error, ModelError::UnsupportedSource { .. }));
    assert!(error.to_string().contains("demo") && error.to_string().contains(text), "{error}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Checkpoint::open(&ModelSpec::Gguf("nowhere/model.gguf".into())).unwrap_err();
    assert!(error.to_string().contains("nowhere/model.gguf"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_mutated_header_never_panics(changes in prop::collection::vec((0usize..2200, any::<u8>()), 1..4)) {
        let (directory, _) = synthetic(&tiny());
        let path = directory.path().join("model.safetensors");
        let mut bytes = fs::read(&path).unwrap();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        fs::write(&path, bytes).unwrap();
        let _ = try_all(directory.path());
    }

    #[test]
    fn a_mutated_config_never_panics(changes in prop::collection::vec((0usize..600, any::<u8>()), 1..4)) {
        let (directory, _) = synthetic(&tiny());
        let path = directory.path().join("config.json");
        let mut bytes = fs::read(&path).unwrap();
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        fs::write(&path, bytes).unwrap();
        let _ = try_all(directory.path());
    }
}
