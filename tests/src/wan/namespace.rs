//! Network namespaces with a TUN device each.

use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tun_rs::{DeviceBuilder, SyncDevice};

use super::WanError;

/// Where `ip netns` keeps what namespaces are entered by.
const FOLDER: &str = "/run/netns";

/// The device of each namespace.
const DEVICE: &str = "wan0";

/// Bytes of the largest packet, as on most of the internet's links.
pub(super) const MTU: u16 = 1500;

/// Packets that wait for the hub: a burst of a few megabytes, which a real network card would pace.
const WAITING_PACKETS: u32 = 5000;

/// How TCP decides what to send at once, for the calling thread's namespace.
const CONGESTION_CONTROL: &str = "/proc/sys/net/ipv4/tcp_congestion_control";

/// The first of these that the system lets a namespace choose: cubic is what most systems do, reno is like it on short
/// links, so that measurements of two machines can be compared. BBR, which some systems have, sends rows of activations at a
/// pace that it derives from their own small number.
const USUAL: [&str; 2] = ["cubic", "reno"];

/// The hosts' network; each namespace knows only its own device, so that networks side by side do not meet.
const NETWORK_BITS: u8 = 24;

/// The address of host `number`, from 0.
pub(super) fn address(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, number as u8 + 1)
}

/// A named network namespace, removed when the value goes away.
#[derive(Debug)]
pub(super) struct Namespace {
    name: String,
}

impl Namespace {
    /// # Errors
    /// If the system does not let us.
    pub(super) fn make(name: String) -> Result<Self, WanError> {
        ip(&["netns", "add", &name])?;
        Ok(Self { name })
    }

    /// Opens its device and gives it `address`. Packets for other hosts come out of the device, without blocking.
    ///
    /// # Errors
    /// If the system does not let us.
    pub(super) fn open_device(&self, address: Ipv4Addr) -> Result<SyncDevice, WanError> {
        let name = self.name.clone();
        // A thread of its own, since it moves into the namespace. Who holds the device need not be there.
        let opening = std::thread::spawn(move || -> Result<SyncDevice, WanError> {
            enter(&name)?;
            // If it takes none of them, it has its reasons.
            let _ = USUAL.iter().any(|usual| fs::write(CONGESTION_CONTROL, usual).is_ok());
            let device = DeviceBuilder::new().name(DEVICE).enable(false).build_sync();
            let device = device.map_err(|source| WanError::Io { what: "opening a TUN device", source })?;
            device.set_nonblocking(true).map_err(|source| WanError::Io { what: "a TUN device", source })?;
            Ok(device)
        });
        let device = opening.join().map_err(|_| WanError::Hub("opening a TUN device panicked".to_string()))??;
        let name = self.name.as_str();
        let (address, mtu) = (format!("{address}/{NETWORK_BITS}"), MTU.to_string());
        let waiting = WAITING_PACKETS.to_string();
        ip(&["-n", name, "link", "set", "lo", "up"])?;
        ip(&["-n", name, "address", "add", &address, "dev", DEVICE])?;
        ip(&["-n", name, "link", "set", DEVICE, "mtu", &mtu, "txqueuelen", &waiting, "up"])?;
        Ok(device)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// Removes a namespace if it is still there. Processes in it keep their sockets, which lead nowhere.
pub(super) fn remove(name: &str) {
    if path(name).exists() {
        // Nobody can do more about it.
        let _ = ip(&["netns", "delete", name]);
    }
}

/// What a namespace is entered by.
pub(super) fn path(name: &str) -> PathBuf {
    PathBuf::from(FOLDER).join(name)
}

/// Moves the calling thread into a namespace; threads and processes that it starts later are there too.
///
/// # Errors
/// If there is none, or the system does not let us.
pub(super) fn enter(name: &str) -> Result<(), WanError> {
    let file = File::open(path(name)).map_err(|source| WanError::Io { what: "opening a network namespace", source })?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(|error| WanError::Io { what: "entering a network namespace", source: error.into() })
}

/// A command to be run in a namespace. It replaces `ip`, so that its process id is the command's.
pub(super) fn command_in(name: &str, command: &Command) -> Command {
    let mut inside = Command::new("ip");
    inside.args(["netns", "exec", name]).arg(command.get_program()).args(command.get_args());
    copy_settings(command, &mut inside);
    inside
}

/// Gives `to` the environment and the directory of `from`.
pub(super) fn copy_settings(from: &Command, to: &mut Command) {
    for (key, value) in from.get_envs() {
        match value {
            Some(value) => to.env(key, value),
            None => to.env_remove(key),
        };
    }
    if let Some(directory) = from.get_current_dir() {
        to.current_dir(directory);
    }
}

/// Whether namespaces and TUN devices can be made here.
pub(super) fn probe() -> Result<(), WanError> {
    // Tests of one process may look at the same time.
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let namespace = Namespace::make(format!("wan-probe-{}-{count}", std::process::id()))?;
    namespace.open_device(address(0)).map(drop)
}

fn ip(arguments: &[&str]) -> Result<(), WanError> {
    let run = Command::new("ip").args(arguments).output();
    let output = run.map_err(|source: io::Error| WanError::Io { what: "running `ip`", source })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_string();
    Err(WanError::Command { command: format!("ip {}", arguments.join(" ")), said })
}
