//! What attention reads: keys and values of one page while memory is asked for the next.

use std::arch::x86_64::*;

use super::{Avx2, LINE_BYTES, load, prefetch, prefetch_second, store, sum_eight};
use crate::kernels::wide::SHORT_ROWS;
use crate::kernels::{LANES, Lanes, Stored, matmul};

/// A tile of at most eight products stays in registers until it is summed.
#[allow(clippy::needless_range_loop)]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn short_dots<E: Stored, const R: usize, const O: usize>(
    kernel: Avx2,
    x: [&[f32]; R],
    (w, next): (&[E], &[E]),
    y: &mut [f32],
    (first, stride): (usize, usize),
) {
    let inner = x[0].len();
    if R * O > LANES || inner == 0 || !inner.is_multiple_of(LANES) || next.len() % w.len().max(1) != 0 {
        return matmul::short_dots::<_, E, R, O>(kernel, x, (w, next), y, (first, stride));
    }
    let done = match kernel.wide {
        Some(wide) if R <= SHORT_ROWS => wide.short_dots(&x, (w, next), y, (first, stride)),
        _ => 0,
    };
    let pieces = inner / LANES;
    let mut rows = [&[][..]; R];
    for r in 0..R {
        rows[r] = &x[r].as_chunks::<LANES>().0[..pieces];
    }
    let outputs = w.len() / inner;
    for at in (done..outputs).step_by(O) {
        if !next.is_empty() {
            prefetch_all::<E>(next.as_ptr().wrapping_add(at * inner), O * inner);
        }
        let mut lines = [&[][..]; O];
        for o in 0..O {
            // Past the last output come products that nobody reads.
            let output = (at + o).min(outputs - 1);
            lines[o] = &w[output * inner..][..inner].as_chunks::<LANES>().0[..pieces];
        }
        let mut tile = [_mm256_setzero_ps(); LANES];
        for piece in 0..pieces {
            for o in 0..O {
                // SAFETY: this function's features are those of `load8`.
                let weights = unsafe { E::load8(&lines[o][piece]) };
                for r in 0..R {
                    tile[r * O + o] = _mm256_fmadd_ps(weights, load::f32x8(&rows[r][piece]), tile[r * O + o]);
                }
            }
        }
        let mut sums = Lanes::default();
        store(sum_eight(tile), &mut sums);
        for r in 0..R {
            let (to, from) = (&mut y[r * stride + first + at..], &sums[r * O..]);
            match (to.first_chunk_mut::<O>(), from.first_chunk::<O>()) {
                // A copy of a fixed length is one instruction.
                (Some(to), Some(from)) if at + O <= outputs => *to = *from,
                _ => to[..outputs - at].copy_from_slice(&from[..outputs - at]),
            }
        }
    }
}

/// Asks for `count` elements at `ahead`, which may lie anywhere.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in crate::kernels) fn prefetch_all<E>(ahead: *const E, count: usize) {
    for line in (0..count).step_by(LINE_BYTES / size_of::<E>()) {
        prefetch(ahead.wrapping_add(line));
    }
}

/// The same, into the second cache.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in crate::kernels) fn prefetch_all_second<E>(ahead: *const E, count: usize) {
    for line in (0..count).step_by(LINE_BYTES / size_of::<E>()) {
        prefetch_second(ahead.wrapping_add(line));
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn weighted_sums<E: Stored, const R: usize>(
    kernel: Avx2,
    weights: [&[f32]; R],
    (values, next): (&[E], &[E]),
    sums: &mut [f32],
) {
    let width = sums.len() / R;
    let positions = weights.iter().map(|weights| weights.len()).fold(usize::MAX, |least, length| least.min(length));
    let weights = weights.map(|weights| &weights[..positions]);
    let mut done = kernel.wide.map_or(0, |wide| wide.weighted_sums(&weights, (values, next), sums));
    while R == 1 && width - done >= 8 * LANES {
        weighted_columns::<E, R, 8>(&weights, (values, next), sums, done);
        done += 8 * LANES;
    }
    while width - done >= 2 * LANES {
        weighted_columns::<E, R, 2>(&weights, (values, next), sums, done);
        done += 2 * LANES;
    }
    while width - done >= LANES {
        weighted_columns::<E, R, 1>(&weights, (values, next), sums, done);
        done += LANES;
    }
    for (weights, sum) in weights.iter().zip(sums.chunks_exact_mut(width.max(1))) {
        for column in done..width {
            for (&weight, values) in weights.iter().zip(values.chunks_exact(width)) {
                sum[column] = weight.mul_add(values[column].widen(), sum[column]);
            }
        }
    }
}

/// Columns `first .. first + 8 * C` of weighted sums, held in registers over all positions.
#[allow(clippy::needless_range_loop)]
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn weighted_columns<E: Stored, const R: usize, const C: usize>(
    weights: &[&[f32]; R],
    (values, next): (&[E], &[E]),
    sums: &mut [f32],
    first: usize,
) {
    let width = sums.len() / R;
    // Each tile of columns asks for its own part of what is next; two may share a line.
    let ahead = !next.is_empty() && (first * size_of::<E>()).is_multiple_of(LINE_BYTES);
    let mut lanes = [[_mm256_setzero_ps(); C]; R];
    for row in 0..R {
        for column in 0..C {
            lanes[row][column] = load::f32x8(&sums[row * width + first..].as_chunks().0[column]);
        }
    }
    for (position, values) in values.chunks_exact(width).enumerate().take(weights[0].len()) {
        if ahead {
            prefetch_all(next.as_ptr().wrapping_add(position * width + first), C * LANES);
        }
        let (columns, _) = values[first..].as_chunks::<LANES>();
        let mut values = [_mm256_setzero_ps(); C];
        for column in 0..C {
            // SAFETY: this function's features are those of `load8`.
            values[column] = unsafe { E::load8(&columns[column]) };
        }
        for row in 0..R {
            let weight = _mm256_set1_ps(weights[row][position]);
            for column in 0..C {
                lanes[row][column] = _mm256_fmadd_ps(weight, values[column], lanes[row][column]);
            }
        }
    }
    for row in 0..R {
        for column in 0..C {
            store(lanes[row][column], &mut sums[row * width + first..].as_chunks_mut().0[column]);
        }
    }
}
