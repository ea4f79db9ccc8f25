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

/// A panel's outputs are a multiple of this, and so of every tile's outputs (8, 6, 4 and 3).
pub(crate) const PANEL_STEP: usize = 24;
/// The longest piece of a row worked on at once when two tiles share it, so that a tile's rows stay in L1.
const PIECE: usize = 1024;
/// Numbers of rows for which wide registers take up to eight at once: fewer wait for memory anyway, for more it pays to widen
/// weights once.
#[cfg(target_arch = "x86_64")]
const WIDE_ROWS: std::ops::RangeInclusive<usize> = 2..=24;
/// The longest piece of a row worked on at once where wide registers take up to eight rows.
#[cfg(target_arch = "x86_64")]
const WIDE_PIECE: usize = 1024;
/// Rows of the largest tile.
const TILE_ROWS: usize = 4;
/// Rows up to which weights are widened again for every tile: above, they are widened once for many.
const FEW_ROWS: usize = 8;
/// Outputs and elements of weights that are widened at once: 12 KiB that stay in L1 while many rows pass over them, with
/// room for a tile's rows, which (being a power of two apart) lie in the same few sets of the cache.
const STRIP_OUTPUTS: usize = 12;
const STRIP_PIECE: usize = 256;
/// Rows that pass over one strip after the other where registers are narrow, before those that follow: they stay in L2, with their
/// partial sums (48 KiB).
const BLOCK_ROWS: usize = 128;

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
    #[cfg(target_arch = "x86_64")]
    if let Some(wide) = kernel.wide().filter(|_| WIDE_ROWS.contains(&x.count)) {
        for first in (0..x.count).step_by(FEW_ROWS) {
            let x = x.some(first, FEW_ROWS);
            let y = (&mut y, first);
            match x.count {
                1 => some_rows::<K, E, 1>(kernel, wide, x, w, y),
                2 => some_rows::<K, E, 2>(kernel, wide, x, w, y),
                3 => some_rows::<K, E, 3>(kernel, wide, x, w, y),
                4 => some_rows::<K, E, 4>(kernel, wide, x, w, y),
                5 => some_rows::<K, E, 5>(kernel, wide, x, w, y),
                6 => some_rows::<K, E, 6>(kernel, wide, x, w, y),
                7 => some_rows::<K, E, 7>(kernel, wide, x, w, y),
                _ => some_rows::<K, E, FEW_ROWS>(kernel, wide, x, w, y),
            }
        }
        return;
    }
    if x.count > FEW_ROWS {
        return many_rows(kernel, x, w, y);
    }
    let piece = if x.count > TILE_ROWS { PIECE } else { inner };
    for first in (0..x.count).step_by(TILE_ROWS) {
        let x = x.some(first, TILE_ROWS);
        let mut lanes = vec![Lanes::default(); x.count * w.count];
        for span in pieces(inner, piece) {
            add_tile(kernel, x, &span, w, &span, &mut lanes);
        }
        finish(kernel, &lanes, (&mut y, first), &(0..w.count));
    }
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
                kernel.dot_tile([x], [w.part(last, &span)], &mut lanes, (row * outputs + last, outputs));
            }
        }
    }
    finish(kernel, &lanes, y, &(0..outputs));
}

/// Many rows, for which weights are widened once. Whole strips go through wide registers, if there are any.
fn many_rows<K: Kernel, E: Stored>(kernel: K, x: Lines<'_, f32>, w: Lines<'_, E>, mut y: Columns<'_>) {
    let whole = whole_strips(kernel, x, w, &mut y);
    if whole == w.count {
        return;
    }
    for first_row in (0..x.count).step_by(BLOCK_ROWS) {
        let x = x.some(first_row, BLOCK_ROWS);
        let mut narrow = NarrowStrip::new(x.count);
        for first in (whole..w.count).step_by(STRIP_OUTPUTS) {
            let strip = w.some(first, STRIP_OUTPUTS);
            let places = first..first + strip.count;
            finish(kernel, narrow.products(kernel, x, strip), (&mut y, first_row), &places);
        }
    }
}

/// The products with all whole strips; how many outputs that were.
#[cfg(target_arch = "x86_64")]
fn whole_strips<K: Kernel, E: Stored>(kernel: K, x: Lines<'_, f32>, w: Lines<'_, E>, y: &mut Columns<'_>) -> usize {
    let (strips, all) = (w.count / wide::OUTPUTS, 0..w.stride);
    let widened = kernel.wide().and_then(|wide| WideStrips::new(wide, (strips, w.stride), |line| w.part(line, &all)));
    let Some(widened) = widened else { return 0 };
    let rows: Vec<&[f32]> = (0..x.count).map(|row| x.part(row, &all)).collect();
    widened.products(&rows, |lanes, row, first| finish(kernel, lanes, (&mut *y, row), &(first..first + wide::OUTPUTS)));
    strips * wide::OUTPUTS
}

#[cfg(not(target_arch = "x86_64"))]
fn whole_strips<K: Kernel, E: Stored>(_: K, _: Lines<'_, f32>, _: Lines<'_, E>, _: &mut Columns<'_>) -> usize {
    0
}

/// A strip in registers that every processor has, and the sums of all rows with it.
struct NarrowStrip {
    widened: [f32; STRIP_OUTPUTS * STRIP_PIECE],
    lanes: Vec<Lanes>,
}

impl NarrowStrip {
    fn new(rows: usize) -> Self {
        Self { widened: [0.0; STRIP_OUTPUTS * STRIP_PIECE], lanes: vec![Lanes::default(); rows * STRIP_OUTPUTS] }
    }

    /// `(rows, outputs)`.
    fn products<K: Kernel, E: Stored>(&mut self, kernel: K, x: Lines<'_, f32>, strip: Lines<'_, E>) -> &[Lanes] {
        let lanes = &mut self.lanes[..x.count * strip.count];
        lanes.fill(Lanes::default());
        for span in pieces(strip.stride, STRIP_PIECE) {
            for (output, to) in self.widened.chunks_exact_mut(STRIP_PIECE).take(strip.count).enumerate() {
                kernel.widen(strip.part(output, &span), &mut to[..span.len()]);
            }
            let widened = Lines { values: &self.widened, stride: STRIP_PIECE, count: strip.count };
            for (tile, lanes) in lanes.chunks_mut(TILE_ROWS * strip.count).enumerate() {
                let x = x.some(tile * TILE_ROWS, TILE_ROWS);
                add_tile(kernel, x, &span, widened, &(0..span.len()), lanes);
            }
        }
        lanes
    }
}

/// `0..length` in pieces.
fn pieces(length: usize, piece: usize) -> impl Iterator<Item = Range<usize>> {
    (0..length).step_by(piece).map(move |start| start..length.min(start + piece))
}

/// The piece of a row of `length` behind `piece`; shorter, or empty, at its end.
#[cfg(target_arch = "x86_64")]
fn piece_after(piece: &Range<usize>, length: usize) -> Range<usize> {
    piece.end..length.min(piece.end + piece.len())
}

/// Adds the products of a piece of one to [`TILE_ROWS`] rows with one of each line of `w` to `lanes`, `(rows, outputs)`.
fn add_tile<K: Kernel, E: Stored>(
    kernel: K,
    x: Lines<'_, f32>,
    of_x: &Range<usize>,
    w: Lines<'_, E>,
    of_w: &Range<usize>,
    lanes: &mut [Lanes],
) {
    match x.count {
        1 => add_lines::<K, E, 1, 4>(kernel, [x.part(0, of_x)], w, of_w, lanes),
        2 => add_lines::<K, E, 2, 6>(kernel, std::array::from_fn(|row| x.part(row, of_x)), w, of_w, lanes),
        3 => add_lines::<K, E, 3, 4>(kernel, std::array::from_fn(|row| x.part(row, of_x)), w, of_w, lanes),
        _ => add_lines::<K, E, 4, 3>(kernel, std::array::from_fn(|row| x.part(row, of_x)), w, of_w, lanes),
    }
}

/// `R` rows against all lines of `w`, `O` at a time.
fn add_lines<K: Kernel, E: Stored, const R: usize, const O: usize>(
    kernel: K,
    x: [&[f32]; R],
    w: Lines<'_, E>,
    span: &Range<usize>,
    lanes: &mut [Lanes],
) {
    let (outputs, whole) = (lanes.len() / R, w.count / O * O);
    for first in (0..whole).step_by(O) {
        let w: [_; O] = std::array::from_fn(|o| w.part(first + o, span));
        kernel.dot_tile(x, w, lanes, (first, outputs));
    }
    for last in whole..w.count {
        kernel.dot_tile(x, [w.part(last, span)], lanes, (last, outputs));
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
            kernel.dot_tile(x, w, tile.as_flattened_mut(), (0, O));
        } else {
            // Products that nobody reads fill up the tile.
            let last = outputs - 1;
            let w: [_; O] = std::array::from_fn(|o| w.part(last.min(at + o), &span));
            kernel.dot_tile(x, w, tile.as_flattened_mut(), (0, O));
        }
        let mut sums = [[0.0; O]; R];
        kernel.sum_all(tile.as_flattened(), sums.as_flattened_mut());
        let count = O.min(outputs - at);
        for (row, sums) in sums.iter().enumerate() {
            y[row * stride + first + at..][..count].copy_from_slice(&sums[..count]);
        }
    }
}
