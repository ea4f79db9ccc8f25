//! Weighted sums of values, sixteen neighbouring columns in a register.

use std::arch::x86_64::*;

use super::super::avx2::prefetch_all;
use super::{LANES, PAIR, Stored, Wide};

/// Columns of a register.
const WIDTH: usize = LANES * PAIR;
/// Registers of a row's tile: with four rows' sums and the values of a position 20 of 32.
const COLUMNS: usize = 4;

impl Wide {
    /// Adds `weights[p] * values[p]` to each row's sum for as many columns as fill tiles; says how many those were. `next`
    /// is asked for meanwhile. For the others see [`super::super::Kernel::weighted_sums`].
    pub(crate) fn weighted_sums<E: Stored, const R: usize>(
        self,
        weights: &[&[f32]; R],
        (values, next): (&[E], &[E]),
        sums: &mut [f32],
    ) -> usize {
        let width = sums.len() / R;
        let whole = width / (WIDTH * COLUMNS) * (WIDTH * COLUMNS);
        for first in (0..whole).step_by(WIDTH * COLUMNS) {
            // SAFETY: `self` proves that the processor has the features.
            unsafe { weighted_columns(weights, (values, next), sums, first) }
        }
        whole
    }
}

/// Columns `first .. first + WIDTH * COLUMNS` of weighted sums, held in registers over all positions: the same products added
/// in the same order as anywhere else. Plain loops over indices: closures would not be compiled for these features.
#[allow(clippy::needless_range_loop)]
#[target_feature(enable = "avx512f,avx512dq,avx2,fma,f16c")]
fn weighted_columns<E: Stored, const R: usize>(
    weights: &[&[f32]; R],
    (values, next): (&[E], &[E]),
    sums: &mut [f32],
    first: usize,
) {
    let width = sums.len() / R;
    let mut tile = [[_mm512_setzero_ps(); COLUMNS]; R];
    for row in 0..R {
        let (columns, _) = sums[row * width + first..].as_chunks::<WIDTH>();
        for column in 0..COLUMNS {
            // SAFETY: a register of 64 bytes holds sixteen floats.
            tile[row][column] = unsafe { std::mem::transmute::<[f32; WIDTH], __m512>(columns[column]) };
        }
    }
    for (position, values) in values.chunks_exact(width).enumerate().take(weights[0].len()) {
        if !next.is_empty() {
            prefetch_all(next.as_ptr().wrapping_add(position * width + first), WIDTH * COLUMNS);
        }
        let (pieces, _) = values[first..].as_chunks::<LANES>();
        let mut columns = [_mm512_setzero_ps(); COLUMNS];
        for column in 0..COLUMNS {
            // SAFETY: this function has the features that `load8` needs.
            let (low, high) = unsafe { (E::load8(&pieces[PAIR * column]), E::load8(&pieces[PAIR * column + 1])) };
            columns[column] = _mm512_insertf32x8::<1>(_mm512_castps256_ps512(low), high);
        }
        for row in 0..R {
            let weight = _mm512_set1_ps(weights[row][position]);
            for column in 0..COLUMNS {
                tile[row][column] = _mm512_fmadd_ps(weight, columns[column], tile[row][column]);
            }
        }
    }
    for row in 0..R {
        let (columns, _) = sums[row * width + first..].as_chunks_mut::<WIDTH>();
        for column in 0..COLUMNS {
            // SAFETY: a register of 64 bytes holds sixteen floats.
            columns[column] = unsafe { std::mem::transmute::<__m512, [f32; WIDTH]>(tile[row][column]) };
        }
    }
}
