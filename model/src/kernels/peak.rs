//! How many multiply-adds this processor could do: what benchmarks hold the kernels against. No kernel uses it.

use std::hint::black_box;

/// Sums that do not wait for each other: enough for the latency of a multiply-add times two of them a cycle.
const CHAINS: usize = 12;
/// f32 lanes of a register of 32 bytes.
const AVX2_LANES: usize = 8;
/// f32 lanes of a register of 64 bytes.
#[cfg(target_arch = "x86_64")]
const AVX512_LANES: usize = 16;

/// Does nothing but f32 multiply-adds in the widest registers there are, on this thread; returns how many floating point
/// operations that were (a multiply-add is two).
pub fn multiply_adds(rounds: usize) -> usize {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has the feature.
            #[allow(unsafe_code)]
            return unsafe { in_512_bits(rounds) };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the processor has the features.
            #[allow(unsafe_code)]
            return unsafe { in_256_bits(rounds) };
        }
    }
    chains::<AVX2_LANES>(rounds)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn in_512_bits(rounds: usize) -> usize {
    chains::<AVX512_LANES>(rounds)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn in_256_bits(rounds: usize) -> usize {
    chains::<AVX2_LANES>(rounds)
}

#[inline(always)]
fn chains<const LANES: usize>(rounds: usize) -> usize {
    let mut sums = [[1.0_f32; LANES]; CHAINS];
    let (factor, term) = (black_box(0.999_f32), black_box(0.001_f32));
    for _ in 0..rounds {
        for sums in &mut sums {
            for sum in sums {
                *sum = sum.mul_add(factor, term);
            }
        }
    }
    black_box(sums);
    rounds * CHAINS * LANES * 2
}
