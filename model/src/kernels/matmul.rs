//! Rows times weights in floats, tiled. Tiling decides which products are computed together, never the order in which the
//! products of one output are added.

use std::ops::Range;

#[cfg(target_arch = "x86_64")]
use super::LANES;
#[cfg(target_arch = "x86_64")]
use super::strip::WideStrips;
#[cfg(target_arch = "x86_64")]
use super::wide::{self, Ahead, Wide};
use super::{Columns, Kernel, Lanes, Stored};

/// A panel's outputs are a multiple of this, and so of every tile's outputs (12, 6, 4 and 3).
pub(crate) const PANEL_STEP: usize = 24;
/// Rows of the largest tile in registers that every kernel has. So few go no faster in wide registers: they wait for memory.
const TILE_ROWS: usize = 4;
/// Rows of the largest tile in wide registers that widens weights itself.
#[cfg(target_arch = "x86_64")]
const WIDE_TILE_ROWS: usize = 8;
/// The longest piece of a row worked on at once in such a tile, so that its rows (32 KiB) stay in L1.
#[cfg(target_arch = "x86_64")]
const WIDE_PIECE: usize = 1024;
/// From so many rows on it pays in wide registers to widen weights once.
#[cfg(target_arch = "x86_64")]
const STRIP_ROWS: usize = 25;

/// Some rows of a matrix, `stride` elements apart.
#[derive(Clone, Copy)]
struct Lines<'a, E> {
    values: &'a [E],
    stride: usize,
    count: usize,
}

impl<'a, E> Lines<'a, E> {
    fn new(values: &'a [E], stride: usize) -> Self {
        Self { values, stride, count: values.len() / stride }
    }

    fn part(&self, line: usize, span: &Range<usize>) -> &'a [E] {
        &self.values[line * self.stride..][span.clone()]
    }

    /// At most `count` lines from `first` on.
    fn some(&self, first: usize, count: usize) -> Self {
        let count = count.min(self.count - first);
        Self { values: &self.values[first * self.stride..], stride: self.stride, count }
    }
}

/// `y = x * w^T` on this thread; y has as many rows and columns as `x` and `w` have rows.
pub(crate) fn panel<K: Kernel, E: Stored>(kernel: K, x: &[f32], w: &[E], inner: usize, mut y: Columns<'_>) {
    let (x, w) = (Lines::new(x, inner), Lines::new(w, inner));
    let whole = in_wide_registers(kernel, x, w, &mut y);
    if whole == w.count {
        return;
    }
    let (rest, places) = (w.some(whole, w.count - whole), whole..w.count);
    let mut lanes = vec![Lanes::default(); TILE_ROWS * rest.count];
    for first in (0..x.count).step_by(TILE_ROWS) {
        let x = x.some(first, TILE_ROWS);
        let lanes = &mut lanes[..x.count * rest.count];
        lanes.fill(Lanes::default());
        add_tile(kernel, x, rest, lanes);
        finish(kernel, lanes, (&mut y, first), &places);
    }
}

/// How many outputs, from the first on, were computed in wide registers: none of so few rows, and none without such registers.
#[cfg(target_arch = "x86_64")]
fn in_wide_registers<K: Kernel, E: Stored>(
    kernel: K,
    x: Lines<'_, f32>,
    w: Lines<'_, E>,
    y: &mut Columns<'_>,
) -> usize {
    let Some(wide) = kernel.wide().filter(|_| x.count > TILE_ROWS) else { return 0 };
    if x.count >= STRIP_ROWS {
        return whole_strips(kernel, wide, x, w, y);
    }
    for first in (0..x.count).step_by(WIDE_TILE_ROWS) {
        let x = x.some(first, WIDE_TILE_ROWS);
        let y = (&mut *y, first);
        match x.count {
            1 => some_rows::<K, E, 1>(kernel, wide, x, w, y),
            2 => some_rows::<K, E, 2>(kernel, wide, x, w, y),
            3 => some_rows::<K, E, 3>(kernel, wide, x, w, y),
            4 => some_rows::<K, E, 4>(kernel, wide, x, w, y),
            5 => some_rows::<K, E, 5>(kernel, wide, x, w, y),
            6 => some_rows::<K, E, 6>(kernel, wide, x, w, y),
            7 => some_rows::<K, E, 7>(kernel, wide, x, w, y),
            _ => some_rows::<K, E, WIDE_TILE_ROWS>(kernel, wide, x, w, y),
        }
    }
    w.count
}

#[cfg(not(target_arch = "x86_64"))]
fn in_wide_registers<K: Kernel, E: Stored>(_: K, _: Lines<'_, f32>, _: Lines<'_, E>, _: &mut Columns<'_>) -> usize {
    0
}

/// Sums lanes `(rows, places)` to rows of `y` from `first` on.
fn finish<K: Kernel>(kernel: K, lanes: &[Lanes], (y, first): (&mut Columns<'_>, usize), places: &Range<usize>) {
    for (row, lanes) in lanes.chunks_exact(places.len()).enumerate() {
        kernel.sum_all(lanes, &mut y.row(first + row)[places.clone()]);
    }
}

/// A few rows at once, in wide registers.
#[cfg(target_arch = "x86_64")]
fn some_rows<K: Kernel, E: Stored, const R: usize>(
    kernel: K,
    wide: Wide,
    x: Lines<'_, f32>,
    w: Lines<'_, E>,
    y: (&mut Columns<'_>, usize),
) {
    let outputs = w.count;
    let mut lanes = vec![Lanes::default(); R * outputs];
    // Behind this panel lies the next one: it is asked for from end to end, however this one is walked through.
    let mut later = w.values.as_ptr_range().end;
    for span in pieces(w.stride, WIDE_PIECE) {
        let whole = if span.len().is_multiple_of(LANES) { outputs / wide::FEW_OUTPUTS * wide::FEW_OUTPUTS } else { 0 };
        let rows: [&[f32]; R] = std::array::from_fn(|row| x.part(row, &span));
        let tile = |first: usize, span: &Range<usize>| {
            std::array::from_fn(|output| w.part(first + output, span).as_chunks().0)
        };
        for first in (0..whole).step_by(wide::FEW_OUTPUTS) {
            let after = first + wide::FEW_OUTPUTS;
            let next = if after < whole { tile(after, &span) } else { tile(0, &piece_after(&span, w.stride)) };
            let asked = Ahead { next, later };
            wide.add_rows(rows.map(|row| row.as_chunks().0), tile(first, &span), asked, &mut lanes, (first, outputs));
            later = later.wrapping_add(wide::FEW_OUTPUTS * span.len());
        }
        for last in whole..outputs {
            for (row, x) in rows.into_iter().enumerate() {
                kernel.dot_tile([x], [w.part(last, &span)], false, &mut lanes, (row * outputs + last, outputs));
            }
        }
    }
    finish(kernel, &lanes, y, &(0..outputs));
}

/// Many rows, for which whole strips of weights are widened once; how many outputs these have.
#[cfg(target_arch = "x86_64")]
fn whole_strips<K: Kernel, E: Stored>(
    kernel: K,
    wide: Wide,
    x: Lines<'_, f32>,
    w: Lines<'_, E>,
    y: &mut Columns<'_>,
) -> usize {
    let (strips, all) = (w.count / wide::OUTPUTS, 0..w.stride);
    let widened = WideStrips::new(wide, (strips, w.stride), |line| w.part(line, &all));
    let Some(widened) = widened else { return 0 };
    let rows: Vec<&[f32]> = (0..x.count).map(|row| x.part(row, &all)).collect();
    widened.products(&rows, |lanes, row, first| finish(kernel, lanes, (&mut *y, row), &(first..first + wide::OUTPUTS)));
    strips * wide::OUTPUTS
}

/// `0..length` in pieces.
#[cfg(target_arch = "x86_64")]
fn pieces(length: usize, piece: usize) -> impl Iterator<Item = Range<usize>> {
    (0..length).step_by(piece).map(move |start| start..length.min(start + piece))
}

/// The piece of a row of `length` behind `piece`; shorter, or empty, at its end.
#[cfg(target_arch = "x86_64")]
fn piece_after(piece: &Range<usize>, length: usize) -> Range<usize> {
    piece.end..length.min(piece.end + piece.len())
}

/// Adds the products of one to [`TILE_ROWS`] rows with each line of `w` to `lanes`, `(rows, outputs)`.
fn add_tile<K: Kernel, E: Stored>(kernel: K, x: Lines<'_, f32>, w: Lines<'_, E>, lanes: &mut [Lanes]) {
    let row = |row: usize| &x.values[row * x.stride..][..x.stride];
    match x.count {
        1 => add_lines::<K, E, 1, 4>(kernel, [row(0)], w, lanes),
        2 => add_lines::<K, E, 2, 6>(kernel, std::array::from_fn(row), w, lanes),
        3 => add_lines::<K, E, 3, 4>(kernel, std::array::from_fn(row), w, lanes),
        _ => add_lines::<K, E, 4, 3>(kernel, std::array::from_fn(row), w, lanes),
    }
}

/// `R` rows against all lines of `w`, `O` at a time; memory is asked for what follows.
fn add_lines<K: Kernel, E: Stored, const R: usize, const O: usize>(
    kernel: K,
    x: [&[f32]; R],
    w: Lines<'_, E>,
    lanes: &mut [Lanes],
) {
    let (outputs, whole, all) = (w.count, w.count / O * O, 0..w.stride);
    for first in (0..whole).step_by(O) {
        let w: [_; O] = std::array::from_fn(|o| w.part(first + o, &all));
        kernel.dot_tile(x, w, true, lanes, (first, outputs));
    }
    for last in whole..outputs {
        kernel.dot_tile(x, [w.part(last, &all)], true, lanes, (last, outputs));
    }
}

/// What [`Kernel::short_dots`] says, without asking for anything ahead.
pub(super) fn short_dots<K: Kernel, E: Stored, const R: usize, const O: usize>(
    kernel: K,
    x: [&[f32]; R],
    (w, _next): (&[E], &[E]),
    y: &mut [f32],
    (first, stride): (usize, usize),
) {
    let inner = x.first().map_or(1, |x| x.len()).max(1);
    let (w, outputs) = (Lines::new(w, inner), w.len() / inner);
    let span = 0..inner;
    for at in (0..outputs).step_by(O) {
        let mut tile = [[Lanes::default(); O]; R];
        if at + O <= outputs {
            let w: [_; O] = std::array::from_fn(|o| w.part(at + o, &span));
            kernel.dot_tile(x, w, false, tile.as_flattened_mut(), (0, O));
        } else {
            // Products that nobody reads fill up the tile.
            let last = outputs - 1;
            let w: [_; O] = std::array::from_fn(|o| w.part(last.min(at + o), &span));
            kernel.dot_tile(x, w, false, tile.as_flattened_mut(), (0, O));
        }
        let mut sums = [[0.0; O]; R];
        kernel.sum_all(tile.as_flattened(), sums.as_flattened_mut());
        let count = O.min(outputs - at);
        for (row, sums) in sums.iter().enumerate() {
            y[row * stride + first + at..][..count].copy_from_slice(&sums[..count]);
        }
    }
}
