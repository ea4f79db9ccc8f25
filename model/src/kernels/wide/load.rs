//! Eight elements beside eight others as f32, exactly: the halves come together before they are widened, since that is one
//! instruction then. Transmuted arrays instead of load intrinsics, as in [`super::super::avx2::load`].

use std::arch::x86_64::*;

use half::{bf16, f16};

use crate::kernels::LANES;

#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx2,fma,f16c")]
pub(in crate::kernels) fn f32x16(low: &[f32; LANES], high: &[f32; LANES]) -> __m512 {
    // SAFETY: eight floats are what a register of 32 bytes holds.
    let (low, high) = unsafe {
        (std::mem::transmute::<[f32; LANES], __m256>(*low), std::mem::transmute::<[f32; LANES], __m256>(*high))
    };
    _mm512_insertf32x8::<1>(_mm512_castps256_ps512(low), high)
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx2,fma,f16c")]
pub(in crate::kernels) fn f16x16(low: &[f16; LANES], high: &[f16; LANES]) -> __m512 {
    _mm512_cvtph_ps(halves(low, high))
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx2,fma,f16c")]
pub(in crate::kernels) fn bf16x16(low: &[bf16; LANES], high: &[bf16; LANES]) -> __m512 {
    let bits = _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves(low, high)));
    _mm512_castsi512_ps(bits)
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx2,fma,f16c")]
pub(in crate::kernels) fn i8x16(low: &[i8; LANES], high: &[i8; LANES]) -> __m512 {
    let bits = _mm_set_epi64x(bytemuck::cast::<[i8; LANES], i64>(*high), bytemuck::cast::<[i8; LANES], i64>(*low));
    _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bits))
}

/// The same eight floats in both halves.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx2,fma,f16c")]
pub(in crate::kernels) fn f32x8_twice(values: &[f32; LANES]) -> __m512 {
    // SAFETY: eight floats are what a register of 32 bytes holds.
    _mm512_broadcast_f32x8(unsafe { std::mem::transmute::<[f32; LANES], __m256>(*values) })
}

/// Elements of two bytes, side by side.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx2,fma,f16c")]
fn halves<T: bytemuck::Pod>(low: &[T; LANES], high: &[T; LANES]) -> __m256i {
    const { assert!(size_of::<T>() == 2) };
    // SAFETY: a register of 16 bytes holds any 16 bytes, which eight elements of two are.
    let (low, high) = unsafe {
        (std::mem::transmute_copy::<[T; LANES], __m128i>(low), std::mem::transmute_copy::<[T; LANES], __m128i>(high))
    };
    _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(low), high)
}
