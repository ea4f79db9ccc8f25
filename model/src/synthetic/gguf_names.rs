//! What a checkpoint's tensors are in a GGUF file: names, and which of them make up one.

use swarm_protocol::block::BlockIndex;

use super::gguf::GgufTypes;
use crate::block_tensors::{BlockTensors, TensorShape};
use crate::config::ModelConfig;
use crate::families::Family;

/// Parts of blocks; where a name stands twice, the first one that the family has is meant.
const PARTS: [(&str, &str); 16] = [
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.qkv_proj", "attn_qkv"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.gate_up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("mlp.gate", ROUTER),
    ("block_sparse_moe.gate", ROUTER),
    ("input_layernorm", "attn_norm"),
    ("pre_feedforward_layernorm", "ffn_norm"),
    ("post_feedforward_layernorm", "post_ffw_norm"),
];
/// The norm behind attention in Gemma's models, the one before the feed-forward part in others.
const SECOND_NORM: &str = "post_attention_layernorm";
const ROUTER: &str = "ffn_gate_inp";
/// An expert's matrices, all experts' in one tensor.
const EXPERTS: [&str; 3] = ["ffn_gate_exps.weight", "ffn_up_exps.weight", "ffn_down_exps.weight"];

/// One tensor of a file.
pub(super) struct Piece {
    pub(super) name: String,
    /// The checkpoint's tensors whose rows it holds, one after the other.
    pub(super) parts: Vec<String>,
    /// Whether the parts lie in a dimension of their own.
    pub(super) stacked: bool,
    /// The type's name.
    pub(super) kind: &'static str,
    /// Heads whose rows are interleaved.
    pub(super) heads: Option<usize>,
}

/// The tensors of a file.
pub(super) struct Names<'a> {
    pub(super) config: &'a ModelConfig,
    pub(super) types: &'a GgufTypes,
}

impl Names<'_> {
    pub(super) fn all(&self) -> Vec<Piece> {
        let mut pieces = vec![self.edge("model.embed_tokens.weight", "token_embd.weight")];
        for block in 0..self.config.blocks {
            self.block(block, &mut pieces);
        }
        pieces.push(self.edge("model.norm.weight", "output_norm.weight"));
        if !self.config.tied {
            pieces.push(self.edge("lm_head.weight", "output.weight"));
        }
        pieces
    }

    fn edge(&self, part: &str, name: &str) -> Piece {
        let parts = vec![part.to_string()];
        Piece { name: name.into(), parts, stacked: false, kind: self.types.edges, heads: None }
    }

    fn block(&self, number: u32, pieces: &mut Vec<Piece>) {
        let block = BlockTensors::new(self.config, BlockIndex(number));
        let fused = block.fused();
        let count = self.config.experts.filter(|_| block.kind().experts).map_or(0, |experts| experts.count);
        let experts: Vec<[TensorShape; 3]> = (0..count).map(|expert| block.expert(expert)).collect();
        let in_fused = |tensor: &TensorShape| fused.iter().any(|(_, parts)| parts.contains(tensor));
        let in_expert = |tensor: &TensorShape| experts.iter().any(|expert| expert.contains(tensor));
        for tensor in block.all().iter().filter(|tensor| !in_fused(tensor) && !in_expert(tensor)) {
            pieces.push(self.piece(number, &tensor.name, vec![tensor.name.clone()]));
        }
        for (name, parts) in &fused {
            pieces.push(self.piece(number, name, parts.iter().map(|part| part.name.clone()).collect()));
        }
        for (place, own) in EXPERTS.iter().enumerate().filter(|_| count > 0) {
            let parts = experts.iter().map(|expert| expert[place].name.clone()).collect();
            let kind = if own.starts_with("ffn_down") { self.types.careful } else { self.types.matrices };
            pieces.push(Piece { name: format!("blk.{number}.{own}"), parts, stacked: true, kind, heads: None });
        }
    }

    fn piece(&self, block: u32, name: &str, parts: Vec<String>) -> Piece {
        let inner = name.trim_start_matches(&format!("model.layers.{block}."));
        let (part, ending) = inner.rsplit_once('.').unwrap_or((inner, ""));
        let own = self.part(part);
        let heads = match own {
            "attn_q" => Some(self.config.heads),
            "attn_k" => Some(self.config.kv_heads),
            _ => None,
        };
        let interleaves = matches!(self.config.family, Family::Llama | Family::Mistral | Family::Mixtral);
        let kind = match own {
            ROUTER => "f32",
            "attn_v" | "ffn_down" => self.types.careful,
            _ => self.types.matrices,
        };
        let name = format!("blk.{block}.{own}.{ending}");
        Piece { name, parts, stacked: false, kind, heads: heads.filter(|_| interleaves) }
    }

    fn part<'a>(&self, part: &'a str) -> &'a str {
        let gemma = matches!(self.config.family, Family::Gemma2 | Family::Gemma3);
        match PARTS.iter().find(|(long, _)| *long == part) {
            Some((_, own)) => own,
            None if part == SECOND_NORM && gemma => "post_attention_norm",
            None if part == SECOND_NORM => "ffn_norm",
            None => part,
        }
    }
}
