//! What attention reads, sixteen elements in a register: keys of two neighbouring positions, or as many columns of values.

use std::arch::x86_64::*;

use super::super::avx2::{prefetch_all, prefetch_all_second, store};
use super::{LANES, PAIR, Stored, Wide, load};

/// Columns of a register.
const WIDTH: usize = LANES * PAIR;
/// Registers of a row's tile: with four rows' sums and the values of a position 20 of 32.
const COLUMNS: usize = 4;
/// Most rows of a tile of products.
pub(crate) const SHORT_ROWS: usize = 4;
/// Outputs of such a tile: with four rows their sums take 16 of the 32 registers.
const SHORT_OUTPUTS: usize = 8;
const SHORT_PAIRS: usize = SHORT_OUTPUTS / PAIR;
/// How far ahead values are brought from the second cache into the first: as far as those of weights.
const NEAR_BYTES: usize = 2048;

impl Wide {
    /// The products of at most [`SHORT_ROWS`] rows, a multiple of eight long, with as many outputs as fill tiles; says how many
    /// those were. For the arguments see [`super::super::Kernel::short_dots`]; if `next` has anything, it has no less than `w`.
    pub(crate) fn short_dots<E: Stored, const R: usize>(
        self,
        x: &[&[f32]; R],
        (w, next): (&[E], &[E]),
        y: &mut [f32],
        (first, stride): (usize, usize),
    ) -> usize {
        // SAFETY: `self` proves that the processor has the features.
        unsafe { short_tiles(x, (w, next), y, (first, stride)) }
    }

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
    let (all, positions) = (values, values.len() / width);
    // What is asked for far ahead comes into the second cache: the first has room for the requests of some lines only, and what is
    // computed waits while they are taken.
    let near = NEAR_BYTES / (width * size_of::<E>());
    for (position, values) in values.chunks_exact(width).enumerate().take(weights[0].len()) {
        if !next.is_empty() {
            prefetch_all_second(next.as_ptr().wrapping_add(position * width + first), WIDTH * COLUMNS);
            let near = position + near;
            let line = match near.checked_sub(positions) {
                None => all.as_ptr().wrapping_add(near * width + first),
                Some(near) => next.as_ptr().wrapping_add(near * width + first),
            };
            prefetch_all(line, WIDTH * COLUMNS);
        }
        let (pieces, _) = values[first..].as_chunks::<LANES>();
        let mut columns = [_mm512_setzero_ps(); COLUMNS];
        for column in 0..COLUMNS {
            // SAFETY: this function has the features that `load16` needs.
            columns[column] = unsafe { E::load16(&pieces[PAIR * column], &pieces[PAIR * column + 1]) };
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

#[target_feature(enable = "avx512f,avx512dq,avx2,fma,f16c")]
fn short_tiles<E: Stored, const R: usize>(
    x: &[&[f32]; R],
    (w, next): (&[E], &[E]),
    y: &mut [f32],
    (first, stride): (usize, usize),
) -> usize {
    let tile = SHORT_OUTPUTS * x[0].len();
    let whole = w.len() / tile;
    for index in 0..whole {
        let tiles = (&w[index * tile..][..tile], next.get(index * tile..).unwrap_or_default());
        short_tile(x, tiles, y, (first + index * SHORT_OUTPUTS, stride));
    }
    whole * SHORT_OUTPUTS
}

/// One tile of products, held in registers until they are summed. Plain loops over indices, as above.
#[allow(clippy::needless_range_loop)]
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx2,fma,f16c")]
fn short_tile<E: Stored, const R: usize>(
    x: &[&[f32]; R],
    (w, next): (&[E], &[E]),
    y: &mut [f32],
    (first, stride): (usize, usize),
) {
    let inner = x[0].len();
    let pieces = inner / LANES;
    let mut rows = [&[][..]; R];
    for r in 0..R {
        rows[r] = &x[r].as_chunks::<LANES>().0[..pieces];
    }
    let mut lines = [&[][..]; SHORT_OUTPUTS];
    for o in 0..SHORT_OUTPUTS {
        lines[o] = &w[o * inner..][..inner].as_chunks::<LANES>().0[..pieces];
    }
    let mut tile = [[_mm512_setzero_ps(); SHORT_PAIRS]; R];
    for piece in 0..pieces {
        if !next.is_empty() {
            // Not all at once: those that memory has no room for would hold up what is computed meanwhile.
            prefetch_all(next.as_ptr().wrapping_add(piece * SHORT_OUTPUTS * LANES), SHORT_OUTPUTS * LANES);
        }
        let mut pairs = [_mm512_setzero_ps(); SHORT_PAIRS];
        for p in 0..SHORT_PAIRS {
            // SAFETY: this function has the features that `load16` needs.
            pairs[p] = unsafe { E::load16(&lines[PAIR * p][piece], &lines[PAIR * p + 1][piece]) };
        }
        for r in 0..R {
            let row = load::f32x8_twice(&rows[r][piece]);
            for p in 0..SHORT_PAIRS {
                tile[r][p] = _mm512_fmadd_ps(pairs[p], row, tile[r][p]);
            }
        }
    }
    for r in 0..R {
        let (to, _) = y[r * stride + first..].as_chunks_mut();
        store(sum_pairs(tile[r]), &mut to[0]);
    }
}

/// The sums of eight outputs' lanes, two of which share a register; added as in [`super::super::sum_lanes`].
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx2,fma,f16c")]
fn sum_pairs([a, b, c, d]: [__m512; SHORT_PAIRS]) -> __m256 {
    // Each output's `a + e, b + f, c + g, d + h`: of the first four, and of the others.
    let low = _mm512_add_ps(_mm512_shuffle_f32x4::<0b10_00_10_00>(a, b), _mm512_shuffle_f32x4::<0b11_01_11_01>(a, b));
    let high = _mm512_add_ps(_mm512_shuffle_f32x4::<0b10_00_10_00>(c, d), _mm512_shuffle_f32x4::<0b11_01_11_01>(c, d));
    // The even and the odd two of these; those of output `o` beside those of output `o + 4`.
    let both =
        _mm512_add_ps(_mm512_shuffle_ps::<0b01_00_01_00>(low, high), _mm512_shuffle_ps::<0b11_10_11_10>(low, high));
    let sums = _mm512_add_ps(both, _mm512_permute_ps::<0b10_11_00_01>(both));
    let order = _mm512_setr_epi32(0, 4, 8, 12, 2, 6, 10, 14, 0, 4, 8, 12, 2, 6, 10, 14);
    _mm512_castps512_ps256(_mm512_permutexvar_ps(order, sums))
}
