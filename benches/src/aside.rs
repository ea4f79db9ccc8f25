//! Measurements that take a thread of their own.

use anyhow::Result;
use tokio::sync::oneshot;

/// Does `work` on a thread that nobody waits for when this process is told to stop.
///
/// # Errors
/// Those of `work`; or if it panics.
pub(crate) async fn aside<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let (done, result) = oneshot::channel();
    std::thread::spawn(move || {
        // Then nobody is there to be told.
        let _ = done.send(work());
    });
    result.await?
}
