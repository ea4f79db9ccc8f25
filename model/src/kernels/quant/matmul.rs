//! Quantised rows times quantised weights, tiled.

use rayon::prelude::*;

use super::{CELL, Cell, Format, GROUP};
use crate::kernels::{Kernel, Lanes, with_kernel};

/// Every row is padded to a multiple of every format's slab.
const ROW_CELLS: usize = 8;
/// Rows of the largest tile.
const TILE_ROWS: usize = 4;
/// Cells of a group worked on at once when several tiles share it: its weights (at most 17 KiB) and a tile's rows (10 KiB)
/// stay in L1.
const PIECE_CELLS: usize = 64;
/// Elements below which one thread quantises them all.
const PARALLEL_ELEMENTS: usize = 64 * 1024;

/// Quantised rows.
#[derive(Debug)]
pub(crate) struct Rows {
    cells: Vec<Cell>,
    per_row: usize,
}

impl Rows {
    /// Quantises `x`, rows of `inner` elements.
    pub(crate) fn new(x: &[f32], inner: usize) -> Self {
        let per_row = inner.div_ceil(CELL).next_multiple_of(ROW_CELLS);
        let mut cells = vec![Cell::default(); x.len() / inner * per_row];
        with_kernel!(kernel => if x.len() < PARALLEL_ELEMENTS {
            let pairs = x.chunks_exact(inner).zip(cells.chunks_exact_mut(per_row));
            pairs.for_each(|(x, cells)| kernel.quantise_row(x, cells));
        } else {
            let pairs = x.par_chunks_exact(inner).zip(cells.par_chunks_exact_mut(per_row));
            pairs.for_each(|(x, cells)| kernel.quantise_row(x, cells));
        });
        Self { cells, per_row }
    }

    fn count(&self) -> usize {
        self.cells.len() / self.per_row
    }

    /// Some cells of `R` rows from `first` on.
    fn tile<const R: usize>(&self, first: usize, from: usize) -> [&[Cell]; R] {
        std::array::from_fn(|row| &self.cells[(first + row) * self.per_row..][from..self.per_row])
    }
}

/// `y = x * w^T` on this thread: y is `(rows, outputs)`, `slabs` whole groups of `group_slabs` slabs, the last of which may
/// hold more outputs than y.
pub(crate) fn panel<K: Kernel, F: Format>(
    kernel: K,
    rows: &Rows,
    slabs: &[F::Slab],
    group_slabs: usize,
    y: &mut [f32],
) {
    let outputs = y.len() / rows.count();
    let piece = if rows.count() > TILE_ROWS { PIECE_CELLS / F::CELLS } else { group_slabs };
    let mut sums = vec![Lanes::default(); rows.count()];
    for (group, slabs) in slabs.chunks_exact(group_slabs).enumerate() {
        sums.fill(Lanes::default());
        for (index, slabs) in slabs.chunks(piece).enumerate() {
            add_piece::<K, F>(kernel, rows, index * piece * F::CELLS, slabs, &mut sums);
        }
        let first = group * GROUP;
        let width = GROUP.min(outputs - first);
        for (y, sums) in y.chunks_exact_mut(outputs).zip(&sums) {
            y[first..first + width].copy_from_slice(&sums[..width]);
        }
    }
}

/// Adds the products of some slabs of a group with every row's cells from number `from` on.
fn add_piece<K: Kernel, F: Format>(kernel: K, rows: &Rows, from: usize, slabs: &[F::Slab], sums: &mut [Lanes]) {
    let (tiles, rest) = sums.as_chunks_mut::<TILE_ROWS>();
    let done = tiles.len() * TILE_ROWS;
    for (tile, sums) in tiles.iter_mut().enumerate() {
        kernel.add_slabs::<F, TILE_ROWS>(slabs, rows.tile(tile * TILE_ROWS, from), sums);
    }
    let first = (done, from);
    match rest.len() {
        1 => last_tile::<K, F, 1>(kernel, rows, first, slabs, rest),
        2 => last_tile::<K, F, 2>(kernel, rows, first, slabs, rest),
        3 => last_tile::<K, F, 3>(kernel, rows, first, slabs, rest),
        _ => {}
    }
}

/// `R` rows that are no whole tile; `sums` are theirs.
fn last_tile<K: Kernel, F: Format, const R: usize>(
    kernel: K,
    rows: &Rows,
    (first, from): (usize, usize),
    slabs: &[F::Slab],
    sums: &mut [Lanes],
) {
    if let Some(sums) = sums.first_chunk_mut::<R>() {
        kernel.add_slabs::<F, R>(slabs, rows.tile(first, from), sums);
    }
}
