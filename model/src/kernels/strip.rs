//! Weights of a few outputs, widened once for many rows that pass over them in wide registers.

use super::wide::{OUTPUTS, Piece, ROWS, Wide};
use super::{Kernel, LANES, Lanes, Stored};

/// Pieces of eight elements that are widened at once: with those of the rows they stay in L1.
const PIECES: usize = 32;

/// Sums of a tile.
type Tile = [[Lanes; OUTPUTS]; ROWS];

/// Widened weights of [`OUTPUTS`] outputs.
pub(crate) struct WideStrip {
    kernel: Wide,
    pieces: Box<[Piece; PIECES]>,
    row: [f32; PIECES * LANES],
    length: usize,
}

impl WideStrip {
    pub(crate) fn new(kernel: Wide) -> Self {
        let pieces = Box::new([Piece::default(); PIECES]);
        Self { kernel, pieces, row: [0.0; PIECES * LANES], length: 0 }
    }

    /// Whether it can hold so many elements of so many outputs.
    pub(crate) fn takes(&self, outputs: usize, elements: usize) -> bool {
        outputs == OUTPUTS && elements.is_multiple_of(LANES) && elements <= PIECES * LANES
    }

    /// Holds these weights from now on, if it [takes](Self::takes) them.
    pub(crate) fn hold<K: Kernel, E: Stored>(&mut self, kernel: K, weights: [&[E]; OUTPUTS]) {
        self.length = weights[0].len() / LANES;
        for (output, weights) in weights.into_iter().enumerate() {
            let row = &mut self.row[..self.length * LANES];
            kernel.widen(weights, row);
            for (piece, elements) in self.pieces.iter_mut().zip(row.as_chunks::<LANES>().0) {
                piece.as_flattened_mut()[output * LANES..][..LANES].copy_from_slice(elements);
            }
        }
    }

    /// Adds the products of the rows, as long as the weights, to their sums, `(rows, OUTPUTS)`.
    pub(crate) fn add<'a>(&self, rows: impl Fn(usize) -> &'a [f32], sums: &mut [Lanes]) {
        let pieces = &self.pieces[..self.length];
        let piece_of = |row| rows(row).as_chunks::<LANES>().0;
        let (tiles, rest) = sums.as_chunks_mut::<{ ROWS * OUTPUTS }>();
        for (tile, sums) in tiles.iter_mut().enumerate() {
            let x = std::array::from_fn(|row| piece_of(tile * ROWS + row));
            let sums: &mut Tile = bytemuck::cast_mut(sums);
            self.kernel.add_tile(x, pieces, sums);
        }
        let left = rest.len() / OUTPUTS;
        if left > 0 {
            // Rows that are missing are computed for nobody.
            let first = tiles.len() * ROWS;
            let x = std::array::from_fn(|row| piece_of(first + row.min(left - 1)));
            let mut tile = Tile::default();
            tile.as_flattened_mut()[..rest.len()].copy_from_slice(rest);
            self.kernel.add_tile(x, pieces, &mut tile);
            rest.copy_from_slice(&tile.as_flattened()[..rest.len()]);
        }
    }
}
