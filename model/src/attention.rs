//! Causal grouped-query attention over paged keys and values, for several sequences in one call.
//!
//! Each query row and head is computed alone: scores, maximum, exponentials, their sum and the weighted values, all in
//! order of position. So a row's result does not depend on what shares the call.

use candle_core::{CpuStorage, CustomOp1, Layout, Result as CandleResult, Shape, Tensor, bail};
use half::{bf16, f16};
use rayon::prelude::*;
use swarm_protocol::wire::ElementType;

use crate::error::ModelError;
use crate::kernels::{Kernel, panel, with_kernel};
use crate::kv::{BlockPages, Cached, KvShape, PAGE_POSITIONS, Page};
use crate::linear::contiguous;

/// Scores one task holds at most: 1 MiB of f32.
const TASK_SCORES: usize = 256 * 1024;
/// Query rows one task holds at most; a page is read once for all of them.
const TASK_ROWS: usize = 32;
/// Multiply-adds below which one thread does it all.
const PARALLEL_WORK: usize = 128 * 1024;

/// The rows of one sequence within a call, and the pages of one block.
pub(crate) struct Span<'a> {
    /// The sequence's pages; the rows' own keys and values are stored already.
    pub(crate) pages: &'a BlockPages,
    /// The sequence's first row in the call.
    pub(crate) first_row: usize,
    /// Its number of rows.
    pub(crate) rows: usize,
    /// The position of its first row.
    pub(crate) position: usize,
}

/// Stores the keys and values of `rows` rows from `first_row` on, both `(all rows, kv_heads * head_dim)` f32, rounded
/// to the cache's type, at `position`.
pub(crate) fn store(
    pages: &mut BlockPages,
    shape: &KvShape,
    (keys, values): (&[f32], &[f32]),
    position: usize,
) -> Result<(), ModelError> {
    let stored = match shape.element {
        ElementType::F32 => f32::pages_mut(pages).map(|p| store_in(p, shape, keys, values, position)),
        ElementType::F16 => f16::pages_mut(pages).map(|p| store_in(p, shape, keys, values, position)),
        ElementType::Bf16 => bf16::pages_mut(pages).map(|p| store_in(p, shape, keys, values, position)),
    };
    stored.ok_or_else(|| ModelError::WrongCache {
        cache: "keys and values of another format".into(),
        asked: format!("{:?}", shape.element),
    })
}

fn store_in<E: Cached>(pages: &mut [Page<E>], shape: &KvShape, keys: &[f32], values: &[f32], position: usize) {
    let (width, dim) = (shape.kv_heads * shape.head_dim, shape.head_dim);
    for (row, (keys, values)) in keys.chunks_exact(width).zip(values.chunks_exact(width)).enumerate() {
        let (page, slot) = ((position + row) / PAGE_POSITIONS, (position + row) % PAGE_POSITIONS);
        let page = &mut pages[page];
        for head in 0..shape.kv_heads {
            let at = head * shape.head_elements() + slot * dim;
            let rounded = |to: &mut [E], from: &[f32]| {
                let pairs = to[at..at + dim].iter_mut().zip(&from[head * dim..][..dim]);
                pairs.for_each(|(to, from)| *to = E::round(*from));
            };
            rounded(&mut page.keys, keys);
            rounded(&mut page.values, values);
        }
    }
}

/// Queries `(rows, heads * head_dim)` f32 to attended values of the same shape.
pub(crate) fn attend(queries: &Tensor, heads: usize, shape: KvShape, spans: &[Span<'_>]) -> Result<Tensor, ModelError> {
    let op = Attention { heads, shape, spans };
    Ok(queries.apply_op1_no_bwd(&op)?)
}

struct Attention<'a> {
    heads: usize,
    shape: KvShape,
    spans: &'a [Span<'a>],
}

impl CustomOp1 for Attention<'_> {
    fn name(&self) -> &'static str {
        "paged-attention"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let queries = contiguous::<f32>(storage, layout)?;
        let out = match self.shape.element {
            ElementType::F32 => self.run::<f32>(queries)?,
            ElementType::F16 => self.run::<f16>(queries)?,
            ElementType::Bf16 => self.run::<bf16>(queries)?,
        };
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }
}

/// Some rows of one sequence under one key and value head.
struct Task<'a, E> {
    pages: &'a [Page<E>],
    kv_head: usize,
    first_row: usize,
    rows: usize,
    position: usize,
}

impl Attention<'_> {
    fn run<E: Cached>(&self, queries: &[f32]) -> CandleResult<Vec<f32>> {
        let tasks = self.tasks::<E>()?;
        let scores = |task: &Task<'_, E>| task.rows * (task.position + task.rows);
        let work: usize = tasks.iter().map(scores).sum::<usize>() * self.group_width();
        let compute = |task: &Task<'_, E>| with_kernel!(kernel => self.compute(kernel, task, queries));
        let parts: Vec<Vec<f32>> = if work < PARALLEL_WORK || rayon::current_num_threads() == 1 {
            tasks.iter().map(compute).collect()
        } else {
            tasks.par_iter().map(compute).collect()
        };
        let mut out = vec![0.0; queries.len()];
        for (task, part) in tasks.iter().zip(parts) {
            for (row, from) in part.chunks_exact(self.group_width()).enumerate() {
                let start = self.query_start(task, row);
                out[start..start + from.len()].copy_from_slice(from);
            }
        }
        Ok(out)
    }

    fn tasks<E: Cached>(&self) -> CandleResult<Vec<Task<'_, E>>> {
        let mut tasks = Vec::new();
        for span in self.spans {
            let Some(pages) = E::pages(span.pages) else {
                bail!("the KV cache is of another format than the blocks");
            };
            let row_scores = self.group() * (span.position + span.rows);
            let step = (TASK_SCORES / row_scores).clamp(1, TASK_ROWS);
            for first in (0..span.rows).step_by(step) {
                tasks.extend((0..self.shape.kv_heads).map(|kv_head| Task {
                    pages,
                    kv_head,
                    first_row: span.first_row + first,
                    rows: step.min(span.rows - first),
                    position: span.position + first,
                }));
            }
        }
        Ok(tasks)
    }

    /// Query heads that share one key and value head.
    fn group(&self) -> usize {
        self.heads / self.shape.kv_heads
    }

    fn group_width(&self) -> usize {
        self.group() * self.shape.head_dim
    }

    /// Where the queries of a task's row lie: its group's heads are neighbours.
    fn query_start<E>(&self, task: &Task<'_, E>, row: usize) -> usize {
        (task.first_row + row) * self.heads * self.shape.head_dim + task.kv_head * self.group_width()
    }

    /// The attended values `(rows, group, head_dim)` of one task.
    fn compute<K: Kernel, E: Cached>(&self, kernel: K, task: &Task<'_, E>, queries: &[f32]) -> Vec<f32> {
        let (group, dim) = (self.group(), self.shape.head_dim);
        let rows = |row: usize| &queries[self.query_start(task, row)..][..self.group_width()];
        let queries: Vec<f32> = (0..task.rows).flat_map(rows).copied().collect();
        let seen = task.position + task.rows;
        let mut scores = self.scores(kernel, task, &queries, seen);
        let mut out = vec![0.0; queries.len()];
        let scale = 1.0 / (dim as f32).sqrt();
        let pairs = scores.chunks_exact_mut(seen).zip(out.chunks_exact_mut(dim));
        for (index, (scores, out)) in pairs.enumerate() {
            let visible = &mut scores[..task.position + index / group + 1];
            let sum = kernel.softmax(visible, scale);
            for (weights, page) in visible.chunks(PAGE_POSITIONS).zip(task.pages) {
                let values = &page.values[task.kv_head * self.shape.head_elements()..];
                kernel.weighted_sum(weights, &values[..weights.len() * dim], out);
            }
            out.iter_mut().for_each(|value| *value /= sum);
        }
        out
    }

    /// Unscaled scores `(rows * group, seen)`; those past a row's own position are never read.
    fn scores<K: Kernel, E: Cached>(&self, kernel: K, task: &Task<'_, E>, queries: &[f32], seen: usize) -> Vec<f32> {
        let dim = self.shape.head_dim;
        let count = queries.len() / dim;
        let mut scores = vec![0.0; count * seen];
        let mut part = vec![0.0; count * PAGE_POSITIONS];
        for (index, page) in task.pages.iter().take(seen.div_ceil(PAGE_POSITIONS)).enumerate() {
            let start = index * PAGE_POSITIONS;
            let width = PAGE_POSITIONS.min(seen - start);
            let keys = &page.keys[task.kv_head * self.shape.head_elements()..][..width * dim];
            let part = &mut part[..count * width];
            panel(kernel, queries, count, keys, dim, part);
            for (scores, part) in scores.chunks_exact_mut(seen).zip(part.chunks_exact(width)) {
                scores[start..start + width].copy_from_slice(part);
            }
        }
        scores
    }
}
