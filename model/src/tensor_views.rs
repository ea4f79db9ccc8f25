//! Other names for what a checkpoint stores: rows of a matrix as matrices of their own, a text model inside a larger one. Nothing
//! is read for it.

use crate::block_tensors::TensorShape;
use crate::error::ModelError;
use crate::tensors::Tensors;

/// The parts that see pictures, beside or under `model.`.
const VISION: [&str; 2] = ["vision_tower.", "multi_modal_projector."];
/// What old checkpoints of Llama 2 hold beside their weights; it is computed from the configuration.
pub(crate) const ROTARY_TABLE: &str = "rotary_emb.inv_freq";

impl Tensors {
    /// The names of all tensors that begin with `prefix`.
    pub(crate) fn names_under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        self.entries.keys().map(String::as_str).filter(move |name| name.starts_with(prefix))
    }

    /// The first tensor that is neither one of `edges` nor within one of the blocks; what sees pictures, in a model that does, is
    /// left alone.
    pub(crate) fn beside(&self, edges: &[&str], blocks: u32) -> Option<&str> {
        let in_block = |name: &str| {
            let number = name.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.'));
            number.and_then(|(number, _)| number.parse::<u32>().ok()).is_some_and(|number| number < blocks)
        };
        let known = |name: &str| {
            let vision = VISION.iter().any(|prefix| name.strip_prefix("model.").unwrap_or(name).starts_with(prefix));
            edges.contains(&name) || in_block(name) || vision || name.ends_with(ROTARY_TABLE)
        };
        self.names_under("").filter(|name| !known(name)).min()
    }

    /// Makes the rows of the stored matrix `name` the matrices `parts`, one after the other. Files that hold the parts instead stay
    /// as they are.
    pub(crate) fn split_rows(&mut self, name: &str, parts: &[TensorShape]) -> Result<(), ModelError> {
        let stored_apart = parts.iter().all(|part| self.entries.contains_key(&part.name));
        if stored_apart && !self.entries.contains_key(name) {
            return Ok(());
        }
        let Some((shard, whole)) = self.entries.remove(name) else {
            return Err(ModelError::MissingTensor { tensor: name.to_string() });
        };
        let rows: usize = parts.iter().map(TensorShape::width).sum();
        let inner = parts.first().map_or(0, |part| part.matrix().1);
        if whole.shape != [rows, inner] {
            let (expected, found) = (vec![rows, inner], whole.shape);
            return Err(ModelError::WrongShape { tensor: name.to_string(), expected, found });
        }
        // The header was checked: the bytes are those of so many rows.
        let row_bytes = (whole.bytes.end - whole.bytes.start) / rows.max(1) as u64;
        let mut start = whole.bytes.start;
        for part in parts {
            let end = start + part.width() as u64 * row_bytes;
            let mut entry = whole.clone();
            (entry.shape, entry.bytes) = (part.shape.clone(), start..end);
            if self.entries.insert(part.name.clone(), (shard, entry)).is_some() {
                return Err(ModelError::UnknownTensor {
                    tensor: part.name.clone(),
                    architecture: format!("a model that has {name}"),
                });
            }
            start = end;
        }
        Ok(())
    }

    /// Names the tensors of the text model within a larger one as they are named in a text model alone.
    pub(crate) fn lift_text_model(&mut self) {
        const PLACES: [(&str, &str); 3] = [
            ("language_model.model.", "model."),
            ("model.language_model.", "model."),
            ("language_model.lm_head.", "lm_head."),
        ];
        if self.entries.contains_key("model.embed_tokens.weight") {
            return;
        }
        for (inside, alone) in PLACES {
            let names: Vec<String> = self.names_under(inside).map(str::to_string).collect();
            for name in names {
                if let Some(entry) = self.entries.remove(&name) {
                    self.entries.insert(name.replacen(inside, alone, 1), entry);
                }
            }
        }
    }
}
