//! How many multiply-adds this processor could do, and how fast it could read: what benchmarks hold the kernels against. No
//! kernel uses it.

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

/// Words that are added independently of each other, so that additions wait for memory only.
const READ_LANES: usize = 32;
/// How far ahead of use memory is asked for, in bytes: from 1 KiB on it made no difference, without it a tenth (Intel Xeon, 2026).
const READ_AHEAD: usize = 2048;

/// Reads all words, on this thread, and does nothing with them but to add them up.
pub fn read(words: &[u64]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has the feature.
        #[allow(unsafe_code)]
        return unsafe { wide::read(words) };
    }
    sum(words, |_| ())
}

/// The sum of all words; `ask` is told every line of the cache that is about to be read.
#[inline(always)]
fn sum(words: &[u64], ask: impl Fn(*const u64)) -> u64 {
    let mut lanes = [0u64; READ_LANES];
    let (whole, rest) = words.as_chunks::<READ_LANES>();
    for chunk in whole {
        for line in (0..READ_LANES).step_by(8) {
            ask(chunk[line..].as_ptr());
        }
        for lane in 0..READ_LANES {
            lanes[lane] = lanes[lane].wrapping_add(chunk[lane]);
        }
    }
    lanes.iter().chain(rest).fold(0, |sum, word| sum.wrapping_add(*word))
}

/// Numbers that stay what they are, neither large nor denormal.
const FACTOR: f32 = 0.999;
const TERM: f32 = 0.001;

#[cfg(target_arch = "x86_64")]
mod wide {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    use super::{CHAINS, FACTOR, READ_AHEAD, TERM, sum};

    #[target_feature(enable = "avx2")]
    pub(super) fn read(words: &[u64]) -> u64 {
        sum(words, |line| {
            // SAFETY: a prefetch reads nothing and may be given any address. (Newer compilers know that.)
            #[allow(unused_unsafe, unsafe_code)]
            unsafe {
                _mm_prefetch::<_MM_HINT_T0>(line.wrapping_byte_add(READ_AHEAD).cast());
            }
        })
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_read() {
        for count in [0, 1, 31, 32, 100, 1000] {
            let words: Vec<u64> = (0..count).map(|word| word * word + (1 << 60)).collect();
            let expected = words.iter().fold(0u64, |sum, word| sum.wrapping_add(*word));
            assert_eq!(read(&words), expected, "{count} words");
        }
    }
}
