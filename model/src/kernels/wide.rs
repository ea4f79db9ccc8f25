//! What registers of 512 bits do: rows times weights, each register with the partial sums of two neighbouring outputs, and what
//! attention needs. The same operations in the same order as anywhere else, twice as many at a time.
#![allow(unsafe_code)]

mod attention;
pub(super) mod load;

use std::arch::x86_64::*;

pub(super) use attention::SHORT_ROWS;

use super::avx2::{LINE_BYTES, prefetch, prefetch_second};
use super::strip::Piece;
use super::{LANES, Lanes, Stored, portable};

/// Rows of a tile.
pub(crate) const ROWS: usize = 4;
/// Outputs of a tile: their sums for all rows take 24 of the 32 registers.
pub(crate) const OUTPUTS: usize = 12;
/// Outputs of a tile of a few rows, up to eight: as many sums.
pub(crate) const FEW_OUTPUTS: usize = 6;
const FEW_PAIRS: usize = FEW_OUTPUTS / PAIR;
/// Outputs that share a register.
pub(crate) const PAIR: usize = 2;
pub(crate) const PAIRS: usize = OUTPUTS / PAIR;

/// Elements of the outputs of a tile of a few rows.
pub(crate) type FewOutputs<'a, E> = [&'a [[E; LANES]]; FEW_OUTPUTS];

/// What memory is asked for while a tile of a few rows is computed.
pub(crate) struct Ahead<'a, E> {
    /// The next tile, which comes into the first cache.
    pub(crate) next: FewOutputs<'a, E>,
    /// As many weights as the tile has, which come into the second cache; they may lie anywhere.
    pub(crate) later: *const E,
}

/// Proof that this processor has AVX-512F and AVX-512DQ, and AVX2, FMA and F16C.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wide(());

impl Wide {
    /// The kernel, if the processor can run it.
    pub(crate) fn detect() -> Option<Self> {
        let older =
            is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
        let has = older && is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq");
        has.then_some(Self(()))
    }

    /// Adds the products of each row's pieces with those of the outputs to `sums`, `(rows, outputs)`; what one has more pieces
    /// than the others is left out.
    pub(crate) fn add_tile(self, x: [&[[f32; LANES]]; ROWS], w: &[Piece], sums: &mut [[Lanes; OUTPUTS]; ROWS]) {
        // SAFETY: `self` proves that the processor has the features.
        unsafe { add_tile(x, w, sums) }
    }

    /// Appends the outputs' pieces in f32, side by side; what one has more pieces than the others is left out.
    pub(crate) fn widen<E: Stored>(self, from: [&[[E; LANES]]; OUTPUTS], to: &mut Vec<Piece>) {
        // SAFETY: `self` proves that the processor has the features.
        unsafe { widen(from, to) }
    }

    /// Softens as many scores as fill registers; says how many those were. For the arguments see
    /// [`super::Kernel::soften`].
    pub(crate) fn soften(self, scores: &mut [f32], max: f32, scale: f32, sums: &mut Lanes) -> usize {
        // SAFETY: `self` proves that the processor has the features.
        unsafe { soften(scores, max, scale, sums) }
    }

    /// Adds the products of every row of `x` with every weight row of `w` to `sums`: those of row `r` lie at
    /// `sums[first + r * stride..]`. What one has more pieces than the others is left out. Meanwhile memory is asked for what is
    /// `ahead`.
    pub(crate) fn add_rows<E: Stored, const R: usize>(
        self,
        x: [&[[f32; LANES]]; R],
        w: FewOutputs<'_, E>,
        ahead: Ahead<'_, E>,
        sums: &mut [Lanes],
        first_and_stride: (usize, usize),
    ) {
        // SAFETY: `self` proves that the processor has the features.
        unsafe { add_rows(x, w, ahead, sums, first_and_stride) }
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
            weights[p] = unsafe { std::mem::transmute::<[f32; LANES * PAIR], __m512>(w[piece].0[p]) };
        }
        for r in 0..ROWS {
            let row = load::f32x8_twice(&x[r][piece]);
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

/// Plain loops over indices, as in [`add_tile`].
#[allow(clippy::needless_range_loop)]
#[target_feature(enable = "avx512f,avx512dq,avx2,fma,f16c")]
fn widen<E: Stored>(mut from: [&[[E; LANES]]; OUTPUTS], to: &mut Vec<Piece>) {
    let mut pieces = from[0].len();
    for o in 1..OUTPUTS {
        pieces = pieces.min(from[o].len());
    }
    for o in 0..OUTPUTS {
        from[o] = &from[o][..pieces];
    }
    for piece in 0..pieces {
        let mut wide = [[0.0; LANES * PAIR]; PAIRS];
        for p in 0..PAIRS {
            // SAFETY: this function has the features that `load16` needs.
            let pair = unsafe { E::load16(&from[PAIR * p][piece], &from[PAIR * p + 1][piece]) };
            // SAFETY: a register of 64 bytes holds sixteen floats.
            wide[p] = unsafe { std::mem::transmute::<__m512, [f32; LANES * PAIR]>(pair) };
        }
        to.push(Piece(wide));
    }
}

/// Plain loops over indices, as in [`add_tile`].
#[allow(clippy::needless_range_loop)]
#[target_feature(enable = "avx512f,avx512dq,avx2,fma,f16c")]
fn add_rows<E: Stored, const R: usize>(
    mut x: [&[[f32; LANES]]; R],
    mut w: FewOutputs<'_, E>,
    Ahead { next, later }: Ahead<'_, E>,
    sums: &mut [Lanes],
    (first, stride): (usize, usize),
) {
    let mut pieces = w[0].len();
    for r in 0..R {
        pieces = pieces.min(x[r].len());
    }
    for o in 0..FEW_OUTPUTS {
        pieces = pieces.min(w[o].len());
    }
    // Of one length, so that no access in the loop needs a check.
    for r in 0..R {
        x[r] = &x[r][..pieces];
    }
    for o in 0..FEW_OUTPUTS {
        w[o] = &w[o][..pieces];
    }
    let mut tile = [[_mm512_setzero_ps(); FEW_PAIRS]; R];
    for r in 0..R {
        let (pairs, _) = sums[first + r * stride..][..FEW_OUTPUTS].as_chunks();
        for p in 0..FEW_PAIRS {
            tile[r][p] = both(&pairs[p]);
        }
    }
    let pieces_of_line = LINE_BYTES / size_of::<[E; LANES]>();
    for piece in 0..pieces {
        if piece % pieces_of_line == 0 {
            let later = later.wrapping_add(piece * LANES * FEW_OUTPUTS);
            for o in 0..FEW_OUTPUTS {
                prefetch(next[o].as_ptr().wrapping_add(piece));
                prefetch_second(later.wrapping_add(o * pieces_of_line * LANES));
            }
        }
        let mut weights = [_mm512_setzero_ps(); FEW_PAIRS];
        for p in 0..FEW_PAIRS {
            // SAFETY: this function has the features that `load16` needs.
            weights[p] = unsafe { E::load16(&w[PAIR * p][piece], &w[PAIR * p + 1][piece]) };
        }
        for r in 0..R {
            let row = load::f32x8_twice(&x[r][piece]);
            for p in 0..FEW_PAIRS {
                tile[r][p] = _mm512_fmadd_ps(row, weights[p], tile[r][p]);
            }
        }
    }
    for r in 0..R {
        let (pairs, _) = sums[first + r * stride..][..FEW_OUTPUTS].as_chunks_mut();
        for p in 0..FEW_PAIRS {
            // SAFETY: a register of 64 bytes holds sixteen floats.
            pairs[p] = unsafe { std::mem::transmute::<__m512, [Lanes; PAIR]>(tile[r][p]) };
        }
    }
}

#[target_feature(enable = "avx512f,avx512dq,avx2,fma,f16c")]
fn soften(scores: &mut [f32], max: f32, scale: f32, sums: &mut Lanes) -> usize {
    let (whole, _) = scores.as_chunks_mut::<{ LANES * PAIR }>();
    let mut lanes = *sums;
    for pair in &mut *whole {
        for score in &mut *pair {
            *score = portable::exp((*score - max) * scale);
        }
        for eight in pair.as_chunks::<LANES>().0 {
            for lane in 0..LANES {
                lanes[lane] += eight[lane];
            }
        }
    }
    *sums = lanes;
    whole.len() * LANES * PAIR
}
