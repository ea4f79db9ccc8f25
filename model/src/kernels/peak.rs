//! How many multiply-adds this processor could do: what benchmarks hold the kernels against. No kernel uses it.

use std::hint::black_box;

/// Sums that do not wait for each other: enough for the latency of a multiply-add times two of them a cycle.
const CHAINS: usize = 12;
/// f32 lanes of sums where the processor has no wide registers that we know.
const LANES: usize = 8;

/// Does nothing but f32 multiply-adds in the widest registers there are, on this thread; returns how many floating point
/// operations that were (a multiply-add is two).
pub fn multiply_adds(rounds: usize) -> usize {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has the feature.
            #[allow(unsafe_code)]
            return unsafe { wide::in_512_bits(rounds) };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the processor has the features.
            #[allow(unsafe_code)]
            return unsafe { wide::in_256_bits(rounds) };
        }
    }
    let mut sums = [[1.0_f32; LANES]; CHAINS];
    let (factor, term) = (black_box(FACTOR), black_box(TERM));
    for _ in 0..rounds {
        sums.as_flattened_mut().iter_mut().for_each(|sum| *sum = sum.mul_add(factor, term));
    }
    black_box(sums);
    rounds * CHAINS * LANES * 2
}

/// Numbers that stay what they are, neither large nor denormal.
const FACTOR: f32 = 0.999;
const TERM: f32 = 0.001;

#[cfg(target_arch = "x86_64")]
mod wide {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    use super::{CHAINS, FACTOR, TERM};

    #[target_feature(enable = "avx512f")]
    pub(super) fn in_512_bits(rounds: usize) -> usize {
        let (factor, term) = (_mm512_set1_ps(black_box(FACTOR)), _mm512_set1_ps(black_box(TERM)));
        let mut sums = [term; CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, factor, term);
            }
        }
        black_box(sums);
        rounds * CHAINS * 16 * 2
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn in_256_bits(rounds: usize) -> usize {
        let (factor, term) = (_mm256_set1_ps(black_box(FACTOR)), _mm256_set1_ps(black_box(TERM)));
        let mut sums = [term; CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, factor, term);
            }
        }
        black_box(sums);
        rounds * CHAINS * 8 * 2
    }
}
