//! Rows times weights in floats, tiled. Tiling decides which products are computed together, never the order in which the
//! products of one output are added.

use super::{Element, Kernel, Lanes, sum_lanes};

/// A panel's outputs are a multiple of this, and so of every tile's outputs (8, 6, 4 and 3).
pub(crate) const PANEL_STEP: usize = 24;
/// The longest piece of a row worked on at once when several tiles share it, so that a tile's rows stay in L1.
const PIECE: usize = 1024;
/// Rows of the largest tile.
const TILE_ROWS: usize = 4;

/// `y = x * w^T` on this thread; the number of outputs follows from `w`.
pub(crate) fn panel<K: Kernel, E: Element>(kernel: K, x: &[f32], rows: usize, w: &[E], inner: usize, y: &mut [f32]) {
    let outputs = y.len() / rows;
    let piece = if rows > TILE_ROWS { PIECE } else { inner };
    let tiles = x.chunks(TILE_ROWS * inner).zip(y.chunks_mut(TILE_ROWS * outputs));
    for (x, y) in tiles {
        match x.len() / inner {
            1 => row_tile::<K, E, 1, 8>(kernel, x, w, inner, piece, y),
            2 => row_tile::<K, E, 2, 6>(kernel, x, w, inner, piece, y),
            3 => row_tile::<K, E, 3, 4>(kernel, x, w, inner, piece, y),
            _ => row_tile::<K, E, 4, 3>(kernel, x, w, inner, piece, y),
        }
    }
}

/// `R` rows against all outputs, `O` outputs at a time, over pieces of the rows.
fn row_tile<K: Kernel, E: Element, const R: usize, const O: usize>(
    kernel: K,
    x: &[f32],
    w: &[E],
    inner: usize,
    piece: usize,
    y: &mut [f32],
) {
    let outputs = y.len() / R;
    let (whole, rest) = (outputs / O, outputs % O);
    let mut tiles = vec![[[Lanes::default(); O]; R]; whole];
    let mut singles = vec![[[Lanes::default(); 1]; R]; rest];
    for start in (0..inner).step_by(piece) {
        let span = start..inner.min(start + piece);
        let x: [&[f32]; R] = std::array::from_fn(|row| &x[row * inner..][span.clone()]);
        let weights = |output: usize| &w[output * inner..][span.clone()];
        for (tile, sums) in tiles.iter_mut().enumerate() {
            kernel.dot_tile(x, std::array::from_fn(|o| weights(tile * O + o)), sums);
        }
        for (single, sums) in singles.iter_mut().enumerate() {
            kernel.dot_tile(x, [weights(whole * O + single)], sums);
        }
    }
    for (row, y) in y.chunks_exact_mut(outputs).enumerate() {
        let lanes = tiles.iter().flat_map(|tile| &tile[row]);
        let lanes = lanes.chain(singles.iter().flat_map(|single| &single[row]));
        for (y, lanes) in y.iter_mut().zip(lanes) {
            *y = sum_lanes(lanes);
        }
    }
}
