//! Keys, read by a thread: reading a terminal blocks.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ratatui::crossterm::event::{self, Event};
use tokio::sync::mpsc;

/// Keys that wait; a person presses no more between two looks at them.
const WAITING: usize = 64;

/// How soon the thread notices that nobody listens any more.
const NOTICE: Duration = Duration::from_millis(100);

/// What comes from the terminal.
pub(super) struct Keys {
    events: mpsc::Receiver<Event>,
    over: Arc<AtomicBool>,
}

impl Keys {
    /// Begins to read.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub(super) fn listen() -> io::Result<Self> {
        let (sender, events) = mpsc::channel(WAITING);
        let over = Arc::new(AtomicBool::new(false));
        let told = over.clone();
        std::thread::Builder::new().name("keys".to_string()).spawn(move || {
            while !told.load(Ordering::Relaxed) {
                let read = match event::poll(NOTICE) {
                    Ok(false) => continue,
                    Ok(true) => event::read(),
                    Err(error) => Err(error),
                };
                // A terminal that cannot be read is gone.
                let Ok(event) = read else {
                    return;
                };
                if sender.blocking_send(event).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { events, over })
    }

    /// The next one; `None` when the terminal is gone.
    pub(super) async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}
