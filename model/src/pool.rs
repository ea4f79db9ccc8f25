//! The threads a model computes on.

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::error::ModelError;

/// A pool of threads of its own. Tensor operations split their work with rayon: inside [`ComputePool::run`] they stay
/// on these threads, so their number is bounded, and a small operation does not leave the thread it started on.
#[derive(Debug)]
pub struct ComputePool {
    pool: ThreadPool,
}

impl ComputePool {
    /// Starts `threads` threads (0: one for each core).
    ///
    /// # Errors
    /// [`ModelError::Pool`] if the system gives no threads.
    pub fn new(threads: usize) -> Result<Self, ModelError> {
        let pool = ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("compute-{index}"))
            .build()
            .map_err(|error| ModelError::Pool(error.to_string()))?;
        Ok(Self { pool })
    }

    /// Runs `work` on the pool and waits for it.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.pool.install(work)
    }

    /// The number of threads.
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }
}
