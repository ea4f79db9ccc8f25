//! The kernel for x86-64 with AVX2, FMA and F16C. This, `quant` and the file map are the only places with `unsafe`.
#![allow(unsafe_code)]

mod attention;

use std::arch::x86_64::*;

pub(super) use attention::{prefetch_all, prefetch_all_second};

use super::quant::{self, Cell, Format};
use super::wide::Wide;
use super::{Kernel, LANES, Lanes, Stored, portable, sum_lanes};
use crate::config::Activation;

/// How far ahead of use the weights of each output of a tile are asked for, in bytes: about the time the second
/// cache takes to answer.
const PREFETCH_BYTES: usize = 512;
/// How far ahead of use weights are asked into the second cache, in bytes, in the order in which they lie in
/// memory: more than the time that memory takes to answer, and little of any second cache.
const SECOND_BYTES: usize = 32 * 1024;
/// What one prefetch brings.
pub(super) const LINE_BYTES: usize = 64;

/// Proof that this processor has AVX2, FMA and F16C: only [`Avx2::detect`] makes one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx2 {
    /// Whether it also has AVX512-VNNI and AVX512-VL.
    vnni: bool,
    /// Proof of wider registers, if it has them.
    wide: Option<Wide>,
}

impl Avx2 {
    /// The kernel, if the processor can run it.
    pub(crate) fn detect() -> Option<Self> {
        let has =
            is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
        has.then(|| Self {
            vnni: is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512vl"),
            wide: Wide::detect(),
        })
    }

    /// The kernel of an older processor.
    #[cfg(test)]
    pub(super) fn without_512_bits(self) -> Self {
        Self { vnni: false, wide: None }
    }
}

impl Kernel for Avx2 {
    #[inline]
    fn dot_tile<E: Stored, const R: usize, const O: usize>(
        self,
        x: [&[f32]; R],
        w: [&[E]; O],
        ask: bool,
        sums: &mut [Lanes],
        first_and_stride: (usize, usize),
    ) {
        // SAFETY: `self` proves that the processor has the features.
        unsafe { dot_tile(x, w, ask, sums, first_and_stride) }
    }

    #[inline]
    fn wide(self) -> Option<Wide> {
        self.wide
    }

    #[inline]
    fn sum_all(self, lanes: &[Lanes], sums: &mut [f32]) {
        // SAFETY: `self` proves that the processor has the features.
        unsafe { sum_all(lanes, sums) }
    }

    fn short_dots<E: Stored, const R: usize, const O: usize>(
        self,
        x: [&[f32]; R],
        w: (&[E], &[E]),
        y: &mut [f32],
        place: (usize, usize),
    ) {
        // SAFETY: `self` proves that the processor has the features.
        unsafe { attention::short_dots::<E, R, O>(self, x, w, y, place) }
    }

    #[inline]
    fn weighted_sums<E: Stored, const R: usize>(self, weights: [&[f32]; R], values: (&[E], &[E]), sums: &mut [f32]) {
        // SAFETY: `self` proves that the processor has the features.
        unsafe { attention::weighted_sums(self, weights, values, sums) }
    }

    fn largest(self, scores: &[f32]) -> f32 {
        // SAFETY: `self` proves that the processor has the features.
        unsafe { largest(scores) }
    }

    fn soften(self, scores: &mut [f32], max: f32, scale: f32, sums: &mut Lanes) {
        let done = self.wide.map_or(0, |wide| wide.soften(scores, max, scale, sums));
        // SAFETY: `self` proves that the processor has the features.
        unsafe { soften(&mut scores[done..], max, scale, sums) }
    }

    fn activate(self, activation: Activation, gate: &mut [f32], up: &[f32]) {
        // SAFETY: `self` proves that the processor has the features.
        unsafe { activate(activation, gate, up) }
    }

    fn cap(self, scores: &mut [f32], scale: f32, cap: f32) {
        // SAFETY: `self` proves that the processor has the features.
        unsafe { self::cap(scores, scale, cap) }
    }

    fn quantise_row(self, x: &[f32], cells: &mut [Cell]) {
        // SAFETY: `self` proves that the processor has the features.
        unsafe { quantise_row(x, cells) }
    }

    #[inline]
    fn add_slabs<F: Format, const R: usize>(self, slabs: &[F::Slab], x: [&[Cell]; R], sums: &mut [Lanes; R]) {
        // SAFETY: `self` proves that the processor has the features.
        unsafe {
            match self.vnni {
                true => quant::avx2::add_slabs_vnni::<F, R>(slabs, x, sums),
                false => quant::avx2::add_slabs::<F, R>(slabs, x, sums),
            }
        }
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

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(in crate::kernels) fn i8x8(values: &[i8; LANES]) -> __m256 {
        let bits = _mm_cvtsi64_si128(bytemuck::cast::<[i8; LANES], i64>(*values));
        _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bits))
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn store(lanes: __m256, to: &mut Lanes) {
    // SAFETY: a register of 32 bytes holds eight floats.
    *to = unsafe { std::mem::transmute::<__m256, Lanes>(lanes) };
}

/// Plain loops over indices, as in [`add_pieces`]: each closure would be a call.
#[allow(clippy::needless_range_loop)]
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dot_tile<E: Stored, const R: usize, const O: usize>(
    x: [&[f32]; R],
    w: [&[E]; O],
    ask: bool,
    sums: &mut [Lanes],
    place: (usize, usize),
) {
    let (mut length, mut x_pieces, mut w_pieces) = (usize::MAX, [&[][..]; R], [&[][..]; O]);
    for r in 0..R {
        length = length.min(x[r].len());
        x_pieces[r] = x[r].as_chunks().0;
    }
    for o in 0..O {
        length = length.min(w[o].len());
        w_pieces[o] = w[o].as_chunks().0;
    }
    let pieces = length / LANES;
    add_pieces(x_pieces, w_pieces, pieces, ask, (sums, place));
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
    add_pieces(last_x.each_ref().map(|x| &x[..]), last_w.each_ref().map(|w| &w[..]), 1, false, (sums, place));
}

/// Adds the products of `pieces` pieces of eight to `sums`, which stay in registers meanwhile. Plain loops over
/// indices: closures would not be compiled for this function's features.
#[allow(clippy::needless_range_loop)]
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn add_pieces<E: Stored, const R: usize, const O: usize>(
    mut x: [&[[f32; LANES]]; R],
    mut w: [&[[E; LANES]]; O],
    pieces: usize,
    ask: bool,
    (sums, (first, stride)): (&mut [Lanes], (usize, usize)),
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
            tile[r][o] = load::f32x8(&sums[first + r * stride + o]);
        }
    }
    let pieces_of_line = LINE_BYTES / size_of::<[E; LANES]>();
    for piece in 0..pieces {
        if ask && piece % pieces_of_line == 0 {
            // Past the end of these rows come, in a matrix, `O - 1` rows that are read already.
            let ahead = piece + PREFETCH_BYTES / size_of::<[E; LANES]>();
            let ahead = if ahead < pieces { ahead } else { ahead + (O - 1) * pieces };
            let second = w[0].as_ptr().wrapping_byte_add(SECOND_BYTES).wrapping_add(piece * O);
            for o in 0..O {
                prefetch(w[o].as_ptr().wrapping_add(ahead));
                prefetch_second(second.wrapping_add(o * pieces_of_line));
            }
        }
        let mut weights = [_mm256_setzero_ps(); O];
        for o in 0..O {
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
            store(tile[r][o], &mut sums[first + r * stride + o]);
        }
    }
}

/// Asks for the weights at `ahead`, which may lie anywhere. Every processor of x86-64 can.
#[inline(always)]
pub(super) fn prefetch<E>(ahead: *const E) {
    // SAFETY: a prefetch reads nothing and may be given any address. (Newer compilers know that.)
    #[allow(unused_unsafe)]
    unsafe {
        _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
    }
}

/// The same, into the second cache.
#[inline(always)]
pub(super) fn prefetch_second<E>(ahead: *const E) {
    // SAFETY: a prefetch reads nothing and may be given any address.
    #[allow(unused_unsafe)]
    unsafe {
        _mm_prefetch::<_MM_HINT_T1>(ahead.cast());
    }
}

/// Eight sums at a time, added in the order of [`sum_lanes`].
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn sum_all(lanes: &[Lanes], sums: &mut [f32]) {
    let (eights, rest) = lanes.as_chunks::<LANES>();
    let (to, rest_to) = sums.split_at_mut(eights.len() * LANES);
    for (eight, to) in eights.iter().zip(to.as_chunks_mut::<LANES>().0) {
        let mut registers = [_mm256_setzero_ps(); LANES];
        for (register, lanes) in registers.iter_mut().zip(eight) {
            *register = load::f32x8(lanes);
        }
        store(sum_eight(registers), to);
    }
    for (lanes, to) in rest.iter().zip(rest_to) {
        *to = sum_lanes(lanes);
    }
}

/// For lanes `a` to `h` of each: first `a + e, b + f, c + g, d + h`, then the even and the odd two of these, then both.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn sum_eight(lanes: [__m256; LANES]) -> __m256 {
    let mut halves = [_mm256_setzero_ps(); 4];
    for (index, halves) in halves.iter_mut().enumerate() {
        let (one, other) = (lanes[index], lanes[index + 4]);
        let low = _mm256_permute2f128_ps::<0x20>(one, other);
        *halves = _mm256_add_ps(low, _mm256_permute2f128_ps::<0x31>(one, other));
    }
    let mut pairs = [_mm256_setzero_ps(); 2];
    for (index, pairs) in pairs.iter_mut().enumerate() {
        let (one, other) = (halves[2 * index], halves[2 * index + 1]);
        let low = _mm256_shuffle_ps::<0b01_00_01_00>(one, other);
        *pairs = _mm256_add_ps(low, _mm256_shuffle_ps::<0b11_10_11_10>(one, other));
    }
    let even = _mm256_shuffle_ps::<0b10_00_10_00>(pairs[0], pairs[1]);
    _mm256_add_ps(even, _mm256_shuffle_ps::<0b11_01_11_01>(pairs[0], pairs[1]))
}

#[target_feature(enable = "avx2,fma,f16c")]
fn largest(scores: &[f32]) -> f32 {
    portable::largest(scores)
}

#[target_feature(enable = "avx2,fma,f16c")]
fn soften(scores: &mut [f32], max: f32, scale: f32, sums: &mut Lanes) {
    portable::soften(scores, max, scale, sums);
}

#[target_feature(enable = "avx2,fma,f16c")]
fn quantise_row(x: &[f32], cells: &mut [Cell]) {
    quant::quantise_row(x, cells);
}

#[target_feature(enable = "avx2,fma,f16c")]
fn activate(activation: Activation, gate: &mut [f32], up: &[f32]) {
    portable::activate(activation, gate, up);
}

#[target_feature(enable = "avx2,fma,f16c")]
fn cap(scores: &mut [f32], scale: f32, cap: f32) {
    portable::cap(scores, scale, cap);
}
