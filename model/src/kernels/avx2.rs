//! The kernel for x86-64 with AVX2, FMA and F16C: the only place with `unsafe`.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::{Element, Kernel, LANES, Lanes, portable};

/// How far ahead of use a single row's weights are asked for, in bytes: about the time memory takes to answer.
const PREFETCH_BYTES: usize = 1024;

/// Proof that this processor has AVX2, FMA and F16C: only [`Avx2::detect`] makes one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// The kernel, if the processor can run it.
    pub(crate) fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
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
}

/// Eight elements as f32, exactly.
pub(super) mod load {
    use super::*;
    use half::{bf16, f16};

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(in crate::kernels) fn f32x8(values: &[f32; LANES]) -> __m256 {
        // SAFETY: the array is 32 readable bytes; the load may be unaligned.
        unsafe { _mm256_loadu_ps(values.as_ptr()) }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(in crate::kernels) fn f16x8(values: &[f16; LANES]) -> __m256 {
        // SAFETY: the array is 16 readable bytes; the load may be unaligned.
        _mm256_cvtph_ps(unsafe { _mm_loadu_si128(values.as_ptr().cast()) })
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(in crate::kernels) fn bf16x8(values: &[bf16; LANES]) -> __m256 {
        // SAFETY: the array is 16 readable bytes; the load may be unaligned.
        let bits = unsafe { _mm_loadu_si128(values.as_ptr().cast()) };
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(bits)))
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn store(lanes: __m256, to: &mut Lanes) {
    // SAFETY: the array is 32 writable bytes; the store may be unaligned.
    unsafe { _mm256_storeu_ps(to.as_mut_ptr(), lanes) }
}

/// The whole pieces of eight, and the last one padded with zeros if the length is no multiple of eight.
#[inline(always)]
fn pieces<T: Copy + Default>(row: &[T], length: usize) -> (&[[T; LANES]], Option<[T; LANES]>) {
    let (whole, rest) = row[..length].as_chunks::<LANES>();
    let mut padded = [T::default(); LANES];
    padded[..rest.len()].copy_from_slice(rest);
    (whole, (!rest.is_empty()).then_some(padded))
}

#[target_feature(enable = "avx2,fma,f16c")]
fn dot_tile<E: Element, const R: usize, const O: usize>(
    x: [&[f32]; R],
    w: [&[E]; O],
    sums: &mut [[Lanes; O]; R],
) {
    let shortest = |least: usize, length: usize| least.min(length);
    let length = x.iter().map(|x| x.len()).fold(usize::MAX, shortest);
    let length = w.iter().map(|w| w.len()).fold(length, shortest);
    let x = x.map(|x| pieces(x, length));
    let w = w.map(|w| pieces(w, length));
    let mut tile = sums.map(|row| row.map(|lanes| load::f32x8(&lanes)));
    for piece in 0..length / LANES {
        // SAFETY: every row has `length / LANES` whole pieces, and the caller has the features of `load8`.
        let x = x.each_ref().map(|x| unsafe { x.0.get_unchecked(piece) });
        let w = w.each_ref().map(|w| unsafe { w.0.get_unchecked(piece) });
        if R == 1 {
            prefetch(w);
        }
        add_products(x, w, &mut tile);
    }
    if length % LANES != 0 {
        let x = x.each_ref().map(|x| x.1.as_ref().unwrap_or(&[0.0; LANES]));
        let zero = [E::round(0.0); LANES];
        let w = w.each_ref().map(|w| w.1.as_ref().unwrap_or(&zero));
        add_products(x, w, &mut tile);
    }
    for (lanes, sums) in tile.iter().flatten().zip(sums.iter_mut().flatten()) {
        store(*lanes, sums);
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn add_products<E: Element, const R: usize, const O: usize>(
    x: [&[f32; LANES]; R],
    w: [&[E; LANES]; O],
    tile: &mut [[__m256; O]; R],
) {
    // SAFETY: this function's features are those of `load8`.
    let w = w.map(|w| unsafe { E::load8(w) });
    for (x, tile) in x.into_iter().zip(tile) {
        let x = load::f32x8(x);
        for (w, lanes) in w.iter().zip(tile) {
            *lanes = _mm256_fmadd_ps(*w, x, *lanes);
        }
    }
}

/// Asks for the weights [`PREFETCH_BYTES`] ahead, once for each cache line.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn prefetch<E: Element, const O: usize>(w: [&[E; LANES]; O]) {
    for w in w {
        let ahead = w.as_ptr().cast::<i8>().wrapping_add(PREFETCH_BYTES);
        // SAFETY: a prefetch reads nothing and may be given any address. (Newer compilers know that.)
        #[allow(unused_unsafe)]
        unsafe { _mm_prefetch::<_MM_HINT_T0>(ahead) };
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
fn weighted_columns<E: Element, const C: usize>(
    weights: &[f32],
    values: &[E],
    sum: &mut [f32],
    first: usize,
) {
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
fn silu_mul(gate: &mut [f32], up: &[f32]) {
    portable::silu_mul(gate, up);
}
