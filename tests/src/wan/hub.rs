//! The process between the namespaces: takes each packet from its sender's device and writes it to its receiver's when
//! the [network](super::network) says so.

use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tun_rs::SyncDevice;

use super::WanError;
use super::link::Link;
use super::namespace::{self, Namespace};
use super::network::Network;
use super::order::{BadOrder, Order};

/// Packets taken from one device in a row: few enough that what has arrived meanwhile is not late.
const BATCH: usize = 64;

/// Bytes of orders read at once.
const READ: usize = 4096;

/// The answer to an order that was carried out, and to starting.
pub(super) const DONE: &str = "ok";

/// What a network is made of.
#[derive(Debug)]
pub struct HubConfig {
    /// Namespaces are called `{prefix}-{host}`.
    pub prefix: String,
    /// Names of the hosts.
    pub hosts: Vec<String>,
    /// The link between any two.
    pub link: Link,
    /// Seed of jitter and loss.
    pub seed: u64,
}

/// Makes the namespaces, says `ok`, and moves packets until stdin closes. Each line on stdin is an [`Order`]; it is answered
/// by `ok` or by what is wrong. The namespaces go away at the end, whatever it is.
///
/// # Errors
/// If the system does not let us.
pub fn run(config: HubConfig) -> Result<(), WanError> {
    let mut hub = Hub::open(config)?;
    say(DONE)?;
    while hub.turn()? {}
    Ok(())
}

struct Hub {
    names: Vec<String>,
    network: Network,
    rng: StdRng,
    start: Instant,
    /// Orders, the last perhaps not complete.
    input: Vec<u8>,
    /// Before the namespaces, so that it is dropped first.
    devices: Vec<SyncDevice>,
    _namespaces: Vec<Namespace>,
}

impl Hub {
    fn open(config: HubConfig) -> Result<Self, WanError> {
        let HubConfig { prefix, hosts: names, link, seed } = config;
        let addresses: Vec<Ipv4Addr> = (0..names.len()).map(namespace::address).collect();
        let named = names.iter().map(|host| Namespace::make(format!("{prefix}-{host}")));
        let namespaces = named.collect::<Result<Vec<_>, _>>()?;
        let opened = namespaces.iter().zip(&addresses).map(|(namespace, address)| namespace.open_device(*address));
        Ok(Self {
            devices: opened.collect::<Result<_, _>>()?,
            network: Network::new(addresses, link),
            rng: StdRng::seed_from_u64(seed),
            start: Instant::now(),
            input: Vec::new(),
            names,
            _namespaces: namespaces,
        })
    }

    /// Waits for a packet, an arrival or an order, and deals with all there is; `false` once stdin is closed.
    fn turn(&mut self) -> Result<bool, WanError> {
        self.deliver();
        let (ordered, sending) = self.wait()?;
        for host in sending {
            self.take(host);
        }
        if ordered { self.obey() } else { Ok(true) }
    }

    /// Waits until there is something to do; whether there are orders, and which devices have packets.
    fn wait(&self) -> Result<(bool, Vec<usize>), WanError> {
        let stdin = io::stdin();
        let fds = std::iter::once(stdin.as_fd()).chain(self.devices.iter().map(AsFd::as_fd));
        let mut fds: Vec<PollFd<'_>> = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        let wait = self.network.next_arrival().map(|arrival| arrival.saturating_sub(self.start.elapsed()));
        match poll(&mut fds, wait.map(timespec).as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(WanError::Io { what: "waiting for packets", source: error.into() }),
        }
        let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
        let ordered = ready.next().unwrap_or_default();
        Ok((ordered, ready.enumerate().filter_map(|(host, ready)| ready.then_some(host)).collect()))
    }

    fn deliver(&mut self) {
        while let Some(arrived) = self.network.arrived(self.start.elapsed()) {
            // A device that is full or gone loses packets, as networks do.
            let _ = self.devices[arrived.to].send(&arrived.packet);
        }
    }

    fn take(&mut self, host: usize) {
        for _ in 0..BATCH {
            let mut packet = vec![0; namespace::MTU.into()];
            let Ok(length) = self.devices[host].recv(&mut packet) else {
                return;
            };
            packet.truncate(length);
            self.network.send(self.start.elapsed(), host, packet, &mut self.rng);
        }
    }

    fn obey(&mut self) -> Result<bool, WanError> {
        let mut bytes = [0; READ];
        let read = rustix::io::read(io::stdin(), &mut bytes);
        let read = read.map_err(|error| WanError::Io { what: "reading orders", source: error.into() })?;
        self.input.extend_from_slice(&bytes[..read]);
        while let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.input.drain(..=end).collect();
            match self.carry_out(&String::from_utf8_lossy(&line)) {
                Ok(()) => say(DONE)?,
                Err(error) => say(&error.to_string())?,
            }
        }
        Ok(read > 0)
    }

    fn carry_out(&mut self, line: &str) -> Result<(), BadOrder> {
        line.parse::<Order>()?.apply(&mut self.network, &self.names)
    }
}

fn say(line: &str) -> Result<(), WanError> {
    let mut out = io::stdout().lock();
    let said = writeln!(out, "{line}").and_then(|()| out.flush());
    said.map_err(|source| WanError::Io { what: "answering", source })
}

fn timespec(time: Duration) -> Timespec {
    Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() }
}
