//! Weights of a panel, widened once for many rows that pass over them in wide registers.

use super::wide::{OUTPUTS, PAIR, PAIRS, ROWS, Wide};
use super::{LANES, Lanes, Stored};

/// Pieces of eight elements that a tile's rows pass over at once: 18 KiB of weights, with the tile and all sums not more than a
/// small L1 holds. A tile's sums are read and written once for so many.
const PIECES: usize = 48;
/// Rows that pass over one strip after the other: their sums with one (6 KiB) stay in L1, they themselves in L2.
const BLOCK_ROWS: usize = 16;

/// Sums of a tile.
type Tile = [[Lanes; OUTPUTS]; ROWS];

/// Eight elements of each output, in whole lines of the cache: reading a register across two lines takes two reads.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Piece(pub(crate) [[f32; LANES * PAIR]; PAIRS]);

/// Sums of a row, in whole lines.
#[derive(Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct RowSums([Lanes; OUTPUTS]);

/// Widened weights of several times [`OUTPUTS`] outputs.
pub(crate) struct WideStrips {
    kernel: Wide,
    /// Strip by strip.
    pieces: Vec<Piece>,
    strip_pieces: usize,
}

impl WideStrips {
    /// Widens `strips` strips of weights `(outputs, inner)`; `weights` gives an output's. `None` if `inner` elements are no whole
    /// pieces.
    pub(crate) fn new<'a, E: Stored>(
        kernel: Wide,
        (strips, inner): (usize, usize),
        weights: impl Fn(usize) -> &'a [E],
    ) -> Option<Self> {
        let strip_pieces = inner / LANES;
        if strip_pieces == 0 || !inner.is_multiple_of(LANES) {
            return None;
        }
        let mut pieces = Vec::with_capacity(strips * strip_pieces);
        for first in (0..strips * OUTPUTS).step_by(OUTPUTS) {
            kernel.widen(std::array::from_fn(|output| weights(first + output).as_chunks().0), &mut pieces);
        }
        Some(Self { kernel, pieces, strip_pieces })
    }

    /// Multiplies rows as long as the weights with every output. `done` gets the sums of some rows with a strip,
    /// `(rows, OUTPUTS)`, the first of these rows, and the first of these outputs.
    pub(crate) fn products(&self, rows: &[&[f32]], mut done: impl FnMut(&[Lanes], usize, usize)) {
        let mut sums = [RowSums::default(); BLOCK_ROWS];
        for (block, rows) in rows.chunks(BLOCK_ROWS).enumerate() {
            for (strip, pieces) in self.pieces.chunks_exact(self.strip_pieces).enumerate() {
                sums.fill(RowSums::default());
                for (stretch, weights) in pieces.chunks(PIECES).enumerate() {
                    let tiles = rows.chunks(ROWS).zip(sums.as_chunks_mut::<ROWS>().0);
                    for (rows, sums) in tiles {
                        // Rows that the last tile lacks are computed for nobody.
                        let row = |row: usize| rows[row.min(rows.len() - 1)].as_chunks::<LANES>().0;
                        let x = std::array::from_fn(|index| &row(index)[stretch * PIECES..]);
                        let sums: &mut Tile = bytemuck::cast_mut(sums);
                        self.kernel.add_tile(x, weights, sums);
                    }
                }
                let lanes: &[Lanes] = bytemuck::cast_slice(&sums);
                done(&lanes[..rows.len() * OUTPUTS], block * BLOCK_ROWS, strip * OUTPUTS);
            }
        }
    }
}
