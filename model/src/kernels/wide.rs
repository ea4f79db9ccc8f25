//! Many rows times weights in registers of 512 bits, each of which holds the partial sums of two neighbouring outputs: the
//! same products in the same order as anywhere else, twice as many at a time.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::{LANES, Lanes};

/// Rows of a tile.
pub(crate) const ROWS: usize = 4;
/// Outputs of a tile: their sums for all rows take 24 of the 32 registers.
pub(crate) const OUTPUTS: usize = 12;
/// Outputs that share a register.
const PAIR: usize = 2;
const PAIRS: usize = OUTPUTS / PAIR;

/// Eight elements of each output of a tile, in order of the outputs.
pub(crate) type Piece = [[f32; LANES * PAIR]; PAIRS];

/// Proof that this processor has AVX-512F and AVX-512DQ.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wide(());

impl Wide {
    /// The kernel, if the processor can run it.
    pub(crate) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq")).then_some(Self(()))
    }

    /// Adds the products of each row's pieces with those of the outputs to `sums`, `(rows, outputs)`; what one has more pieces
    /// than the others is left out.
    pub(crate) fn add_tile(self, x: [&[[f32; LANES]]; ROWS], w: &[Piece], sums: &mut [[Lanes; OUTPUTS]; ROWS]) {
        // SAFETY: `self` proves that the processor has the features.
        unsafe { add_tile(x, w, sums) }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn both(sums: &[Lanes; PAIR]) -> __m512 {
    // SAFETY: a register of 64 bytes holds sixteen floats.
    unsafe { std::mem::transmute::<[Lanes; PAIR], __m512>(*sums) }
}

/// Plain loops over indices: closures would not be compiled for this function's features.
#[allow(clippy::needless_range_loop)]
#[target_feature(enable = "avx512f,avx512dq")]
fn add_tile(mut x: [&[[f32; LANES]]; ROWS], w: &[Piece], sums: &mut [[Lanes; OUTPUTS]; ROWS]) {
    let mut pieces = w.len();
    for r in 0..ROWS {
        pieces = pieces.min(x[r].len());
    }
    // Of one length, so that no access in the loop needs a check.
    let w = &w[..pieces];
    for r in 0..ROWS {
        x[r] = &x[r][..pieces];
    }
    let mut tile = [[_mm512_setzero_ps(); PAIRS]; ROWS];
    for r in 0..ROWS {
        let (pairs, _) = sums[r].as_chunks();
        for p in 0..PAIRS {
            tile[r][p] = both(&pairs[p]);
        }
    }
    for piece in 0..pieces {
        let mut weights = [_mm512_setzero_ps(); PAIRS];
        for p in 0..PAIRS {
            // SAFETY: a register of 64 bytes holds sixteen floats.
            weights[p] = unsafe { std::mem::transmute::<[f32; LANES * PAIR], __m512>(w[piece][p]) };
        }
        for r in 0..ROWS {
            // SAFETY: a register of 32 bytes holds eight floats.
            let row = unsafe { std::mem::transmute::<[f32; LANES], __m256>(x[r][piece]) };
            let row = _mm512_broadcast_f32x8(row);
            for p in 0..PAIRS {
                tile[r][p] = _mm512_fmadd_ps(row, weights[p], tile[r][p]);
            }
        }
    }
    for r in 0..ROWS {
        let (pairs, _) = sums[r].as_chunks_mut();
        for p in 0..PAIRS {
            // SAFETY: a register of 64 bytes holds sixteen floats.
            pairs[p] = unsafe { std::mem::transmute::<__m512, [Lanes; PAIR]>(tile[r][p]) };
        }
    }
}
