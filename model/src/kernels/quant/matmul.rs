//! Quantised rows times quantised weights, tiled.

use rayon::prelude::*;

use super::{CELL, Cell, Format, GROUP};
use crate::kernels::{Columns, Kernel, Lanes, with_kernel};

/// Every row is padded to a multiple of every format's slab.
const ROW_CELLS: usize = 8;
/// Rows of the tiles, the largest first: what is over is one of the small ones. Of eight rows, weights are unpacked half as
/// often as of four, and their sums are enough for the processor to have always something to add to.
const TILE_ROWS: [usize; 5] = [8, 4, 3, 2, 1];
/// Rows up to which a row is worked on from end to end: weights then are read in the order in which they lie.
const FEW_ROWS: usize = 8;
/// Cells of a row worked on at once above that: those of a tile's rows (10 KiB) stay in L1 while a panel passes over them.
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

/// `y = x * w^T` on this thread: y has the rows' outputs, `slabs` are whole groups of `group_slabs` slabs, the last of which may
/// hold more outputs than y.
pub(crate) fn panel<K: Kernel, F: Format>(
    kernel: K,
    rows: &Rows,
    slabs: &[F::Slab],
    group_slabs: usize,
    mut y: Columns<'_>,
) {
    let (count, outputs) = (rows.count(), y.columns());
    let groups = outputs.div_ceil(GROUP);
    let piece = if count > FEW_ROWS { PIECE_CELLS / F::CELLS } else { group_slabs };
    // `(rows, groups)`
    let mut sums = vec![Lanes::default(); count * groups];
    for start in (0..group_slabs).step_by(piece) {
        let span = start..group_slabs.min(start + piece);
        let (mut row, mut rest) = (0, &mut sums[..]);
        while let Some(tile) = TILE_ROWS.into_iter().find(|tile| *tile <= count - row) {
            let (sums, later) = rest.split_at_mut(tile * groups);
            for (group, slabs) in slabs.chunks_exact(group_slabs).enumerate() {
                let place = Place { row, cell: span.start * F::CELLS, group };
                add_tile::<K, F>(kernel, rows, tile, &slabs[span.clone()], place, sums);
            }
            (row, rest) = (row + tile, later);
        }
    }
    for (row, sums) in sums.chunks_exact(groups).enumerate() {
        y.row(row).copy_from_slice(&sums.as_flattened()[..outputs]);
    }
}

/// What a tile begins with.
struct Place {
    row: usize,
    cell: usize,
    group: usize,
}

/// Adds the products of some slabs of a group with a tile of rows to `sums`, `(rows, groups)`.
fn add_tile<K: Kernel, F: Format>(
    kernel: K,
    rows: &Rows,
    tile: usize,
    slabs: &[F::Slab],
    place: Place,
    sums: &mut [Lanes],
) {
    match tile {
        1 => add_rows::<K, F, 1>(kernel, rows, slabs, place, sums),
        2 => add_rows::<K, F, 2>(kernel, rows, slabs, place, sums),
        3 => add_rows::<K, F, 3>(kernel, rows, slabs, place, sums),
        4 => add_rows::<K, F, 4>(kernel, rows, slabs, place, sums),
        _ => add_rows::<K, F, 8>(kernel, rows, slabs, place, sums),
    }
}

fn add_rows<K: Kernel, F: Format, const R: usize>(
    kernel: K,
    rows: &Rows,
    slabs: &[F::Slab],
    place: Place,
    sums: &mut [Lanes],
) {
    let groups = sums.len() / R;
    let mut tile: [Lanes; R] = std::array::from_fn(|row| sums[row * groups + place.group]);
    kernel.add_slabs::<F, R>(slabs, rows.tile(place.row, place.cell), &mut tile);
    for (row, tile) in tile.into_iter().enumerate() {
        sums[row * groups + place.group] = tile;
    }
}
