//! What the machine itself can do: decoding cannot be faster than weights are read, prefill not faster than products are added.

use std::hint::black_box;
use std::time::Instant;

use swarm_model::multiply_adds;

/// Larger than any processor's caches.
const BYTES: usize = 512 << 20;
/// Words added independently of each other, so that the additions wait for memory only.
const LANES: usize = 32;
/// Rounds of multiply-adds of each thread: some 30 ms.
const ROUNDS: usize = 4_000_000;

/// Memory to read, and threads to read it with.
pub(crate) struct Limits {
    words: Vec<u64>,
    threads: usize,
}

impl Limits {
    pub(crate) fn new(threads: usize) -> Self {
        // Written, so that every page has memory of its own.
        let words = (0..BYTES as u64 / 8).collect();
        Self { words, threads }
    }

    /// Reads the memory once; 10⁹ bytes per second.
    pub(crate) fn read_rate(&self) -> f64 {
        let share = self.words.len().div_ceil(self.threads);
        let start = Instant::now();
        std::thread::scope(|scope| {
            self.words.chunks(share).for_each(|part| {
                scope.spawn(move || black_box(sum(part)));
            });
        });
        BYTES as f64 / 1e9 / start.elapsed().as_secs_f64()
    }

    /// Multiplies and adds on all threads; 10⁹ floating point operations per second.
    pub(crate) fn multiply_add_rate(&self) -> f64 {
        let start = Instant::now();
        let operations: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.threads).map(|_| scope.spawn(|| multiply_adds(black_box(ROUNDS)))).collect();
            threads.into_iter().filter_map(|thread| thread.join().ok()).sum()
        });
        operations as f64 / 1e9 / start.elapsed().as_secs_f64()
    }
}

fn sum(words: &[u64]) -> u64 {
    let mut lanes = [0u64; LANES];
    for chunk in words.chunks_exact(LANES) {
        lanes.iter_mut().zip(chunk).for_each(|(lane, word)| *lane = lane.wrapping_add(*word));
    }
    lanes.iter().fold(0, |sum, lane| sum.wrapping_add(*lane))
}
