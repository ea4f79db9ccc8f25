//! The threads a model computes on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

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
            .start_handler(|_| begin_computing())
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

/// The threads of the network, which have little to do, should not wait for those that compute.
fn begin_computing() {
    // Some sandboxes know no such call; everything works without, later at times.
    #[cfg(all(target_os = "linux", not(miri)))]
    let _ = crate::kernels::turns::ask_for_long_turns();
}

/// How long a thread of the pool looks for work in vain before it sleeps, although more of a pass is to come: longer than what one
/// thread does alone in a block takes, and so short that nobody misses the core.
const PATIENCE: Duration = Duration::from_micros(200);

/// Runs `work`, many small pieces of which are shared among threads one after the other, on this thread of a pool, and keeps the
/// others awake meanwhile: a thread that sleeps takes longer to wake than most pieces take. Outside a pool nothing is shared.
pub(crate) fn awake<T>(work: impl FnOnce() -> T) -> T {
    let Some(caller) = rayon::current_thread_index().filter(|_| rayon::current_num_threads() > 1) else {
        return work();
    };
    let over = AtomicBool::new(false);
    rayon::in_place_scope(|scope| {
        for _ in 1..rayon::current_num_threads() {
            let over = &over;
            // The caller, which may come by this while it waits for others, has work to do.
            scope.spawn(move |_| {
                if rayon::current_thread_index() != Some(caller) {
                    look_for_work(over)
                }
            });
        }
        // Also if the work panics.
        let _over = Raised(&over);
        work()
    })
}

/// Does what is to be done until `over` is raised, or there has been nothing for too long. So nobody who waits for this thread, not
/// knowing that it only looks around, waits for ever.
fn look_for_work(over: &AtomicBool) {
    let mut idle_since = None;
    while !over.load(Ordering::Relaxed) {
        if rayon::yield_now() == Some(rayon::Yield::Executed) {
            idle_since = None;
            continue;
        }
        if idle_since.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
            return;
        }
        std::hint::spin_loop();
    }
}

/// Raises a flag when it is dropped.
struct Raised<'a>(&'a AtomicBool);

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use rayon::prelude::*;

    use super::*;

    /// More than there are threads, so that some are always left over.
    const PIECES: usize = 100;

    #[test]
    fn threads_that_are_kept_awake_do_what_is_shared() {
        for threads in [1, 2, 5] {
            let pool = ComputePool::new(threads).unwrap();
            let sums: Vec<usize> = pool
                .run(|| awake(|| (0..PIECES).map(|piece| (0..piece).into_par_iter().with_max_len(1).sum()).collect()));
            assert_eq!(sums, (0..PIECES).map(|piece| (0..piece).sum()).collect::<Vec<usize>>(), "{threads} threads");
        }
        assert_eq!(awake(|| 7), 7, "outside a pool");
    }

    #[test]
    fn a_panic_ends_it() {
        let pool = ComputePool::new(3).unwrap();
        let panicked = pool.run(|| std::panic::catch_unwind(|| awake(|| panic!("as it should"))));
        assert!(panicked.is_err());
        assert_eq!(pool.run(|| awake(|| (0..PIECES).into_par_iter().count())), PIECES);
    }

    #[test]
    fn passes_beside_and_inside_one_another_come_to_an_end() {
        let pool = ComputePool::new(3).unwrap();
        let inner = |piece: usize| awake(|| (0..piece).into_par_iter().with_max_len(1).map(|i| i * i).sum::<usize>());
        let sum: usize = pool.run(|| awake(|| (0..PIECES).into_par_iter().with_max_len(1).map(inner).sum()));
        assert_eq!(sum, (0..PIECES).map(|piece| (0..piece).map(|i| i * i).sum::<usize>()).sum::<usize>());
    }
}
