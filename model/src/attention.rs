//! Causal grouped-query attention over paged keys and values, for several sequences in one call.
//!
//! Each query row and head is computed alone: scores, maximum, exponentials, their sum and the weighted values, all in
//! order of position. So a row's result does not depend on what shares the call.

#[cfg(test)]
mod tests;

use std::cell::Cell;

use bytemuck::cast_slice_mut;
use candle_core::{CpuStorage, CustomOp1, Layout, Result as CandleResult, Shape, Tensor};
use half::{bf16, f16};
use rayon::prelude::*;
use swarm_protocol::wire::ElementType;

use crate::error::ModelError;
use crate::kernels::{Element, Kernel, with_kernel};
use crate::kv::{KvCache, KvPage, KvShape, PAGE_POSITIONS, Side};
use crate::linear::contiguous;

/// Scores one task holds at most: 1 MiB of f32.
const TASK_SCORES: usize = 256 * 1024;
/// Query rows one task holds at most; a page is read once for all of them.
const TASK_ROWS: usize = 32;
/// Queries that share one reading of keys or values.
const TILE_QUERIES: usize = 4;
/// Multiply-adds below which one thread does it all.
const PARALLEL_WORK: usize = 128 * 1024;

thread_local! {
    /// The scores of a thread's last task: with memory from the system for each task anew, long contexts would wait for pages.
    static SCORES: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// The rows of one sequence within a call, and where one block's keys and values are.
pub(crate) struct Span<'a> {
    /// The sequence's pages; the rows' own keys and values are stored already.
    pub(crate) pages: &'a [KvPage],
    /// Which block of the pages.
    pub(crate) block: usize,
    /// The sequence's first row in the call.
    pub(crate) first_row: usize,
    /// Its number of rows.
    pub(crate) rows: usize,
    /// The position of its first row.
    pub(crate) position: usize,
}

/// Stores keys and values of block `block`, both `(rows, kv_heads * head_dim)` f32, rounded to the cache's type, where the
/// cache ends; the pages are there.
pub(crate) fn store(cache: &mut KvCache, block: usize, (keys, values): (&[f32], &[f32])) -> Result<(), ModelError> {
    let shape = cache.shape();
    let width = shape.kv_heads * shape.head_dim;
    let (mut position, mut row) = (cache.len(), 0);
    let rows = keys.len() / width;
    while row < rows {
        let slots = position % PAGE_POSITIONS..PAGE_POSITIONS.min(position % PAGE_POSITIONS + rows - row);
        let part = row * width..(row + slots.len()) * width;
        let page = &mut cache.pages_mut()[position / PAGE_POSITIONS];
        let (key_page, value_page) = page.sides_mut(block)?;
        for (page, from) in [(key_page, &keys[part.clone()]), (value_page, &values[part])] {
            match shape.element {
                ElementType::F32 => store_in::<f32>(cast_slice_mut(page), &shape, from, slots.start),
                ElementType::F16 => store_in::<f16>(cast_slice_mut(page), &shape, from, slots.start),
                ElementType::Bf16 => store_in::<bf16>(cast_slice_mut(page), &shape, from, slots.start),
            }
        }
        position += slots.len();
        row += slots.len();
    }
    Ok(())
}

/// Puts rows into the slots of a page `(kv_heads, PAGE_POSITIONS, head_dim)` from `slot` on.
fn store_in<E: Element>(page: &mut [E], shape: &KvShape, rows: &[f32], slot: usize) {
    let dim = shape.head_dim;
    for (slot, row) in (slot..).zip(rows.chunks_exact(shape.kv_heads * dim)) {
        for (page, head) in page.chunks_exact_mut(shape.head_elements()).zip(row.chunks_exact(dim)) {
            let pairs = page[slot * dim..][..dim].iter_mut().zip(head);
            pairs.for_each(|(to, from)| *to = E::round(*from));
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
struct Task<'a> {
    pages: &'a [KvPage],
    block: usize,
    kv_head: usize,
    first_row: usize,
    rows: usize,
    position: usize,
}

impl Attention<'_> {
    fn run<E: Element>(&self, queries: &[f32]) -> CandleResult<Vec<f32>> {
        let tasks = self.tasks();
        let scores = |task: &Task<'_>| task.rows * (task.position + task.rows);
        let work: usize = tasks.iter().map(scores).sum::<usize>() * self.group_width();
        let compute = |task: &Task<'_>| with_kernel!(kernel => self.compute::<_, E>(kernel, task, queries));
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

    fn tasks(&self) -> Vec<Task<'_>> {
        let mut tasks = Vec::new();
        for span in self.spans {
            let row_scores = self.group() * (span.position + span.rows);
            let step = (TASK_SCORES / row_scores).clamp(1, TASK_ROWS);
            for first in (0..span.rows).step_by(step) {
                tasks.extend((0..self.shape.kv_heads).map(|kv_head| Task {
                    pages: span.pages,
                    block: span.block,
                    kv_head,
                    first_row: span.first_row + first,
                    rows: step.min(span.rows - first),
                    position: span.position + first,
                }));
            }
        }
        tasks
    }

    /// Query heads that share one key and value head.
    fn group(&self) -> usize {
        self.heads / self.shape.kv_heads
    }

    fn group_width(&self) -> usize {
        self.group() * self.shape.head_dim
    }

    /// Where the queries of a task's row lie: its group's heads are neighbours.
    fn query_start(&self, task: &Task<'_>, row: usize) -> usize {
        (task.first_row + row) * self.heads * self.shape.head_dim + task.kv_head * self.group_width()
    }

    /// The attended values `(rows, group, head_dim)` of one task.
    fn compute<K: Kernel, E: Element>(&self, kernel: K, task: &Task<'_>, queries: &[f32]) -> Vec<f32> {
        let rows = |row: usize| &queries[self.query_start(task, row)..][..self.group_width()];
        let queries: Vec<f32> = (0..task.rows).flat_map(rows).copied().collect();
        let seen = task.position + task.rows;
        let mut scores = SCORES.take();
        self.score::<_, E>(kernel, task, &queries, seen, &mut scores);
        let scale = 1.0 / (self.shape.head_dim as f32).sqrt();
        let visible = |index: usize| task.position + index / self.group() + 1;
        let soften = |(index, scores): (usize, &mut [f32])| kernel.softmax(&mut scores[..visible(index)], scale);
        let sums: Vec<f32> = scores.chunks_exact_mut(seen).enumerate().map(soften).collect();
        let mut out = vec![0.0; queries.len()];
        self.weigh::<_, E>(kernel, task, &scores, &mut out);
        for (out, sum) in out.chunks_exact_mut(self.shape.head_dim).zip(sums) {
            out.iter_mut().for_each(|value| *value /= sum);
        }
        SCORES.set(scores);
        out
    }

    /// Unscaled scores `(rows * group, seen)`; those past a row's own position are never read.
    fn score<K: Kernel, E: Element>(
        &self,
        kernel: K,
        task: &Task<'_>,
        queries: &[f32],
        seen: usize,
        scores: &mut Vec<f32>,
    ) {
        let dim = self.shape.head_dim;
        scores.resize(queries.len() / dim * seen, 0.0);
        for start in (0..seen).step_by(PAGE_POSITIONS) {
            let positions = PAGE_POSITIONS.min(seen - start);
            let keys = self.part::<E>(task, start, Side::Keys).get(..positions * dim).unwrap_or_default();
            let next = self.part::<E>(task, start + PAGE_POSITIONS, Side::Keys);
            let tiles = queries.chunks(TILE_QUERIES * dim).zip(scores.chunks_mut(TILE_QUERIES * seen));
            for (index, (queries, scores)) in tiles.enumerate() {
                // The first tile's reads are those that wait for memory.
                let keys = (keys, if index == 0 { next } else { &[] });
                let place = (start, seen);
                match queries.len() / dim {
                    1 => kernel.short_dots::<E, 1, 8>(split(queries, dim), keys, scores, place),
                    2 => kernel.short_dots::<E, 2, 4>(split(queries, dim), keys, scores, place),
                    3 => kernel.short_dots::<E, 3, 2>(split(queries, dim), keys, scores, place),
                    _ => kernel.short_dots::<E, TILE_QUERIES, 2>(split(queries, dim), keys, scores, place),
                }
            }
        }
    }

    /// Adds every position's values to `out`, by the softened scores of those that see it.
    fn weigh<K: Kernel, E: Element>(&self, kernel: K, task: &Task<'_>, scores: &[f32], out: &mut [f32]) {
        let (group, dim) = (self.group(), self.shape.head_dim);
        let seen = task.position + task.rows;
        for start in (0..seen).step_by(PAGE_POSITIONS) {
            let values = self.part::<E>(task, start, Side::Values);
            let mut next = self.part::<E>(task, start + PAGE_POSITIONS, Side::Values);
            let rows = scores.chunks_exact(group * seen).zip(out.chunks_exact_mut(group * dim));
            for (row, (scores, out)) in rows.enumerate() {
                // All heads of a row see as much.
                let end = (task.position + row + 1).min(start + PAGE_POSITIONS);
                if end <= start {
                    continue;
                }
                let tiles = scores.chunks(TILE_QUERIES * seen).zip(out.chunks_mut(TILE_QUERIES * dim));
                for (scores, out) in tiles {
                    weigh_tile(kernel, scores, seen, start..end, (values, std::mem::take(&mut next)), out, dim);
                }
            }
        }
    }

    /// Keys or values of the task's head from position `start` (the first of a page) on; empty past the last page.
    fn part<'a, E: Element>(&self, task: &Task<'a>, start: usize, side: Side) -> &'a [E] {
        let elements = self.shape.head_elements();
        let page = task.pages.get(start / PAGE_POSITIONS);
        page.map_or(&[], |page| &page.side(task.block, side)[task.kv_head * elements..][..elements])
    }
}

/// `R` rows of `width` elements.
fn split<const R: usize>(values: &[f32], width: usize) -> [&[f32]; R] {
    std::array::from_fn(|row| &values[row * width..][..width])
}

/// Adds the values of positions `span` to the sums of one to [`TILE_QUERIES`] queries, whose scores are `seen` apart.
fn weigh_tile<K: Kernel, E: Element>(
    kernel: K,
    scores: &[f32],
    seen: usize,
    span: std::ops::Range<usize>,
    values: (&[E], &[E]),
    out: &mut [f32],
    dim: usize,
) {
    let weights = |query: usize| &scores[query * seen..][span.clone()];
    match out.len() / dim {
        1 => kernel.weighted_sums([weights(0)], values, out),
        2 => kernel.weighted_sums([weights(0), weights(1)], values, out),
        3 => kernel.weighted_sums([weights(0), weights(1), weights(2)], values, out),
        _ => kernel.weighted_sums([weights(0), weights(1), weights(2), weights(3)], values, out),
    }
}
