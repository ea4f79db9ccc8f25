//! A hub on this machine: a server on loopback that speaks the HTTP API of the Hugging Face hub, serves what directories
//! hold, counts what it sends, and misbehaves when told to.
//!
//! Large files lie on a second server, to which the first one points, as on the real hub.

mod answer;
mod contents;
mod fault;
mod request;

use std::io::{self, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use contents::commit;
pub use fault::{Fault, Rule};
pub use request::Asked;

use contents::Repositories;

/// How long a test waits for the hub to see something.
const DEADLINE: Duration = Duration::from_secs(60);

/// Which of the two servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The API and small files.
    Hub,
    /// Large files.
    Files,
}

/// A hub on this machine, gone with its value.
pub struct HubServer {
    state: Arc<State>,
    hub: SocketAddr,
    files: SocketAddr,
}

/// What all connections share.
#[derive(Default)]
struct State {
    repositories: Mutex<Repositories>,
    rules: Mutex<Vec<Rule>>,
    asked: Mutex<Vec<Asked>>,
    /// Bytes of bodies sent.
    sent: AtomicU64,
    /// Bytes a second that all connections together may send; 0 if there is no limit.
    rate: AtomicU64,
    /// When the link is free again.
    link: Mutex<Option<Instant>>,
    /// How many answers are held, and whether they may go on.
    held: Mutex<(usize, bool)>,
    changed: Condvar,
    closed: AtomicBool,
    files_address: Mutex<Option<SocketAddr>>,
}

impl State {
    fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HubServer {
    /// Starts both servers.
    pub fn start() -> Self {
        let state = Arc::new(State::default());
        let listen = || TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
        let (hub, files) = (listen(), listen());
        let addresses = (hub.local_addr().expect("an address"), files.local_addr().expect("an address"));
        *State::lock(&state.files_address) = Some(addresses.1);
        for (listener, role) in [(hub, Role::Hub), (files, Role::Files)] {
            let state = state.clone();
            std::thread::spawn(move || accept(&listener, role, &state));
        }
        Self { state, hub: addresses.0, files: addresses.1 }
    }

    /// For `HF_ENDPOINT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.hub)
    }

    /// Points `command` to this hub, and to a cache in `home`.
    pub fn point(&self, command: &mut Command, home: &Path) {
        for name in ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN", "HF_HUB_OFFLINE"] {
            command.env_remove(name);
        }
        command.env("HF_ENDPOINT", self.endpoint()).env("HF_HOME", home);
    }

    /// Serves the files below `directory` as `repository`; what was served under this name before is then an older commit.
    pub fn add(&self, repository: &str, directory: &Path) {
        State::lock(&self.state.repositories).add(repository, directory);
    }

    /// Misbehaves as `rule` says, before rules that were given earlier.
    pub fn rule(&self, rule: Rule) {
        State::lock(&self.state.rules).insert(0, rule);
    }

    /// Behaves again.
    pub fn forgive(&self) {
        State::lock(&self.state.rules).clear();
    }

    /// Bytes of bodies sent so far, by both servers.
    pub fn sent(&self) -> u64 {
        self.state.sent.load(Ordering::SeqCst)
    }

    /// What was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        State::lock(&self.state.asked).clone()
    }

    /// Sends no more than `rate` bytes a second.
    pub fn throttle(&self, rate: u64) {
        self.state.rate.store(rate, Ordering::SeqCst);
    }

    /// Waits until `count` answers are held by [`Fault::Hold`].
    ///
    /// # Panics
    /// If that does not come about.
    pub fn wait_until_held(&self, count: usize) {
        let held = State::lock(&self.state.held);
        let waited = self.state.changed.wait_timeout_while(held, DEADLINE, |(held, _)| *held < count);
        let (held, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        assert!(!timeout.timed_out(), "{} answers are held, not {count}", held.0);
    }

    /// Lets answers that are held go on.
    pub fn release(&self) {
        State::lock(&self.state.held).1 = true;
        self.state.changed.notify_all();
    }

    /// Answers nobody any more.
    pub fn close(&self) {
        self.state.closed.store(true, Ordering::SeqCst);
        // Whoever waits for a connection gets one, and sees.
        for address in [self.hub, self.files] {
            let _ = TcpStream::connect(address);
        }
        self.release();
    }
}

impl Drop for HubServer {
    fn drop(&mut self) {
        self.close();
    }
}

fn accept(listener: &TcpListener, role: Role, state: &Arc<State>) {
    for stream in listener.incoming().flatten() {
        if state.closed.load(Ordering::SeqCst) {
            return;
        }
        let state = state.clone();
        std::thread::spawn(move || {
            // A client that hangs up is no fault of ours.
            let _ = converse(&stream, role, &state);
        });
    }
}

/// Answers one request after the other, until one of both hangs up.
fn converse(stream: &TcpStream, role: Role, state: &State) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    while let Some(asked) = request::read(&mut reader, role)? {
        if state.closed.load(Ordering::SeqCst) {
            return Ok(());
        }
        State::lock(&state.asked).push(asked.clone());
        if !answer::answer(stream, &asked, state)? {
            return Ok(());
        }
    }
    Ok(())
}
