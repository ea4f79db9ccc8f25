//! Being told to stop: Ctrl-C and SIGTERM.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// The exit code of a process that was told twice to stop.
const FORCED: i32 = 1;

/// Resolves when the process is first told to stop; the second time ends it at once.
#[derive(Debug, Clone)]
pub(crate) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Begins to listen for signals.
    ///
    /// # Errors
    /// If the system does not let it.
    pub(crate) fn on_signals() -> std::io::Result<Self> {
        let (sender, stop) = watch::channel(false);
        let mut signals = Signals::new()?;
        tokio::spawn(async move {
            signals.next().await;
            sender.send_replace(true);
            signals.next().await;
            std::process::exit(FORCED);
        });
        Ok(Self(stop))
    }

    /// Resolves when the process is told to stop.
    pub(crate) async fn wait(mut self) {
        if self.0.wait_for(|stop| *stop).await.is_err() {
            // The runtime is ending anyway.
            std::future::pending().await
        }
    }
}

/// Runs `work` until it ends or the user interrupts it; what it holds is dropped then, which ends its sessions.
///
/// # Errors
/// The work's own, or that it was interrupted.
pub(crate) async fn or_interrupted(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    or_interrupted_unless(&Cell::new(false), work).await
}

/// The same, but to be interrupted while `at_rest` is a good end: nothing is left unfinished.
///
/// # Errors
/// The work's own, or that it was interrupted.
pub(crate) async fn or_interrupted_unless(
    at_rest: &Cell<bool>,
    work: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let stop = Stop::on_signals()?;
    tokio::select! {
        result = work => result,
        () = stop.wait() => if at_rest.get() { Ok(()) } else { Err(anyhow::anyhow!("interrupted")) },
    }
}

/// Interruptions of a conversation: each ends what is under way there, not the process.
#[derive(Debug)]
pub(crate) struct Interruptions {
    count: watch::Receiver<u64>,
    /// How many were noticed.
    noticed: Arc<AtomicU64>,
}

/// Who interrupts again after so long, and was not noticed, ends the process.
const DEAF: Duration = Duration::from_secs(1);

impl Interruptions {
    /// Begins to listen for Ctrl-C, and for SIGTERM, which ends the process.
    ///
    /// # Errors
    /// If the system does not let it.
    pub(crate) fn listen() -> std::io::Result<(Self, Stop)> {
        let (counter, count) = watch::channel(0);
        let noticed = Arc::new(AtomicU64::new(0));
        let (seen, mut last) = (noticed.clone(), Instant::now());
        let (sender, stop) = watch::channel(false);
        let mut signals = Signals::new()?;
        tokio::spawn(async move {
            while signals.next().await == Signal::Interrupt {
                if *counter.borrow() > seen.load(Ordering::Relaxed) && last.elapsed() > DEAF {
                    std::process::exit(FORCED);
                }
                last = Instant::now();
                counter.send_modify(|count| *count += 1);
            }
            sender.send_replace(true);
            signals.next().await;
            std::process::exit(FORCED);
        });
        Ok((Self { count, noticed }, Stop(stop)))
    }

    /// Resolves with the next one.
    pub(crate) async fn next(&mut self) {
        if self.count.changed().await.is_err() {
            // The process is told to stop.
            std::future::pending().await
        }
        self.forget();
    }

    /// Those until now concern nothing that begins now.
    pub(crate) fn forget(&mut self) {
        let count = *self.count.borrow_and_update();
        self.noticed.store(count, Ordering::Relaxed);
    }
}

/// Ends the process when its stdin closes, which happens when the process that started it ends, however it ends.
pub(crate) fn with_stdin() {
    std::thread::spawn(|| {
        // Whatever comes is not for us; what matters is the end.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(FORCED);
    });
}

/// What the process is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signal {
    Interrupt,
    Terminate,
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.terminate.recv() => Signal::Terminate,
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> Signal {
        // Without it there is nothing to wait for.
        let _ = tokio::signal::ctrl_c().await;
        Signal::Interrupt
    }
}
