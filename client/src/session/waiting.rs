//! What waits in a queue, without waiting for it.

use futures::FutureExt;
use tokio::sync::mpsc;

/// What a queue's next is, if it is there.
///
/// Not `try_recv`: if a sender is just about to put something in, that parks the thread until it is done. On a thread that itself
/// drives the future which asks (`Runtime::block_on`), it takes the very token by which the thread is told to poll again: whoever
/// woke it meanwhile is forgotten, and everything waits for ever.
pub(super) fn take_waiting<T>(queue: &mut mpsc::Receiver<T>) -> Option<T> {
    queue.recv().now_or_never().flatten()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::stream::{self, StreamExt};
    use tokio::runtime::Builder;

    use super::*;

    /// Queues that one task reads, and those who write to each.
    const QUEUES: usize = 16;
    const SENDERS: u32 = 6;
    /// What is sent to each queue: with `try_recv` a few hundred were enough to stop everything.
    const MESSAGES: u32 = 3_000;
    /// Far longer than it takes.
    const STUCK: Duration = Duration::from_secs(120);

    /// Reads until nobody is left who sends, as a session does: what is there, then what comes.
    async fn read_all() -> u32 {
        let (sender, mut queue) = mpsc::channel(256);
        for _ in 0..SENDERS {
            let sender = sender.clone();
            tokio::spawn(async move {
                for _ in 0..MESSAGES / SENDERS {
                    sender.send(()).await.unwrap();
                    tokio::task::yield_now().await;
                }
            });
        }
        drop(sender);
        let mut read = 0;
        loop {
            while take_waiting(&mut queue).is_some() {
                read += 1;
            }
            match queue.recv().await {
                Some(()) => read += 1,
                None => return read,
            }
        }
    }

    #[test]
    fn a_thread_that_drives_many_sessions_is_always_woken() {
        let (done, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
            let reading = stream::iter((0..QUEUES).map(|_| read_all())).buffer_unordered(QUEUES);
            done.send(runtime.block_on(reading.collect::<Vec<_>>())).unwrap();
        });
        assert_eq!(told.recv_timeout(STUCK).expect("it waits for ever"), [MESSAGES; QUEUES]);
    }
}
