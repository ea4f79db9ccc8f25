//! Experts as gpt-oss's files hold them: those of a block in one tensor, the rows of gate and up in turn. Nothing is read here; each
//! expert's matrices get the names that blocks know them by.
//!
//! The published files hold matrices `(outputs, inner)` in MXFP4, elements and scales in a tensor each:
//! `gate_up_proj_blocks (experts, 2 * intermediate, hidden / 32, 16)` and `gate_up_proj_scales (experts, 2 * intermediate,
//! hidden / 32)`. What others publish in floats holds them turned, `gate_up_proj (experts, hidden, 2 * intermediate)`.

use std::ops::Range;

use swarm_protocol::block::BlockIndex;

use crate::block_tensors::{BlockTensors, TensorShape};
use crate::config::{Experts, ModelConfig};
use crate::error::ModelError;
use crate::kernels::QuantType;
use crate::stored_type::StoredType;
use crate::tensor_file::{Microscaled, Rows, TensorEntry, Written};
use crate::tensors::Tensors;

/// Elements under one scale, and the bytes that hold them.
const CELL: usize = 32;
const CELL_BYTES: usize = CELL / 2;

/// Gives the experts of stacked tensors names of their own. Files that hold each expert apart stay as they are.
///
/// # Errors
/// [`ModelError`] naming a tensor that is missing, or of another shape or type.
pub(crate) fn split_stacked(tensors: &mut Tensors, config: &ModelConfig) -> Result<(), ModelError> {
    let Some((part, experts)) = config.family.names().experts.stacked.zip(config.experts) else { return Ok(()) };
    for block in (0..config.blocks).filter(|block| config.kind(*block).experts) {
        let names = BlockTensors::new(config, BlockIndex(block));
        let stack = Stack { prefix: format!("{}{part}", names.prefix()), experts };
        for (both, rows) in [("gate_up_proj", &GATE_UP[..]), ("down_proj", &DOWN[..])] {
            for (number, rows) in rows {
                let matrices =
                    (0..experts.count).map(|expert| names.expert(expert)[*number].clone()).collect::<Vec<_>>();
                stack.split(tensors, both, &matrices, *rows)?;
            }
            stack.forget(tensors, both);
        }
    }
    Ok(())
}

/// Which of an expert's matrices lie in a stack, and where.
const GATE_UP: [(usize, Rows); 2] = [(0, Rows { first: 0, step: 2 }), (1, Rows { first: 1, step: 2 })];
const DOWN: [(usize, Rows); 1] = [(2, Rows { first: 0, step: 1 })];

struct Stack {
    prefix: String,
    experts: Experts,
}

impl Stack {
    fn names(&self, part: &str) -> [String; 4] {
        ["_blocks", "_scales", "", "_bias"].map(|ending| format!("{}.{part}{ending}", self.prefix))
    }

    /// Names what `rows` of `part` are: one matrix, and its bias, of each expert.
    fn split(&self, tensors: &mut Tensors, part: &str, matrices: &[TensorShape], rows: Rows) -> Result<(), ModelError> {
        let [blocks, scales, floats, bias] = self.names(part);
        let Some((outputs, inner)) = matrices.first().map(TensorShape::matrix) else { return Ok(()) };
        let count = self.experts.count;
        let stored = outputs * rows.step;
        let entries = if tensors.has(&blocks) {
            let cells = inner / CELL;
            let (shard, of_blocks) = tensors.stack(&blocks, &[count, stored, cells, CELL_BYTES])?;
            let (scales_shard, of_scales) = tensors.stack(&scales, &[count, stored, cells])?;
            if !(inner.is_multiple_of(CELL) && of_blocks.stored.is_byte() && of_scales.stored.is_byte()) {
                let found = of_blocks.stored.to_string();
                return Err(ModelError::WrongType { tensor: blocks, found });
            }
            let entry = |expert| TensorEntry {
                stored: StoredType::Quantised(QuantType::Mxfp4),
                shape: vec![outputs, inner],
                bytes: one_of(&of_blocks.bytes, count, expert),
                written: Written::Microscaled(Microscaled {
                    scales_shard,
                    scales: one_of(&of_scales.bytes, count, expert),
                    rows,
                }),
            };
            (0..count).map(|expert| (shard, entry(expert))).collect::<Vec<_>>()
        } else if tensors.has(&floats) {
            let (shard, of_all) = tensors.stack(&floats, &[count, inner, stored])?;
            let entry = |expert| TensorEntry {
                stored: of_all.stored,
                shape: vec![outputs, inner],
                bytes: one_of(&of_all.bytes, count, expert),
                written: Written::Turned(rows),
            };
            (0..count).map(|expert| (shard, entry(expert))).collect()
        } else {
            return Ok(());
        };
        for (matrix, entry) in matrices.iter().zip(entries) {
            tensors.add(matrix.name.clone(), entry)?;
        }
        let (shard, of_bias) = tensors.stack(&bias, &[count, stored])?;
        for (expert, matrix) in matrices.iter().enumerate() {
            let Some(name) = &matrix.bias else { continue };
            let entry = TensorEntry {
                stored: of_bias.stored,
                shape: vec![outputs],
                bytes: one_of(&of_bias.bytes, count, expert),
                written: Written::Every(rows),
            };
            tensors.add(name.clone(), (shard, entry))?;
        }
        Ok(())
    }

    /// Drops the names of what now has others.
    fn forget(&self, tensors: &mut Tensors, part: &str) {
        for name in self.names(part) {
            tensors.entries.remove(&name);
        }
    }
}

/// The bytes of one expert of `count`, which are as many each: the header was checked against the shape.
fn one_of(bytes: &Range<u64>, count: usize, expert: usize) -> Range<u64> {
    let each = (bytes.end - bytes.start) / count.max(1) as u64;
    let start = bytes.start + expert as u64 * each;
    start..start + each
}
