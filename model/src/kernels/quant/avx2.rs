//! What the formats' loops share on x86-64 with AVX2, FMA and F16C, and where the processor has it AVX512-VNNI.
//!
//! What may use VNNI is `#[inline(always)]` and has no features of its own: it becomes part of [`add_slabs`] or
//! [`add_slabs_vnni`], which have them. With AVX2's alone the compiler inlined it or not, as it thought fit, and where it did
//! not, every product was a call (Q4_0 took five times as long).
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::five::Fives;
use super::nibbles::Nibbles;
use super::{Cell, Format, GROUP, QUAD, QUADS, Quad};
use crate::kernels::avx2::{LINE_BYTES, load as floats, prefetch, prefetch_second, store};
use crate::kernels::{LANES, Lanes};

/// How far ahead of use weights are asked for, in bytes: about the time memory takes to answer.
const PREFETCH_BYTES: usize = 2048;
/// How far ahead they are asked into the second cache: L1 waits for few lines at a time, which memory alone would not keep busy.
const FAR_BYTES: usize = 8192;

/// Adds the products of a group's `slabs` with each row of `x` to `sums`.
#[target_feature(enable = "avx2,fma,f16c")]
pub(in crate::kernels) fn add_slabs<F: Format, const R: usize>(
    slabs: &[F::Slab],
    x: [&[Cell]; R],
    sums: &mut [Lanes; R],
) {
    // SAFETY: this function's features are those asked for.
    unsafe { add_all::<F, false, R>(slabs, x, sums) };
}

/// The same with instructions that multiply bytes and add them in 32 bits at once.
#[target_feature(enable = "avx2,fma,f16c,avx512vnni,avx512vl")]
pub(in crate::kernels) fn add_slabs_vnni<F: Format, const R: usize>(
    slabs: &[F::Slab],
    x: [&[Cell]; R],
    sums: &mut [Lanes; R],
) {
    // SAFETY: this function's features are those asked for.
    unsafe { add_all::<F, true, R>(slabs, x, sums) };
}

/// # Safety
/// As [`Format::add_avx2`].
#[allow(clippy::needless_range_loop)]
#[inline(always)]
unsafe fn add_all<F: Format, const VNNI: bool, const R: usize>(
    slabs: &[F::Slab],
    x: [&[Cell]; R],
    sums: &mut [Lanes; R],
) {
    // SAFETY: the caller has promised the features, and this is inlined where the compiler knows of them.
    unsafe {
        let mut lanes = [_mm256_setzero_ps(); R];
        for row in 0..R {
            lanes[row] = floats::f32x8(&sums[row]);
        }
        for (index, slab) in slabs.iter().enumerate() {
            F::add_avx2::<VNNI, R>(slab, index, &x, &mut lanes);
        }
        for row in 0..R {
            store(lanes[row], &mut sums[row]);
        }
    }
}

/// Asks for the weights that are used some time after cell `cell` of `slab`. Each cell asks for its share of what is as long as a
/// slab, since lines that are asked for all at once wait for one another, and what is computed waits with them.
#[inline(always)]
pub(super) fn ask_ahead<S, const CELLS: usize>(slab: &S, cell: usize) {
    let (lines, each) = (size_of::<S>() / LINE_BYTES, size_of::<S>() / LINE_BYTES / CELLS);
    let ask = |line: usize| {
        let line = std::ptr::from_ref(slab).cast::<u8>().wrapping_add(line * LINE_BYTES);
        prefetch_second(line.wrapping_add(FAR_BYTES));
        prefetch(line.wrapping_add(PREFETCH_BYTES));
    };
    for line in 0..each {
        ask(cell * each + line);
    }
    if cell == CELLS - 1 {
        for line in CELLS * each..lines {
            ask(line);
        }
    }
}

/// The cells of slab number `index` of each row.
#[inline(always)]
pub(super) fn cells_of<'a, const CELLS: usize, const R: usize>(
    x: &[&'a [Cell]; R],
    index: usize,
) -> [&'a [Cell; CELLS]; R] {
    x.map(|x| &x.as_chunks().0[index])
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn zeros<const R: usize>() -> [__m256i; R] {
    [_mm256_setzero_si256(); R]
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn scales(scales: &[f16; GROUP]) -> __m256 {
    floats::f16x8(scales)
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn bf16_scales(scales: &[bf16; GROUP]) -> __m256 {
    floats::bf16x8(scales)
}

/// Four bytes of each of eight outputs.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn load<T: bytemuck::Pod>(bytes: &[[T; QUAD]; GROUP]) -> __m256i {
    const { assert!(size_of::<T>() == 1) };
    // SAFETY: 32 bytes are what a register holds, and any bytes will do.
    unsafe { std::mem::transmute_copy::<[[T; QUAD]; GROUP], __m256i>(bytes) }
}

/// A quad in every lane.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn everywhere(quad: &Quad) -> __m256i {
    _mm256_set1_epi32(bytemuck::cast(*quad))
}

/// Products of signed weights with a quad, added in pairs in 16 bits: exact, since `x` never is -128.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn signed_products(weights: __m256i, magnitudes: __m256i, x: &Quad) -> __m256i {
    _mm256_maddubs_epi16(magnitudes, _mm256_sign_epi8(everywhere(x), weights))
}

/// Adds the products of unsigned and signed bytes to `dots`, by fours.
///
/// # Safety
/// The processor must have AVX512-VNNI and AVX512-VL.
#[inline(always)]
unsafe fn add_bytes(dots: __m256i, unsigned: __m256i, signed: __m256i) -> __m256i {
    // SAFETY: the caller has promised the features, and this is inlined where the compiler knows of them.
    unsafe { _mm256_dpbusd_epi32(dots, unsigned, signed) }
}

/// What a signed weight is more when its sign bit is flipped and it is read as unsigned.
const BIAS: f32 = 128.0;

/// `times` the sum of each row's cell: whole numbers far below 2^24.
#[allow(clippy::needless_range_loop)]
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn multiples<const CELLS: usize, const R: usize>(
    x: &[&[Cell; CELLS]; R],
    cell: usize,
    times: f32,
) -> [__m256i; R] {
    let mut products = zeros::<R>();
    for row in 0..R {
        products[row] = _mm256_cvtps_epi32(_mm256_set1_ps(x[row][cell].sum * times));
    }
    products
}

/// The products of one cell of signed weights of eight outputs with each row's.
///
/// # Safety
/// For `VNNI` the processor must have AVX512-VNNI and AVX512-VL.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
pub(super) unsafe fn signed_dots<const VNNI: bool, const CELLS: usize, const R: usize>(
    weights: &[[Quad; GROUP]; QUADS],
    x: &[&[Cell; CELLS]; R],
    cell: usize,
) -> [__m256i; R] {
    // SAFETY: the caller has promised the features, and this is inlined where the compiler knows of them.
    unsafe {
        if VNNI {
            // Each weight is taken as unsigned, BIAS too large: integers, so what is too much can be taken off exactly.
            let mut dots = multiples(x, cell, -BIAS);
            for quad in 0..QUADS {
                let biased = _mm256_xor_si256(load(&weights[quad]), _mm256_set1_epi8(i8::MIN));
                for row in 0..R {
                    dots[row] = add_bytes(dots[row], biased, everywhere(&x[row][cell].quads[quad]));
                }
            }
            return dots;
        }
        let mut dots = zeros::<R>();
        for quad in 0..QUADS {
            let weights = load(&weights[quad]);
            let magnitudes = _mm256_abs_epi8(weights);
            for row in 0..R {
                let products = signed_products(weights, magnitudes, &x[row][cell].quads[quad]);
                dots[row] = _mm256_add_epi32(dots[row], _mm256_madd_epi16(products, _mm256_set1_epi16(1)));
            }
        }
        dots
    }
}

/// `start` and the products of one cell of nibbles of eight outputs with each row's.
///
/// # Safety
/// For `VNNI` the processor must have AVX512-VNNI and AVX512-VL.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
pub(super) unsafe fn nibble_dots<const VNNI: bool, const CELLS: usize, const R: usize>(
    nibbles: &Nibbles,
    x: &[&[Cell; CELLS]; R],
    cell: usize,
    start: [__m256i; R],
) -> [__m256i; R] {
    // SAFETY: the caller has promised the features, and this is inlined where the compiler knows of them.
    unsafe {
        let mask = _mm256_set1_epi8(15);
        if VNNI && R == 1 {
            return [row_of_nibbles(nibbles, &x[0][cell].quads, start[0]); R];
        }
        let mut dots = if VNNI { start } else { zeros::<R>() };
        for pair in 0..QUADS / 2 {
            let both = load(&nibbles[pair]);
            let low = _mm256_and_si256(both, mask);
            let high = _mm256_and_si256(_mm256_srli_epi16::<4>(both), mask);
            for row in 0..R {
                let quads = &x[row][cell].quads;
                let (first, second) = (everywhere(&quads[2 * pair]), everywhere(&quads[2 * pair + 1]));
                dots[row] = if VNNI {
                    add_bytes(add_bytes(dots[row], low, first), high, second)
                } else {
                    // At most 8 * 2 * 15 * 127 in 16 bits: exact.
                    let products =
                        _mm256_add_epi16(_mm256_maddubs_epi16(low, first), _mm256_maddubs_epi16(high, second));
                    _mm256_add_epi16(dots[row], products)
                };
            }
        }
        if !VNNI {
            for row in 0..R {
                dots[row] = _mm256_add_epi32(start[row], _mm256_madd_epi16(dots[row], _mm256_set1_epi16(1)));
            }
        }
        dots
    }
}

/// [`nibble_dots`] of one row. High nibbles stay where they are and count sixteen times, which is exact to undo: less to do, and
/// two sums that need not wait for each other.
///
/// # Safety
/// The processor must have AVX512-VNNI and AVX512-VL.
#[inline(always)]
unsafe fn row_of_nibbles(nibbles: &Nibbles, quads: &[Quad; QUADS], start: __m256i) -> __m256i {
    // SAFETY: the caller has promised the features, and this is inlined where the compiler knows of them.
    unsafe {
        let (low, high) = (_mm256_set1_epi8(15), _mm256_set1_epi8(0xF0_u8 as i8));
        let (mut dots, mut sixteenfold) = (start, _mm256_setzero_si256());
        for pair in 0..QUADS / 2 {
            let both = load(&nibbles[pair]);
            dots = add_bytes(dots, _mm256_and_si256(both, low), everywhere(&quads[2 * pair]));
            sixteenfold = add_bytes(sixteenfold, _mm256_and_si256(both, high), everywhere(&quads[2 * pair + 1]));
        }
        _mm256_add_epi32(dots, _mm256_srai_epi32::<4>(sixteenfold))
    }
}

/// What is added to the values of a table, so that none is negative.
const TABLE_BIAS: i8 = 12;

/// The products of one cell of nibbles of eight outputs, each of which stands for a whole number of `table` within
/// [`TABLE_BIAS`] of 0, with each row's.
///
/// # Safety
/// For `VNNI` the processor must have AVX512-VNNI and AVX512-VL.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
pub(super) unsafe fn table_dots<const VNNI: bool, const CELLS: usize, const R: usize>(
    table: &[i8; 16],
    nibbles: &Nibbles,
    x: &[&[Cell; CELLS]; R],
    cell: usize,
) -> [__m256i; R] {
    // SAFETY: the caller has promised the features, and this is inlined where the compiler knows of them.
    unsafe {
        let mask = _mm256_set1_epi8(15);
        // SAFETY: a register of 16 bytes holds any 16 bytes.
        let table = std::mem::transmute::<[i8; 16], __m128i>(*table);
        let table = _mm256_add_epi8(_mm256_broadcastsi128_si256(table), _mm256_set1_epi8(TABLE_BIAS));
        let mut dots = multiples(x, cell, -f32::from(TABLE_BIAS));
        for half in 0..2 {
            // At most 4 * 2 * 24 * 127 in 16 bits: exact.
            let mut products = zeros::<R>();
            for pair in half * QUADS / 4..(half + 1) * QUADS / 4 {
                let both = load(&nibbles[pair]);
                let low = _mm256_shuffle_epi8(table, _mm256_and_si256(both, mask));
                let high = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16::<4>(both), mask));
                for row in 0..R {
                    let quads = &x[row][cell].quads;
                    let (first, second) = (everywhere(&quads[2 * pair]), everywhere(&quads[2 * pair + 1]));
                    if VNNI {
                        dots[row] = add_bytes(add_bytes(dots[row], low, first), high, second);
                    } else {
                        let both =
                            _mm256_add_epi16(_mm256_maddubs_epi16(low, first), _mm256_maddubs_epi16(high, second));
                        products[row] = _mm256_add_epi16(products[row], both);
                    }
                }
            }
            if !VNNI {
                for row in 0..R {
                    dots[row] = _mm256_add_epi32(dots[row], _mm256_madd_epi16(products[row], _mm256_set1_epi16(1)));
                }
            }
        }
        dots
    }
}

/// `start` and the products of one cell of five-bit elements of eight outputs with each row's.
///
/// # Safety
/// For `VNNI` the processor must have AVX512-VNNI and AVX512-VL.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
pub(super) unsafe fn five_dots<const VNNI: bool, const CELLS: usize, const R: usize>(
    fives: &Fives,
    x: &[&[Cell; CELLS]; R],
    cell: usize,
    start: [__m256i; R],
) -> [__m256i; R] {
    // SAFETY: the caller has promised the features, and this is inlined where the compiler knows of them.
    unsafe {
        let (low_mask, high_mask) = (_mm256_set1_epi8(15), _mm256_set1_epi8(16));
        let bits = load(&fives.high);
        let mut dots = start;
        for half in 0..2 {
            // At most 4 * 2 * 31 * 127 in 16 bits: exact.
            let mut products = zeros::<R>();
            for quad in half * QUADS / 2..(half + 1) * QUADS / 2 {
                let low = load(&fives.nibbles[quad / 2]);
                let low = if quad % 2 == 0 { low } else { _mm256_srli_epi16::<4>(low) };
                // The bit of this quad where a fifth one belongs.
                let high = match quad {
                    0 => _mm256_slli_epi16::<4>(bits),
                    1 => _mm256_slli_epi16::<3>(bits),
                    2 => _mm256_slli_epi16::<2>(bits),
                    3 => _mm256_slli_epi16::<1>(bits),
                    4 => bits,
                    5 => _mm256_srli_epi16::<1>(bits),
                    6 => _mm256_srli_epi16::<2>(bits),
                    _ => _mm256_srli_epi16::<3>(bits),
                };
                let weights = _mm256_or_si256(_mm256_and_si256(low, low_mask), _mm256_and_si256(high, high_mask));
                for row in 0..R {
                    let x = everywhere(&x[row][cell].quads[quad]);
                    if VNNI {
                        dots[row] = add_bytes(dots[row], weights, x);
                    } else {
                        products[row] = _mm256_add_epi16(products[row], _mm256_maddubs_epi16(weights, x));
                    }
                }
            }
            if !VNNI {
                for row in 0..R {
                    dots[row] = _mm256_add_epi32(dots[row], _mm256_madd_epi16(products[row], _mm256_set1_epi16(1)));
                }
            }
        }
        dots
    }
}

/// Adds `x.scale * (scales * dots + minima * x.sum)` to each row's `sums`.
#[allow(clippy::needless_range_loop)]
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn add_above<const CELLS: usize, const R: usize>(
    (scales, minima): (__m256, __m256),
    dots: &[__m256i; R],
    x: &[&[Cell; CELLS]; R],
    cell: usize,
    sums: &mut [__m256; R],
) {
    for row in 0..R {
        let minimum = _mm256_mul_ps(minima, _mm256_set1_ps(x[row][cell].sum));
        let value = _mm256_fmadd_ps(scales, _mm256_cvtepi32_ps(dots[row]), minimum);
        sums[row] = _mm256_fmadd_ps(_mm256_set1_ps(x[row][cell].scale), value, sums[row]);
    }
}

/// Adds `scales * x.scale * dots` to each row's `sums`.
#[allow(clippy::needless_range_loop)]
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn add_dots<const CELLS: usize, const R: usize>(
    scales: __m256,
    dots: &[__m256i; R],
    x: &[&[Cell; CELLS]; R],
    cell: usize,
    sums: &mut [__m256; R],
) {
    for row in 0..R {
        let scales = _mm256_mul_ps(scales, _mm256_set1_ps(x[row][cell].scale));
        sums[row] = _mm256_fmadd_ps(scales, _mm256_cvtepi32_ps(dots[row]), sums[row]);
    }
}

/// Eight unsigned bytes as floats.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn bytes_to_floats(bytes: u64) -> __m256 {
    _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(bytes as i64)))
}

/// Each signed byte twice in its lane, as 16 bits.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn pair_factors(factors: &[i8; LANES]) -> __m256i {
    let lanes = _mm256_cvtepi8_epi32(_mm_cvtsi64_si128(i64::from_le_bytes(bytemuck::cast(*factors))));
    let low = _mm256_and_si256(lanes, _mm256_set1_epi32(0xFFFF));
    _mm256_or_si256(low, _mm256_slli_epi32::<16>(lanes))
}
