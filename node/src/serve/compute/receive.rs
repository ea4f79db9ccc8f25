//! Receiving with a deadline, on a thread that no runtime drives.

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Instant;

use tokio::sync::mpsc::Receiver;

/// Wakes a thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The next message, if one comes before `deadline` and the channel is open.
pub(super) fn receive_until<T>(receiver: &mut Receiver<T>, deadline: Instant) -> Option<T> {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(message) = receiver.poll_recv(&mut context) {
            return message;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        std::thread::park_timeout(left);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::mpsc;

    use super::*;

    #[test]
    fn a_message_ends_the_wait_and_so_does_the_deadline() {
        let (sender, mut receiver) = mpsc::channel(1);
        let far = Instant::now() + Duration::from_secs(3600);
        let thread = std::thread::spawn(move || (receive_until(&mut receiver, far), receiver));
        sender.blocking_send(7).unwrap();
        let (message, mut receiver) = thread.join().unwrap();
        assert_eq!(message, Some(7));
        assert_eq!(receive_until(&mut receiver, Instant::now() + Duration::from_millis(1)), None);
        drop(sender);
        assert_eq!(receive_until(&mut receiver, far), None);
    }
}
