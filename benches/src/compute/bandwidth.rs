//! How fast this machine reads memory: decoding cannot be faster than its weights are read.

use std::hint::black_box;
use std::time::Instant;

/// Larger than any processor's caches.
const BYTES: usize = 512 << 20;

/// Words added independently of each other, so that the additions wait for memory only.
const LANES: usize = 32;

/// Memory to read.
pub(crate) struct Bandwidth {
    words: Vec<u64>,
    threads: usize,
}

impl Bandwidth {
    pub(crate) fn new(threads: usize) -> Self {
        // Written, so that every page has memory of its own.
        let words = (0..BYTES as u64 / 8).collect();
        Self { words, threads }
    }

    /// Reads the memory once; 10⁹ bytes per second.
    pub(crate) fn measure(&self) -> f64 {
        let share = self.words.len() / self.threads;
        let start = Instant::now();
        std::thread::scope(|scope| {
            self.words.chunks(share).for_each(|part| {
                scope.spawn(move || black_box(sum(part)));
            });
        });
        BYTES as f64 / 1e9 / start.elapsed().as_secs_f64()
    }
}

fn sum(words: &[u64]) -> u64 {
    let mut lanes = [0u64; LANES];
    for chunk in words.chunks_exact(LANES) {
        lanes.iter_mut().zip(chunk).for_each(|(lane, word)| *lane = lane.wrapping_add(*word));
    }
    lanes.iter().fold(0, |sum, lane| sum.wrapping_add(*lane))
}
