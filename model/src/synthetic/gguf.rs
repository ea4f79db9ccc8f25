//! A checkpoint as a GGUF file, as llama.cpp's converter and quantiser would write it.

use std::path::Path;

use blake3::Hasher;
use half::{bf16, f16};
use serde_json::Value;
use swarm_protocol::wire::ElementType;

use super::gguf_config::put_config;
use super::gguf_file::{GgufFile, GgufTensor, GgufValue};
use super::gguf_names::{Names, Piece};
use crate::checkpoint::Checkpoint;
use crate::config::ModelConfig;
use crate::error::ModelError;
use crate::gguf::type_number;
use crate::kernels::{Element, GgmlRows, QuantType};
use crate::rope::{Rope, RopeScaling};
use crate::stored_type::StoredType;
use crate::tensors::Tensors;

/// The types of the tensors of a GGUF file, by the names that `--format` has for them, and q4_1, q5_0, q5_1, q5_k and q6_k.
#[derive(Debug, Clone)]
pub struct GgufTypes {
    /// The blocks' matrices.
    pub matrices: &'static str,
    /// Those of values and of the feed-forward part's way down, of which mixed files think more.
    pub careful: &'static str,
    /// Embedding and head.
    pub edges: &'static str,
}

impl GgufTypes {
    /// One type for all blocks.
    pub fn all(matrices: &'static str, edges: &'static str) -> Self {
        Self { matrices, careful: matrices, edges }
    }
}

/// What `checkpoint`, which is no GGUF file, is as one. What the format has no words for is lost: windows of Qwen's models,
/// blocks of Qwen3-MoE without experts, a scale of Gemma's queries that is not their width's.
///
/// # Errors
/// [`ModelError`] if a tensor is missing, its rows are no whole blocks of a type, or no GGUF file has the family's models.
pub fn gguf_of(checkpoint: &Checkpoint, types: &GgufTypes) -> Result<GgufFile, ModelError> {
    let mut file = GgufFile::default();
    let (config, tensors) = (checkpoint.config(), checkpoint.tensors());
    put_config(&mut file, checkpoint.name(), config)?;
    put_tokenizer(&mut file, checkpoint)?;
    let names = Names { config, types };
    for piece in names.all() {
        file.tensors.push(tensor(config, tensors, piece)?);
    }
    file.tensors.extend(factors(&config.rope));
    Ok(file)
}

/// Writes [`gguf_of`] to `path`, in so many parts; gives the first one's path.
///
/// # Errors
/// Those of [`gguf_of`], and [`ModelError::Io`] if a file cannot be written.
pub fn write_gguf(file: &GgufFile, path: &Path, parts: usize) -> Result<std::path::PathBuf, ModelError> {
    let write = |path: &Path, file: &GgufFile| {
        // Somebody may have the file mapped that was here before.
        let _ = std::fs::remove_file(path);
        std::fs::write(path, file.to_bytes()).map_err(|error| ModelError::io(path.display().to_string(), error))
    };
    if parts <= 1 {
        write(path, file)?;
        return Ok(path.to_path_buf());
    }
    let stem = path.with_extension("").display().to_string();
    let name = |index: usize| format!("{stem}-{:05}-of-{parts:05}.gguf", index + 1);
    let each = file.tensors.len().div_ceil(parts);
    for index in 0..parts {
        let tensors = file.tensors.iter().skip(index * each).take(each).cloned().collect();
        let mut part = GgufFile { metadata: if index == 0 { file.metadata.clone() } else { Vec::new() }, tensors };
        part.put("split.no", GgufValue::U16(index as u16));
        part.put("split.count", GgufValue::U16(parts as u16));
        part.put("split.tensors.count", GgufValue::I32(file.tensors.len() as i32));
        write(Path::new(&name(index)), &part)?;
    }
    Ok(name(0).into())
}

/// The tokenizer, which must be a byte-level one that cuts as GPT-2's, and the chat template.
fn put_tokenizer(file: &mut GgufFile, checkpoint: &Checkpoint) -> Result<(), ModelError> {
    let json = |name: &str| {
        let bytes = checkpoint.read_json(name)?;
        serde_json::from_slice::<Value>(&bytes).map_err(|error| ModelError::file(name, error))
    };
    let tokenizer = json("tokenizer.json")?;
    let mut tokens = vec![String::new(); checkpoint.config().vocab];
    for (token, id) in tokenizer["model"]["vocab"].as_object().into_iter().flatten() {
        if let Some(place) = id.as_u64().and_then(|id| tokens.get_mut(id as usize)) {
            *place = token.clone();
        }
    }
    let mut kinds = vec![1; tokens.len()];
    for added in tokenizer["added_tokens"].as_array().into_iter().flatten() {
        if let Some(kind) = added["id"].as_u64().and_then(|id| kinds.get_mut(id as usize)) {
            *kind = 3;
        }
    }
    let merges = tokenizer["model"]["merges"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let merges = merges.map(|pair| format!("{} {}", text(&pair[0]), text(&pair[1]))).collect();
    file.put("tokenizer.ggml.model", GgufValue::Text("gpt2".into()));
    file.put("tokenizer.ggml.pre", GgufValue::Text("gpt-2".into()));
    file.put("tokenizer.ggml.tokens", GgufValue::Texts(tokens));
    file.put("tokenizer.ggml.token_type", GgufValue::I32s(kinds));
    file.put("tokenizer.ggml.merges", GgufValue::Texts(merges));
    file.put("tokenizer.ggml.add_bos_token", GgufValue::Bool(true));
    let config = checkpoint.config();
    if let Some(bos) = config.bos {
        file.put("tokenizer.ggml.bos_token_id", GgufValue::U32(bos));
    }
    for (key, id) in ["eos", "eot"].iter().zip(&config.eos) {
        file.put(format!("tokenizer.ggml.{key}_token_id"), GgufValue::U32(*id));
    }
    let template = text(&json("tokenizer_config.json")?["chat_template"]);
    file.put("tokenizer.chat_template", GgufValue::Text(template));
    Ok(())
}

/// A piece in its type; vectors and routers are f32 whatever it is.
fn tensor(config: &ModelConfig, tensors: &Tensors, piece: Piece) -> Result<GgufTensor, ModelError> {
    let Piece { name: own, parts, stacked, kind, heads } = piece;
    let (mut values, mut shape) = (Vec::new(), Vec::<usize>::new());
    for part in &parts {
        let found = tensors.entry(part)?.1.shape.clone();
        values.extend(interleaved(&tensors.f32s(part, &mut Hasher::new())?, found[0], heads));
        match shape.first_mut() {
            None => shape = found,
            Some(rows) if !stacked => *rows += found[0],
            Some(_) => (),
        }
    }
    if stacked {
        shape.insert(0, parts.len());
    }
    if own.contains("norm") {
        // As the files have it: what weights are multiplied by.
        values.iter_mut().for_each(|value| *value += config.norm_offset);
    }
    let stored = if shape.len() == 1 { StoredType::Float(ElementType::F32) } else { named(kind)? };
    let number = type_number(stored).ok_or_else(|| ModelError::file(&own, format!("no GGUF file has {kind}")))?;
    let width = shape.last().copied().unwrap_or(1);
    let bytes = match stored {
        StoredType::Quantised(kind) if width.is_multiple_of(kind.block_elements()) => {
            GgmlRows::quantise(kind, &values, width)?.bytes
        }
        StoredType::Float(ElementType::F32) => bytes_of::<f32>(&values),
        StoredType::Float(ElementType::F16) => bytes_of::<f16>(&values),
        StoredType::Float(ElementType::Bf16) => bytes_of::<bf16>(&values),
        _ => return Err(ModelError::file(own, format!("rows of {width} elements are no whole blocks of {kind}"))),
    };
    Ok(GgufTensor { name: own, shape, kind: number, bytes })
}

fn named(kind: &str) -> Result<StoredType, ModelError> {
    match kind {
        "f32" => Ok(StoredType::Float(ElementType::F32)),
        "f16" => Ok(StoredType::Float(ElementType::F16)),
        "bf16" => Ok(StoredType::Float(ElementType::Bf16)),
        _ => {
            let found = QuantType::ALL.into_iter().find(|quantised| quantised.name() == kind);
            found.map(StoredType::Quantised).ok_or_else(|| ModelError::file(kind, "it is no type of tensors"))
        }
    }
}

fn bytes_of<E: Element>(values: &[f32]) -> Vec<u8> {
    let rounded: Vec<E> = values.iter().map(|value| E::round(*value)).collect();
    bytemuck::cast_slice(&rounded).to_vec()
}

/// Rows in the order in which llama.cpp's rotary embedding pairs them.
fn interleaved(values: &[f32], rows: usize, heads: Option<usize>) -> Vec<f32> {
    let Some(heads) = heads else { return values.to_vec() };
    let (width, half) = (values.len() / rows, rows / heads / 2);
    let row = |head: usize, index: usize| &values[(head * 2 * half + index) * width..][..width];
    let order = (0..heads).flat_map(|head| (0..half).flat_map(move |pair| [(head, pair), (head, pair + half)]));
    order.flat_map(|(head, index)| row(head, index).iter().copied()).collect()
}

/// The tensors of factors that Llama 3.1 and Phi-3 have.
fn factors(rope: &Rope) -> Vec<GgufTensor> {
    let vector = |name: &str, factors: &[f32]| GgufTensor {
        name: name.into(),
        shape: vec![factors.len()],
        kind: 0,
        bytes: bytes_of::<f32>(factors),
    };
    match &rope.scaling {
        RopeScaling::Llama3 { .. } => {
            let plain = Rope { scaling: RopeScaling::Default, ..rope.clone() };
            let pairs = plain.inverse_frequencies().into_iter().zip(rope.inverse_frequencies());
            let factors: Vec<f32> = pairs.map(|(plain, scaled)| plain / scaled).collect();
            vec![vector("rope_freqs.weight", &factors)]
        }
        // A configuration keeps one of the two.
        RopeScaling::Long { factors, .. } => {
            vec![vector("rope_factors_long.weight", factors), vector("rope_factors_short.weight", factors)]
        }
        _ => Vec::new(),
    }
}
