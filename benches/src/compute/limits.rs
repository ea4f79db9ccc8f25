//! What the machine itself can do: decoding cannot be faster than weights are read, prefill not faster than products are added.

use std::hint::black_box;
use std::io;
use std::time::Instant;

use memmap2::MmapMut;
use swarm_model::{multiply_adds, read};

/// Larger than any processor's caches.
const BYTES: usize = 512 << 20;
/// Rounds of multiply-adds of each thread: some 30 ms.
const ROUNDS: usize = 4_000_000;

/// Memory to read, and threads to read it with.
pub(crate) struct Limits {
    memory: MmapMut,
    threads: usize,
}

impl Limits {
    /// # Errors
    /// If there is no memory.
    pub(crate) fn new(threads: usize) -> io::Result<Self> {
        let mut memory = MmapMut::map_anon(BYTES)?;
        // Large pages, as weights have: with small ones the processor also looks up where each of them lies.
        #[cfg(target_os = "linux")]
        // A system without them refuses; then weights have small ones too.
        let _ = memory.advise(memmap2::Advice::HugePage);
        // Written, so that every page has memory of its own.
        memory.fill(1);
        Ok(Self { memory, threads })
    }

    /// Reads the memory, as one finds it who read it just before, as everybody does who is measured beside it; 10⁹ bytes per second.
    pub(crate) fn read_rate(&self) -> f64 {
        self.read_once();
        let start = Instant::now();
        self.read_once();
        BYTES as f64 / 1e9 / start.elapsed().as_secs_f64()
    }

    fn read_once(&self) {
        let words: &[u64] = bytemuck::cast_slice(&self.memory);
        let share = words.len().div_ceil(self.threads);
        std::thread::scope(|scope| {
            words.chunks(share).for_each(|part| {
                scope.spawn(move || black_box(read(part)));
            });
        });
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
