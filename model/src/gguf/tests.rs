//! What the format's own package wrote is read as it decodes it, and files that lie are refused.

use candle_core::{Device, Tensor as CandleTensor};
use proptest::prelude::*;
use swarm_protocol::model_id::WeightFormat;

use super::header::Header;
use super::*;
use crate::checkpoint::Checkpoint;
use crate::kernels::{QuantMatrix, QuantType, dequantise};
use crate::linear::Linear;
use crate::source::FileRange;
use crate::spec::ModelSpec;
use crate::synthetic::{GgufFile, GgufTensor, GgufTypes, GgufValue, SyntheticSpec, gguf_of};
use crate::weights::{Matrix, Values};

/// Written by `scripts/gguf-goldens`.
const TYPES: &[u8] = include_bytes!("../../tests/goldens/gguf/types.gguf");
const TYPES_F32: &[u8] = include_bytes!("../../tests/goldens/gguf/types.f32");

#[test]
fn every_type_holds_what_the_formats_own_package_decodes() {
    let header = Header::read(&TYPES, "types.gguf").unwrap();
    let expected: Vec<f32> = TYPES_F32.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    let mut quantised = 0;
    for (tensor, expected) in header.tensors.iter().zip(expected.chunks_exact(512)) {
        assert_eq!(tensor.shape, [2, 256], "{}", tensor.name);
        assert_eq!(tensor.name, tensor.stored.to_string());
        let StoredType::Quantised(kind) = tensor.stored else { continue };
        let bytes = &TYPES[tensor.bytes.start as usize..tensor.bytes.end as usize];
        let near = |found: &[f32], what: &str| {
            for (found, expected) in found.iter().zip(expected) {
                let far = (found - expected).abs();
                assert!(far <= 1e-5 * expected.abs().max(1.0), "{} {what}: {found} {expected}", tensor.name);
            }
        };
        near(&dequantise(kind, bytes).unwrap(), "dequantised");
        // Rows that are 1 in one place and 0 elsewhere bring each weight through the packed form.
        let values = Values::Quantised(QuantMatrix::pack(kind, bytes, 256).unwrap());
        let layer = Linear { weight: Matrix { outputs: 2, inner: 256, values }, bias: None };
        let one_hot = CandleTensor::eye(256, candle_core::DType::F32, &Device::Cpu).unwrap();
        let columns = layer.forward(&one_hot).unwrap().t().unwrap().flatten_all().unwrap();
        near(&columns.to_vec1::<f32>().unwrap(), "packed");
        quantised += 1;
    }
    assert_eq!((quantised, header.tensors.len()), (QuantType::ALL.len(), 12));
}

/// Files in memory.
#[derive(Debug)]
struct InMemory(&'static [u8]);

impl CheckpointFiles for InMemory {
    fn label(&self, name: &str) -> String {
        name.to_string()
    }

    fn open(&self, _name: &str) -> Result<Box<dyn ByteSource>, ModelError> {
        Ok(Box::new(self.0))
    }

    fn fetch(&self, _ranges: &[FileRange], _progress: &mut dyn FnMut(u64, u64)) -> Result<(), ModelError> {
        Ok(())
    }
}

/// Opens a file and reads all there is to read. Each call leaks the file: sources in memory are static.
fn read_all(bytes: Vec<u8>) -> Result<(), ModelError> {
    let files = std::sync::Arc::new(InMemory(Box::leak(bytes.into_boxed_slice())));
    let checkpoint = Checkpoint::open_gguf_files("small".into(), files, "small.gguf")?;
    checkpoint.load_edges(WeightFormat::Gguf).or_else(|_| checkpoint.load_edges(WeightFormat::F32))?;
    checkpoint.load_blocks(checkpoint.config().all_blocks()?, WeightFormat::F32, &mut |_| ())?;
    checkpoint.chat_template()?;
    checkpoint.generation_defaults()?;
    checkpoint.tokenizer().map(|_| ())
}

fn small() -> GgufFile {
    let spec = SyntheticSpec { hidden: 32, intermediate: 32, blocks: 1, heads: 2, kv_heads: 1, ..Default::default() };
    let directory = tempfile::tempdir().unwrap();
    spec.write(directory.path()).unwrap();
    let from = Checkpoint::open(&ModelSpec::Directory(directory.path().into())).unwrap();
    let mut file = gguf_of(&from, &GgufTypes::all("q8_0", "q4_0")).unwrap();
    // What is cut off or bent should be small against the whole.
    let short = |value: &mut GgufValue| match value {
        GgufValue::Texts(texts) => texts.truncate(300),
        GgufValue::I32s(values) => values.truncate(300),
        _ => (),
    };
    file.metadata.iter_mut().for_each(|(_, value)| short(value));
    file.metadata.retain(|(key, _)| key != "tokenizer.ggml.merges");
    file.put("tokenizer.ggml.merges", GgufValue::Texts(Vec::new()));
    file
}

#[test]
fn a_file_cut_short_anywhere_is_refused() {
    let whole = small().to_bytes();
    read_all(whole.clone()).unwrap();
    let header = Header::read(&&*Box::leak(whole.clone().into_boxed_slice()), "small.gguf").unwrap();
    let data = header.tensors.iter().map(|tensor| tensor.bytes.start).min().unwrap() as usize;
    let last = header.tensors.iter().map(|tensor| tensor.bytes.end).max().unwrap() as usize;
    for length in (0..data).step_by(7).chain([data, data + 1, last - 1]) {
        let source: &'static [u8] = Box::leak(whole[..length].to_vec().into_boxed_slice());
        let error = Header::read(&source, "small.gguf").unwrap_err();
        assert!(error.to_string().contains("small.gguf"), "{length}: {error}");
    }
}

fn refused(change: impl FnOnce(&mut GgufFile), says: &str) {
    let mut file = small();
    change(&mut file);
    let error = read_all(file.to_bytes()).expect_err(says).to_string();
    assert!(error.contains(says), "expected {says:?}: {error}");
}

fn tensor(file: &mut GgufFile, name: &str) -> usize {
    file.tensors.iter().position(|tensor| tensor.name == name).unwrap()
}

#[test]
fn what_is_not_understood_is_named() {
    let text = |value: &str| GgufValue::Text(value.into());
    let set = |file: &mut GgufFile, key: &str, value| {
        file.metadata.retain(|(own, _)| own != key);
        file.put(key, value);
    };
    refused(|file| set(file, "general.architecture", text("mamba")), "mamba");
    refused(|file| file.put("llama.attention.clamp_kqv", GgufValue::F32(8.0)), "llama.attention.clamp_kqv");
    refused(|file| file.put("llama.rope.scaling.type", text("spiral")), "spiral");
    refused(|file| set(file, "tokenizer.ggml.pre", text("kimi-k2")), "kimi-k2");
    refused(|file| set(file, "tokenizer.ggml.model", text("t5")), "t5");
    refused(|file| set(file, "llama.block_count", text("many")), "llama.block_count");
    refused(|file| set(file, "llama.attention.head_count", GgufValue::U32(0)), "head");
    refused(|file| set(file, "llama.attention.value_length", GgufValue::U32(8)), "value_length");
    refused(|file| set(file, "general.alignment", GgufValue::U32(7)), "general.alignment");
    refused(|file| file.put("llama.block_count", GgufValue::U32(1)), "twice");
    refused(
        |file| {
            let extra =
                GgufTensor { name: "blk.0.attn_sinks.weight".into(), shape: vec![2], kind: 0, bytes: vec![0; 8] };
            file.tensors.push(extra);
        },
        "blk.0.attn_sinks.weight",
    );
    let kind = |kind| {
        move |file: &mut GgufFile| {
            let place = tensor(file, "blk.0.attn_v.weight");
            file.tensors[place].kind = kind;
        }
    };
    refused(kind(10), "Q2_K");
    refused(kind(29), "IQ1_M");
    refused(kind(4_000_000_000), "4000000000");
    refused(kind(14), "impossible shape");
    let shape = |shape: Vec<usize>| {
        move |file: &mut GgufFile| {
            let place = tensor(file, "blk.0.attn_v.weight");
            file.tensors[place].shape = shape;
        }
    };
    refused(shape(vec![1 << 40, 1 << 40]), "blk.0.attn_v.weight");
    refused(shape(vec![0, 32]), "blk.0.attn_v.weight");
    refused(shape(vec![]), "0 dimensions");
    refused(shape(vec![1, 1, 1, 16, 32]), "5 dimensions");
    refused(shape(vec![64, 32]), "overlap");
    refused(
        |file| {
            let copy = file.tensors[0].clone();
            file.tensors.push(copy);
        },
        "twice",
    );
    let missing = |file: &mut GgufFile| file.tensors.retain(|tensor| tensor.name != "blk.0.ffn_up.weight");
    refused(missing, "mlp.up_proj");
}

#[test]
fn counts_that_lie_are_refused_before_memory_is_taken() {
    let whole = small().to_bytes();
    for (place, says) in [(8, "tensors"), (16, "entries")] {
        let mut bytes = whole.clone();
        bytes[place..place + 8].copy_from_slice(&u64::MAX.to_le_bytes());
        let error = read_all(bytes).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    for (bytes, says) in [(b"GGML".to_vec(), "GGUF"), (vec![], "cut short")] {
        assert!(read_all(bytes).unwrap_err().to_string().contains(says));
    }
    let version = |version: u32| {
        let mut bytes = whole.clone();
        bytes[4..8].copy_from_slice(&version.to_le_bytes());
        read_all(bytes)
    };
    version(2).unwrap();
    assert!(version(1).unwrap_err().to_string().contains("version 1"));
    assert!(version(3u32.swap_bytes()).unwrap_err().to_string().contains("big-endian"));
    // An array of arrays of arrays, and one that claims to be long.
    for (deep, says) in [(true, "arrays"), (false, "cut short")] {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(3u32.to_le_bytes());
        bytes.extend(0u64.to_le_bytes());
        bytes.extend(1u64.to_le_bytes());
        bytes.extend(1u64.to_le_bytes());
        bytes.push(b'x');
        bytes.extend(9u32.to_le_bytes());
        for _ in 0..if deep { 64 } else { 1 } {
            bytes.extend((if deep { 9u32 } else { 8 }).to_le_bytes());
            bytes.extend((if deep { 1 } else { u64::MAX }).to_le_bytes());
        }
        let error = read_all(bytes).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever is bent, there is an answer and no panic.
    #[test]
    fn mutated_bytes_never_panic(bends in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        static WHOLE: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| small().to_bytes());
        let mut bytes = WHOLE.clone();
        // The header is where files lie.
        let header = bytes.len() - small_data();
        for (place, value) in bends {
            bytes[place.index(header)] = value;
        }
        let _ = read_all(bytes);
    }
}

/// Bytes of the tensors of [`small`].
fn small_data() -> usize {
    static BYTES: std::sync::LazyLock<usize> =
        std::sync::LazyLock::new(|| small().tensors.iter().map(|tensor| tensor.bytes.len()).sum());
    *BYTES
}
