//! The types weights, keys and values are held in.

use half::{bf16, f16};

use super::LANES;

/// A number that widens to f32 without loss, one at a time, eight or sixteen at once.
pub(crate) trait Stored: bytemuck::Pod + Default + Send + Sync {
    /// The value as f32; exact.
    fn widen(self) -> f32;

    /// Eight values as f32.
    ///
    /// # Safety
    /// The processor must have AVX2, FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code)]
    unsafe fn load8(values: &[Self; LANES]) -> std::arch::x86_64::__m256;

    /// Eight values as f32 beside eight others.
    ///
    /// # Safety
    /// The processor must have AVX-512F, AVX-512DQ, AVX2, FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code)]
    unsafe fn load16(low: &[Self; LANES], high: &[Self; LANES]) -> std::arch::x86_64::__m512;
}

/// A float that weights, keys and values are held in.
pub(crate) trait Element: Stored + candle_core::WithDType {
    /// The nearest value of this type, ties to even.
    fn round(value: f32) -> Self;
}

macro_rules! stored {
    ($type:ty, $widen:expr, $load8:path, $load16:path) => {
        impl Stored for $type {
            #[inline(always)]
            fn widen(self) -> f32 {
                $widen(self)
            }

            #[cfg(target_arch = "x86_64")]
            #[allow(unsafe_code)]
            #[inline]
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn load8(values: &[Self; LANES]) -> std::arch::x86_64::__m256 {
                $load8(values)
            }

            #[cfg(target_arch = "x86_64")]
            #[allow(unsafe_code)]
            #[inline]
            #[target_feature(enable = "avx512f,avx512dq,avx2,fma,f16c")]
            unsafe fn load16(low: &[Self; LANES], high: &[Self; LANES]) -> std::arch::x86_64::__m512 {
                $load16(low, high)
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
use super::{avx2::load, wide::load as wide};

/// Miri knows no instruction for this, which half would take.
#[inline(always)]
fn to_f16(value: f32) -> f16 {
    if cfg!(miri) { f16::from_f32_const(value) } else { f16::from_f32(value) }
}

stored!(f32, std::convert::identity, load::f32x8, wide::f32x16);
stored!(f16, f16::to_f32, load::f16x8, wide::f16x16);
stored!(bf16, bf16::to_f32, load::bf16x8, wide::bf16x16);
stored!(i8, f32::from, load::i8x8, wide::i8x16);

macro_rules! element {
    ($type:ty, $round:expr) => {
        impl Element for $type {
            #[inline(always)]
            fn round(value: f32) -> Self {
                $round(value)
            }
        }
    };
}

element!(f32, std::convert::identity);
element!(f16, to_f16);
element!(bf16, bf16::from_f32);
