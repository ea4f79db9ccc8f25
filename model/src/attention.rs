//! Causal grouped-query attention over paged keys and values, for several sequences in one call.
//!
//! Each query row and head is computed alone: scores, maximum, exponentials, their sum and the weighted values, all in
//! order of position. So a row's result does not depend on what shares the call. Where a row sees a window, which position
//! comes to which partial sum depends on the row's own position.

#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::ops::Range;

use bytemuck::{cast_slice, cast_slice_mut};
use candle_core::{CpuStorage, CustomOp1, Layout, Result as CandleResult, Shape, Tensor};
use half::{bf16, f16};
use rayon::prelude::*;
use swarm_protocol::wire::ElementType;

use crate::error::ModelError;
use crate::kernels::{Element, Kernel, Lanes, Stored, sum_lanes, with_kernel};
use crate::kv::{KvCache, KvElement, KvPage, KvShape, PAGE_POSITIONS, Side, quantise};
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
    let (shape, first) = (cache.shape(), cache.len());
    let width = shape.kv_heads * shape.head_dim;
    for (side, rows) in [(Side::Keys, keys), (Side::Values, values)] {
        for (position, row) in (first..).zip(rows.chunks_exact(width)) {
            let page = cache.pages_mut()[position / PAGE_POSITIONS].side_bytes_mut(block, side)?;
            let heads = page.chunks_exact_mut(shape.head_bytes()).zip(row.chunks_exact(shape.head_dim));
            heads.for_each(|(head, from)| store_run(&shape, head, from, position % PAGE_POSITIONS));
        }
    }
    Ok(())
}

/// Puts the key or value of one head into `slot`.
fn store_run(shape: &KvShape, head: &mut [u8], from: &[f32], slot: usize) {
    fn round<E: Element>(run: &mut [u8], from: &[f32]) {
        let pairs = cast_slice_mut(run).iter_mut().zip(from);
        pairs.for_each(|(to, from)| *to = E::round(*from));
    }
    let run = &mut head[shape.run(slot)];
    match shape.element {
        KvElement::Float(ElementType::F32) => round::<f32>(run, from),
        KvElement::Float(ElementType::F16) => round::<f16>(run, from),
        KvElement::Float(ElementType::Bf16) => round::<bf16>(run, from),
        KvElement::Int8 => {
            let scale = quantise(from, cast_slice_mut(run));
            head[shape.scale(slot)].copy_from_slice(cast_slice(&[scale]));
        }
    }
}

/// How products of queries and keys become weights of values.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scoring {
    /// What products are multiplied by.
    pub(crate) scale: f32,
    /// Scaled scores `s` become `cap * tanh(s / cap)`.
    pub(crate) cap: Option<f32>,
    /// How many positions a row sees, its own among them. No others are read, so a row costs no more behind a long text; their
    /// pages are kept all the same, since a rewind needs them.
    pub(crate) window: Option<usize>,
    /// A score for each head that takes part in the softmax and brings no value.
    pub(crate) sinks: Option<Vec<f32>>,
}

/// Queries `(rows, heads * head_dim)` f32 to attended values of the same shape.
pub(crate) fn attend(
    queries: &Tensor,
    heads: usize,
    shape: KvShape,
    scoring: &Scoring,
    spans: &[Span<'_>],
) -> Result<Tensor, ModelError> {
    let op = Attention { heads, shape, scoring, spans };
    Ok(queries.apply_op1_no_bwd(&op)?)
}

struct Attention<'a> {
    heads: usize,
    shape: KvShape,
    scoring: &'a Scoring,
    spans: &'a [Span<'a>],
}

impl CustomOp1 for Attention<'_> {
    fn name(&self) -> &'static str {
        "paged-attention"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let queries = contiguous::<f32>(storage, layout)?;
        let out = match self.shape.element {
            KvElement::Float(ElementType::F32) => self.run::<f32>(queries)?,
            KvElement::Float(ElementType::F16) => self.run::<f16>(queries)?,
            KvElement::Float(ElementType::Bf16) => self.run::<bf16>(queries)?,
            KvElement::Int8 => self.run::<i8>(queries)?,
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
    /// The first position whose scores are held: that of the first page that a row sees.
    base: usize,
}

impl Task<'_> {
    /// The position behind the last that a row sees.
    fn seen(&self) -> usize {
        self.position + self.rows
    }

    /// Scores held for each query.
    fn width(&self) -> usize {
        self.seen() - self.base
    }
}

impl Attention<'_> {
    fn run<E: Stored>(&self, queries: &[f32]) -> CandleResult<Vec<f32>> {
        let tasks = self.tasks();
        let scores = |task: &Task<'_>| task.rows * task.width();
        let work: usize = tasks.iter().map(scores).sum::<usize>() * self.group_width();
        let compute = |task: &Task<'_>| with_kernel!(kernel => self.compute::<_, E>(kernel, task, queries));
        let parts: Vec<Vec<f32>> = if work < PARALLEL_WORK || rayon::current_num_threads() == 1 {
            tasks.iter().map(compute).collect()
        } else {
            tasks.par_iter().with_max_len(1).map(compute).collect()
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
            let held =
                self.scoring.window.map_or(usize::MAX, |window| window.saturating_add(TASK_ROWS + PAGE_POSITIONS));
            let row_scores = self.group() * held.min(span.position + span.rows);
            let step = (TASK_SCORES / row_scores).clamp(1, TASK_ROWS);
            for first in (0..span.rows).step_by(step) {
                tasks.extend((0..self.shape.kv_heads).map(|kv_head| Task {
                    pages: span.pages,
                    block: span.block,
                    kv_head,
                    first_row: span.first_row + first,
                    rows: step.min(span.rows - first),
                    position: span.position + first,
                    base: self.first_seen(span.position + first) / PAGE_POSITIONS * PAGE_POSITIONS,
                }));
            }
        }
        tasks
    }

    /// The first position that a row at `position` sees.
    fn first_seen(&self, position: usize) -> usize {
        self.scoring.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }

    /// The scores of a task's row that count, among those held.
    fn counted(&self, task: &Task<'_>, row: usize) -> Range<usize> {
        let position = task.position + row;
        self.first_seen(position) - task.base..position + 1 - task.base
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
    fn compute<K: Kernel, E: Stored>(&self, kernel: K, task: &Task<'_>, queries: &[f32]) -> Vec<f32> {
        let row = |row: usize| &queries[self.query_start(task, row)..][..self.group_width()];
        let queries = (0..task.rows).map(row).collect::<Vec<_>>().concat();
        let mut scores = SCORES.take();
        self.score::<_, E>(kernel, task, &queries, &mut scores);
        let mut out = vec![0.0; queries.len()];
        let sums = self.weigh::<_, E>(kernel, task, &mut scores, &mut out);
        for (out, sum) in out.chunks_exact_mut(self.shape.head_dim).zip(sums) {
            let sum = sum_lanes(&sum);
            out.iter_mut().for_each(|value| *value /= sum);
        }
        SCORES.set(scores);
        out
    }

    /// Unscaled scores `(rows * group, width)` from position `base` on; those that a row does not see are never read.
    fn score<K: Kernel, E: Stored>(&self, kernel: K, task: &Task<'_>, queries: &[f32], scores: &mut Vec<f32>) {
        let (dim, width) = (self.shape.head_dim, task.width());
        scores.resize(queries.len() / dim * width, 0.0);
        let mut ahead = self.part::<E>(task, task.base, Side::Keys);
        for start in (task.base..task.seen()).step_by(PAGE_POSITIONS) {
            let positions = PAGE_POSITIONS.min(task.seen() - start);
            let held = start - task.base;
            let (keys, scales) = std::mem::replace(&mut ahead, self.part(task, start + PAGE_POSITIONS, Side::Keys));
            let (keys, next) = (keys.get(..positions * dim).unwrap_or_default(), ahead.0);
            let tiles = queries.chunks(TILE_QUERIES * dim).zip(scores.chunks_mut(TILE_QUERIES * width));
            for (index, (queries, scores)) in tiles.enumerate() {
                // The first tile's reads are those that wait for memory.
                let keys = (keys, if index == 0 { next } else { &[] });
                let place = (held, width);
                match queries.len() / dim {
                    1 => kernel.short_dots::<E, 1, 8>(split(queries, dim), keys, scores, place),
                    2 => kernel.short_dots::<E, 2, 4>(split(queries, dim), keys, scores, place),
                    3 => kernel.short_dots::<E, 3, 2>(split(queries, dim), keys, scores, place),
                    _ => kernel.short_dots::<E, TILE_QUERIES, 2>(split(queries, dim), keys, scores, place),
                }
                for scores in scores.chunks_exact_mut(width) {
                    let pairs = scores[held..held + positions].iter_mut().zip(scales);
                    pairs.for_each(|(score, scale)| *score *= scale);
                }
            }
        }
    }

    /// Softens the scores page by page and adds the page's values to `out` by them; returns the sum of each query's softened
    /// scores. So memory brings the next page while exponentials are computed.
    fn weigh<K: Kernel, E: Stored>(
        &self,
        kernel: K,
        task: &Task<'_>,
        scores: &mut [f32],
        out: &mut [f32],
    ) -> Vec<Lanes> {
        let (group, dim, width) = (self.group(), self.shape.head_dim, task.width());
        let scale = self.cap(kernel, task, scores);
        let (largest, mut sums) = self.largest(kernel, task, scores, scale);
        let mut scaled = [[0.0; PAGE_POSITIONS]; TILE_QUERIES];
        let mut ahead = self.part::<E>(task, task.base, Side::Values);
        for start in (task.base..task.seen()).step_by(PAGE_POSITIONS) {
            let (values, scales) = std::mem::replace(&mut ahead, self.part(task, start + PAGE_POSITIONS, Side::Values));
            let mut next = ahead.0;
            let held = start - task.base;
            let rows = scores.chunks_exact_mut(group * width).zip(out.chunks_exact_mut(group * dim));
            for (row, (scores, out)) in rows.enumerate() {
                // All heads of a row see as much.
                let counted = self.counted(task, row);
                let span = counted.start.max(held)..counted.end.min(held + PAGE_POSITIONS);
                if span.is_empty() {
                    continue;
                }
                let queries = row * group..(row + 1) * group;
                let softening = largest[queries.clone()].iter().zip(&mut sums[queries]);
                for (scores, (max, sums)) in scores.chunks_exact_mut(width).zip(softening) {
                    kernel.soften(&mut scores[span.clone()], *max, scale, sums);
                }
                let hidden = span.start - held;
                let (values, scales) = (&values[hidden * dim..], scales.get(hidden..).unwrap_or_default());
                let tiles = scores.chunks(TILE_QUERIES * width).zip(out.chunks_mut(TILE_QUERIES * dim));
                for (scores, out) in tiles {
                    let weights = weights(scores, width, span.clone(), scales, &mut scaled);
                    add_values(kernel, weights, (values, std::mem::take(&mut next)), out, dim);
                }
            }
        }
        sums
    }

    /// Caps the scores that count, if the model does; returns what they are still to be multiplied by.
    fn cap<K: Kernel>(&self, kernel: K, task: &Task<'_>, scores: &mut [f32]) -> f32 {
        let Some(cap) = self.scoring.cap else {
            return self.scoring.scale;
        };
        for (index, scores) in scores.chunks_exact_mut(task.width()).enumerate() {
            let counted = self.counted(task, index / self.group());
            kernel.cap(&mut scores[counted], self.scoring.scale, cap);
        }
        1.0
    }

    /// The largest score of each query, and the beginning of the sum of its softened ones: the head's sink, if it has one.
    fn largest<K: Kernel>(&self, kernel: K, task: &Task<'_>, scores: &[f32], scale: f32) -> (Vec<f32>, Vec<Lanes>) {
        let group = self.group();
        let of_query = |(index, scores): (usize, &[f32])| {
            let largest = kernel.largest(&scores[self.counted(task, index / group)]);
            let head = task.kv_head * group + index % group;
            let mut sums = Lanes::default();
            let Some(sink) = self.scoring.sinks.as_ref().and_then(|sinks| sinks.get(head)) else {
                return (largest, sums);
            };
            // As if it were the product of the query with one more key.
            let mut sink = [sink / scale];
            let largest = kernel.largest(&[largest, sink[0]]);
            kernel.soften(&mut sink, largest, scale, &mut sums);
            (largest, sums)
        };
        scores.chunks_exact(task.width()).enumerate().map(of_query).unzip()
    }

    /// Keys or values of the task's head from position `start` (the first of a page) on, and their scales, if they have any;
    /// empty past the last page.
    fn part<'a, E: Stored>(&self, task: &Task<'a>, start: usize, side: Side) -> (&'a [E], &'a [f32]) {
        let page = task.pages.get(start / PAGE_POSITIONS);
        page.map_or((&[], &[]), |page| page.head(task.block, side, task.kv_head))
    }
}

/// `R` rows of `width` elements.
fn split<const R: usize>(values: &[f32], width: usize) -> [&[f32]; R] {
    std::array::from_fn(|row| &values[row * width..][..width])
}

/// The weights of one to [`TILE_QUERIES`] queries for the values of scores `span`: their softened scores, `width` apart
/// from one another; where the values have scales, these times `scales`, in `scaled`.
fn weights<'a>(
    scores: &'a [f32],
    width: usize,
    span: Range<usize>,
    scales: &[f32],
    scaled: &'a mut [[f32; PAGE_POSITIONS]; TILE_QUERIES],
) -> [&'a [f32]; TILE_QUERIES] {
    let row = |query: usize| scores.get(query * width..(query + 1) * width);
    let query = |query: usize| row(query).map_or(&[][..], |scores| &scores[span.clone()]);
    if scales.is_empty() {
        return std::array::from_fn(query);
    }
    for (index, scaled) in scaled.iter_mut().enumerate() {
        let products = query(index).iter().zip(scales).map(|(score, scale)| score * scale);
        scaled.iter_mut().zip(products).for_each(|(to, product)| *to = product);
    }
    scaled.each_ref().map(|scaled| &scaled[..span.len()])
}

/// Adds values to the sums of as many queries as `out` has.
fn add_values<K: Kernel, E: Stored>(
    kernel: K,
    [a, b, c, d]: [&[f32]; TILE_QUERIES],
    values: (&[E], &[E]),
    out: &mut [f32],
    dim: usize,
) {
    match out.len() / dim {
        1 => kernel.weighted_sums([a], values, out),
        2 => kernel.weighted_sums([a, b], values, out),
        3 => kernel.weighted_sums([a, b, c], values, out),
        _ => kernel.weighted_sums([a, b, c, d], values, out),
    }
}
