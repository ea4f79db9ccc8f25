//! Weights of a few outputs, widened once for many rows that pass over them in wide registers.

use super::wide::{OUTPUTS, PAIR, PAIRS, ROWS, Wide};
use super::{LANES, Lanes, Stored};

/// Pieces of eight elements that a tile's rows pass over at once: 18 KiB of weights, with the tile and all sums not more than a
/// small L1 holds. A tile's sums are read and written once for so many.
const PIECES: usize = 48;
/// Rows that pass over one stretch of weights after the other while their sums (6 KiB) stay in L1.
const BLOCK_ROWS: usize = 16;

/// Sums of a tile.
type Tile = [[Lanes; OUTPUTS]; ROWS];

/// Eight elements of each output, in whole lines of the cache: reading a register across two lines takes two reads.
#[derive(Clone, Copy, Default)]
#[repr(C, align(64))]
pub(crate) struct Piece(pub(crate) [[f32; LANES * PAIR]; PAIRS]);

/// Sums of a row, in whole lines.
#[derive(Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct RowSums([Lanes; OUTPUTS]);

/// Widened weights of [`OUTPUTS`] outputs.
pub(crate) struct WideStrip {
    kernel: Wide,
    pieces: Vec<Piece>,
}

impl WideStrip {
    pub(crate) fn new(kernel: Wide) -> Self {
        Self { kernel, pieces: Vec::new() }
    }

    /// Whether it can hold so many elements of so many outputs.
    pub(crate) fn takes(outputs: usize, elements: usize) -> bool {
        outputs == OUTPUTS && elements.is_multiple_of(LANES)
    }

    /// Holds these weights from now on, if it [takes](Self::takes) them.
    pub(crate) fn hold<E: Stored>(&mut self, weights: [&[E]; OUTPUTS]) {
        self.pieces.resize(weights[0].len() / LANES, Piece::default());
        self.kernel.widen(weights.map(|weights| weights.as_chunks().0), &mut self.pieces);
    }

    /// Multiplies rows as long as the weights with every output. `done` gets the sums of some rows at a time, `(rows, OUTPUTS)`,
    /// and which the first of these rows is.
    pub(crate) fn products(&self, rows: &[&[f32]], mut done: impl FnMut(usize, &[Lanes])) {
        let mut sums = [RowSums::default(); BLOCK_ROWS];
        for (block, rows) in rows.chunks(BLOCK_ROWS).enumerate() {
            sums.fill(RowSums::default());
            for (stretch, weights) in self.pieces.chunks(PIECES).enumerate() {
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
            done(block * BLOCK_ROWS, &lanes[..rows.len() * OUTPUTS]);
        }
    }
}
