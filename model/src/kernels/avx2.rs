//! The kernel for x86-64 with AVX2, FMA and F16C: the only place with `unsafe`.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::quant::{self, Cell, Format};
use super::{Element, Kernel, LANES, Lanes, portable};

/// How far ahead of use a single row's weights are asked for, in bytes: about the time memory takes to answer.
const PREFETCH_BYTES: usize = 1024;

/// Proof that this processor has AVX2, FMA and F16C: only [`Avx2::detect`] makes one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// The kernel, if the processor can run it.
    pub(crate) fn detect() -> Option<Self> {
        let has =
            is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
        has.then_some(Self(()))
    }
}

impl Kernel for Avx2 {
    #[inline]
    fn dot_tile<E: Element, const R: usize, const O: usize>(
        self,
        x: [&[f32]; R],
        w: [&[E]; O],
        sums: &mut [[Lanes; O]; R],
    ) {
        // SAFETY: `self` proves that the processor has the features.
        unsafe { dot_tile(x, w, sums) }
    }

    #[inline]
    fn weighted_sum<E: Element>(self, weights: &[f32], values: &[E], sum: &mut [f32]) {
        // SAFETY: `self` proves that the processor has the features.
        unsafe { weighted_sum(weights, values, sum) }
    }

    fn softmax(self, scores: &mut [f32], scale: f32) -> f32 {
        // SAFETY: `self` proves that the processor has the features.
        unsafe { softmax(scores, scale) }
    }

    fn silu_mul(self, gate: &mut [f32], up: &[f32]) {
        // SAFETY: `self` proves that the processor has the features.
        unsafe { silu_mul(gate, up) }
    }

    fn quantise_row(self, x: &[f32], cells: &mut [Cell]) {
        // SAFETY: `self` proves that the processor has the features.
        unsafe { quantise_row(x, cells) }
    }

    #[inline]
    fn add_slabs<F: Format, const R: usize>(self, slabs: &[F::Slab], x: [&[Cell]; R], sums: &mut [Lanes; R]) {
        // SAFETY: `self` proves that the processor has the features.
        unsafe { quant::avx2::add_slabs::<F, R>(slabs, x, sums) }
    }
}

/// Eight elements as f32, exactly. Transmuted arrays instead of load intrinsics: the compiler makes the same loads of
/// them, also where debug assertions are on (a load intrinsic would check its pointer every time).
pub(super) mod load {
    use super::*;
    use half::{bf16, f16};

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(in crate::kernels) fn f32x8(values: &[f32; LANES]) -> __m256 {
        // SAFETY: eight floats are what a register of 32 bytes holds.
        unsafe { std::mem::transmute::<[f32; LANES], __m256>(*values) }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(in crate::kernels) fn f16x8(values: &[f16; LANES]) -> __m256 {
        // SAFETY: a register of 16 bytes holds any 16 bytes.
        _mm256_cvtph_ps(unsafe { std::mem::transmute::<[f16; LANES], __m128i>(*values) })
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(in crate::kernels) fn bf16x8(values: &[bf16; LANES]) -> __m256 {
        // SAFETY: a register of 16 bytes holds any 16 bytes.
        let bits = unsafe { std::mem::transmute::<[bf16; LANES], __m128i>(*values) };
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(bits)))
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn store(lanes: __m256, to: &mut Lanes) {
    // SAFETY: a register of 32 bytes holds eight floats.
    *to = unsafe { std::mem::transmute::<__m256, Lanes>(lanes) };
}

#[target_feature(enable = "avx2,fma,f16c")]
fn dot_tile<E: Element, const R: usize, const O: usize>(x: [&[f32]; R], w: [&[E]; O], sums: &mut [[Lanes; O]; R]) {
    let shortest = |least: usize, length: usize| least.min(length);
    let length = x.iter().map(|x| x.len()).fold(usize::MAX, shortest);
    let length = w.iter().map(|w| w.len()).fold(length, shortest);
    let pieces = length / LANES;
    add_pieces(x.map(|x| x.as_chunks().0), w.map(|w| w.as_chunks().0), pieces, sums);
    let whole = pieces * LANES;
    if whole == length {
        return;
    }
    // The last piece is shorter: padded with zeros it is one more whole piece.
    let mut last_x = [[[0.0; LANES]]; R];
    let mut last_w = [[[E::default(); LANES]]; O];
    for ([last], x) in last_x.iter_mut().zip(x) {
        last[..length - whole].copy_from_slice(&x[whole..length]);
    }
    for ([last], w) in last_w.iter_mut().zip(w) {
        last[..length - whole].copy_from_slice(&w[whole..length]);
    }
    add_pieces(last_x.each_ref().map(|x| &x[..]), last_w.each_ref().map(|w| &w[..]), 1, sums);
}

/// Adds the products of `pieces` pieces of eight to `sums`, which stay in registers meanwhile. Plain loops over
/// indices: closures would not be compiled for this function's features.
#[allow(clippy::needless_range_loop)]
#[target_feature(enable = "avx2,fma,f16c")]
fn add_pieces<E: Element, const R: usize, const O: usize>(
    mut x: [&[[f32; LANES]]; R],
    mut w: [&[[E; LANES]]; O],
    pieces: usize,
    sums: &mut [[Lanes; O]; R],
) {
    // Of one length, so that no access in the loop needs a check.
    for r in 0..R {
        x[r] = &x[r][..pieces];
    }
    for o in 0..O {
        w[o] = &w[o][..pieces];
    }
    let mut tile = [[_mm256_setzero_ps(); O]; R];
    for r in 0..R {
        for o in 0..O {
            tile[r][o] = load::f32x8(&sums[r][o]);
        }
    }
    for piece in 0..pieces {
        // Past the end of these rows come, in a matrix, `O - 1` rows that are read already.
        let ahead = piece + PREFETCH_BYTES / size_of::<[E; LANES]>();
        let ahead = if ahead < pieces { ahead } else { ahead + (O - 1) * pieces };
        let mut weights = [_mm256_setzero_ps(); O];
        for o in 0..O {
            if R == 1 {
                prefetch(w[o].as_ptr().wrapping_add(ahead));
            }
            // SAFETY: this function's features are those of `load8`.
            weights[o] = unsafe { E::load8(&w[o][piece]) };
        }
        for r in 0..R {
            let x = load::f32x8(&x[r][piece]);
            for o in 0..O {
                tile[r][o] = _mm256_fmadd_ps(weights[o], x, tile[r][o]);
            }
        }
    }
    for r in 0..R {
        for o in 0..O {
            store(tile[r][o], &mut sums[r][o]);
        }
    }
}

/// Asks for the weights at `ahead`, which may lie anywhere.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn prefetch<E>(ahead: *const E) {
    // SAFETY: a prefetch reads nothing and may be given any address. (Newer compilers know that.)
    #[allow(unused_unsafe)]
    unsafe {
        _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn weighted_sum<E: Element>(weights: &[f32], values: &[E], sum: &mut [f32]) {
    let width = sum.len();
    let mut done = 0;
    while width - done >= 8 * LANES {
        weighted_columns::<E, 8>(weights, values, sum, done);
        done += 8 * LANES;
    }
    while width - done >= LANES {
        weighted_columns::<E, 1>(weights, values, sum, done);
        done += LANES;
    }
    for column in done..width {
        for (&weight, values) in weights.iter().zip(values.chunks_exact(width)) {
            sum[column] = weight.mul_add(values[column].widen(), sum[column]);
        }
    }
}

/// Columns `first .. first + 8 * C` of a weighted sum, held in registers over all positions.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn weighted_columns<E: Element, const C: usize>(weights: &[f32], values: &[E], sum: &mut [f32], first: usize) {
    let width = sum.len();
    let (columns, _) = sum[first..].as_chunks_mut::<LANES>();
    let mut lanes = [_mm256_setzero_ps(); C];
    for (lanes, column) in lanes.iter_mut().zip(&*columns) {
        *lanes = load::f32x8(column);
    }
    for (&weight, values) in weights.iter().zip(values.chunks_exact(width)) {
        let weight = _mm256_set1_ps(weight);
        let (values, _) = values[first..].as_chunks::<LANES>();
        for (lanes, values) in lanes.iter_mut().zip(values) {
            // SAFETY: this function's features are those of `load8`.
            *lanes = _mm256_fmadd_ps(weight, unsafe { E::load8(values) }, *lanes);
        }
    }
    for (lanes, column) in lanes.iter().zip(columns) {
        store(*lanes, column);
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn softmax(scores: &mut [f32], scale: f32) -> f32 {
    portable::softmax(scores, scale)
}

#[target_feature(enable = "avx2,fma,f16c")]
fn quantise_row(x: &[f32], cells: &mut [Cell]) {
    quant::quantise_row(x, cells);
}

#[target_feature(enable = "avx2,fma,f16c")]
fn silu_mul(gate: &mut [f32], up: &[f32]) {
    portable::silu_mul(gate, up);
}
