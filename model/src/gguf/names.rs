//! Tensors by the names that a safetensors checkpoint would give them.

use super::architecture::{Architecture, Kind};
use super::header::Tensor;
use super::rope::{FACTORS, LONG, SHORT};
use crate::error::ModelError;
use crate::stored_type::StoredType;
use crate::tensor_file::{TensorEntry, Written};

const TOP: [(&str, &str); 3] = [
    ("token_embd.weight", "model.embed_tokens.weight"),
    ("output_norm.weight", "model.norm.weight"),
    ("output.weight", "lm_head.weight"),
];

/// Parts of a block whose names all architectures share.
const PARTS: [(&str, &str); 13] = [
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_qkv", "self_attn.qkv_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("post_attention_norm", "post_attention_layernorm"),
    ("post_ffw_norm", "post_feedforward_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// Tensors of old files that hold what the configuration says.
const IGNORED: [&str; 2] = ["attn_rot_embd.weight", "attn_rot_embd.inv_freq"];

/// What sees pictures, in files of Gemma 3 that hold it beside the text model.
const VISION: [&str; 2] = ["v.", "mm."];

/// The number of query and of key heads, whose rows may be interleaved.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heads {
    pub(super) query: usize,
    pub(super) key: usize,
}

/// What a part of a block is called by a checkpoint.
enum Part<'a> {
    One(&'a str),
    /// All experts in one tensor; each is a tensor of its own there.
    Experts {
        before: &'static str,
        after: &'static str,
    },
}

/// The tensors that `tensor` is in a safetensors checkpoint.
///
/// # Errors
/// [`ModelError::BadFile`] naming a tensor that is not understood.
pub(super) fn entries(
    architecture: &Architecture,
    heads: Heads,
    label: &str,
    tensor: &Tensor,
) -> Result<Vec<(String, TensorEntry)>, ModelError> {
    let name = tensor.name.as_str();
    if let Some((_, name)) = TOP.iter().find(|(top, _)| *top == name) {
        return Ok(vec![(name.to_string(), entry(architecture, heads, label, name, tensor)?)]);
    }
    if [FACTORS, LONG, SHORT].contains(&name) {
        return Ok(vec![(name.to_string(), entry(architecture, heads, label, name, tensor)?)]);
    }
    if architecture.kind == Kind::Gemma3 && VISION.iter().any(|prefix| name.starts_with(prefix)) {
        return Ok(Vec::new());
    }
    let unknown = || ModelError::file(label, format!("its tensor {name} is not understood by this version"));
    let (block, part) = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')).ok_or_else(unknown)?;
    let block: u32 = block.parse().map_err(|_| unknown())?;
    if IGNORED.contains(&part) {
        return Ok(Vec::new());
    }
    let (part, ending) =
        part.rsplit_once('.').filter(|(_, ending)| ["weight", "bias"].contains(ending)).ok_or_else(unknown)?;
    if let Some(name) = old_expert(architecture.kind, part) {
        let name = format!("model.layers.{block}.{name}.{ending}");
        return Ok(vec![(name, entry(architecture, heads, label, part, tensor)?)]);
    }
    match part_of(architecture.kind, part).ok_or_else(unknown)? {
        Part::One(part) => {
            let name = format!("model.layers.{block}.{part}.{ending}");
            let entry = entry(architecture, heads, label, part, tensor)?;
            Ok(vec![(name, entry)])
        }
        Part::Experts { before, after } => {
            let name = |expert: usize| format!("model.layers.{block}.{before}.{expert}.{after}.{ending}");
            let each = experts(tensor).ok_or_else(unknown)?;
            Ok(each.into_iter().enumerate().map(|(expert, entry)| (name(expert), entry)).collect())
        }
    }
}

/// An expert of a Mixtral file from before 2024-04: each has tensors of its own, `ffn_gate.0` and so on.
fn old_expert(kind: Kind, part: &str) -> Option<String> {
    let (part, number) = part.rsplit_once('.').filter(|_| kind == Kind::Mixtral)?;
    let after = match part {
        "ffn_gate" => "w1",
        "ffn_down" => "w2",
        "ffn_up" => "w3",
        _ => return None,
    };
    let number: u32 = number.parse().ok()?;
    Some(format!("block_sparse_moe.experts.{number}.{after}"))
}

fn part_of(kind: Kind, part: &str) -> Option<Part<'static>> {
    let special = match (kind, part) {
        (Kind::Gemma2 | Kind::Gemma3, "ffn_norm") => Part::One("pre_feedforward_layernorm"),
        (_, "ffn_norm") => Part::One("post_attention_layernorm"),
        (Kind::Phi3, "ffn_up") => Part::One("mlp.gate_up_proj"),
        (Kind::Mixtral, "ffn_gate_inp") => Part::One("block_sparse_moe.gate"),
        (Kind::Mixtral, "ffn_gate_exps") => Part::Experts { before: "block_sparse_moe.experts", after: "w1" },
        (Kind::Mixtral, "ffn_down_exps") => Part::Experts { before: "block_sparse_moe.experts", after: "w2" },
        (Kind::Mixtral, "ffn_up_exps") => Part::Experts { before: "block_sparse_moe.experts", after: "w3" },
        (Kind::Qwen3Moe, "ffn_gate_inp") => Part::One("mlp.gate"),
        (Kind::Qwen3Moe, "ffn_gate_exps") => Part::Experts { before: "mlp.experts", after: "gate_proj" },
        (Kind::Qwen3Moe, "ffn_down_exps") => Part::Experts { before: "mlp.experts", after: "down_proj" },
        (Kind::Qwen3Moe, "ffn_up_exps") => Part::Experts { before: "mlp.experts", after: "up_proj" },
        _ => Part::One(PARTS.iter().find(|(own, _)| *own == part)?.1),
    };
    Some(special)
}

fn entry(
    architecture: &Architecture,
    heads: Heads,
    label: &str,
    part: &str,
    tensor: &Tensor,
) -> Result<TensorEntry, ModelError> {
    let heads = match part {
        "self_attn.q_proj" if architecture.heads_interleaved => Some(heads.query),
        "self_attn.k_proj" if architecture.heads_interleaved => Some(heads.key),
        _ => None,
    };
    if heads.is_some() && tensor.shape.len() == 1 && !matches!(tensor.stored, StoredType::Float(_)) {
        let reason = format!("tensor {} is a vector of {}; vectors are floats", tensor.name, tensor.stored);
        return Err(ModelError::file(label, reason));
    }
    let is_norm = part.ends_with("norm") || part.ends_with("norm.weight");
    let written = match heads {
        // Halves of whole heads, or the rows cannot be told apart.
        Some(heads) if heads == 0 || !tensor.shape[0].is_multiple_of(2 * heads) => {
            let reason = format!("tensor {} has {} rows, which are not {heads} heads", tensor.name, tensor.shape[0]);
            return Err(ModelError::file(label, reason));
        }
        Some(heads) => Written::HeadsInterleaved(heads),
        None if is_norm && architecture.norms_plus_one => Written::PlusOne,
        None => Written::Plain,
    };
    Ok(TensorEntry { stored: tensor.stored, shape: tensor.shape.clone(), bytes: tensor.bytes.clone(), written })
}

/// Each expert's part of a tensor `(experts, outputs, inner)`.
fn experts(tensor: &Tensor) -> Option<Vec<TensorEntry>> {
    let [count, outputs, inner] = tensor.shape[..] else { return None };
    // Rows are whole blocks, so that every expert's bytes are.
    let each = (tensor.bytes.end - tensor.bytes.start) / count as u64;
    let entry = |expert: u64| {
        let start = tensor.bytes.start + expert * each;
        let bytes = start..start + each;
        TensorEntry { stored: tensor.stored, shape: vec![outputs, inner], bytes, written: Written::Plain }
    };
    // Their number is that of a dimension, and every one has bytes in the file.
    Some((0..count as u64).map(entry).collect())
}
