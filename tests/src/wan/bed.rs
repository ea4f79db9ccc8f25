//! A network as its owner holds it.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::WanError;
use super::hub::DONE;
use super::link::Link;
use super::namespace;
use super::order::Order;
use super::place::Place;

/// The hub's binary, beside the program that uses it or in the folder above (tests are in `deps`).
const HUB: &str = "swarm-wan";

/// The most hosts: their addresses differ in the last byte.
const MOST_HOSTS: usize = 250;

/// How long a packet may take before it counts as lost when delays are measured.
const LOST: Duration = Duration::from_secs(5);

/// Hosts of their own network, each in a network namespace of this machine, with links that delay packets.
///
/// The namespaces go away with the value, and also if this process is killed.
pub struct Wan {
    prefix: String,
    hosts: Vec<String>,
    hub: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Wan {
    /// Whether such a network can be made here: it takes root, `ip` and TUN devices.
    ///
    /// # Errors
    /// Why not.
    pub fn available() -> Result<(), WanError> {
        namespace::probe()?;
        hub_program().map(drop)
    }

    /// A network of `hosts`, every two of them joined by `link`.
    ///
    /// # Errors
    /// If it cannot be made here.
    pub fn new(hosts: &[&str], link: Link) -> Result<Self, WanError> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if hosts.len() > MOST_HOSTS {
            return Err(WanError::Hub(format!("at most {MOST_HOSTS} hosts")));
        }
        let prefix = format!("wan-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mut command = promptly(&hub_program()?);
        command.args(["--prefix", &prefix, "--link", &link.to_string()]).args(hosts);
        // A group of its own: Ctrl-C is for the owner, whose end is the hub's.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let failed = |source| WanError::Io { what: "starting the hub", source };
        let mut hub = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(failed)?;
        let (Some(orders), Some(answers)) = (hub.stdin.take(), hub.stdout.take()) else {
            return Err(WanError::Hub("the hub has no stdin or stdout".to_string()));
        };
        let hosts = hosts.iter().map(ToString::to_string).collect();
        let mut wan = Self { prefix, hosts, hub, orders: Some(orders), answers: BufReader::new(answers) };
        wan.answer()?;
        Ok(wan)
    }

    /// Cuts the link between two hosts.
    ///
    /// # Errors
    /// [`WanError`] if there is no such host.
    pub fn cut(&mut self, a: &str, b: &str) -> Result<(), WanError> {
        self.order(&Order::Cut(a.to_string(), Some(b.to_string())))
    }

    /// Cuts a host off.
    ///
    /// # Errors
    /// [`WanError`] if there is no such host.
    pub fn cut_off(&mut self, host: &str) -> Result<(), WanError> {
        self.order(&Order::Cut(host.to_string(), None))
    }

    /// Mends the link between two hosts.
    ///
    /// # Errors
    /// [`WanError`] if there is no such host.
    pub fn heal(&mut self, a: &str, b: &str) -> Result<(), WanError> {
        self.order(&Order::Heal(a.to_string(), Some(b.to_string())))
    }

    /// Mends all links of a host.
    ///
    /// # Errors
    /// [`WanError`] if there is no such host.
    pub fn heal_all(&mut self, host: &str) -> Result<(), WanError> {
        self.order(&Order::Heal(host.to_string(), None))
    }

    /// Replaces the link between two hosts.
    ///
    /// # Errors
    /// [`WanError`] if there is no such host.
    pub fn set_link(&mut self, a: &str, b: &str, link: Link) -> Result<(), WanError> {
        self.order(&Order::link(a, b, link))
    }

    /// Carries out any order; it holds when this returns.
    ///
    /// # Errors
    /// [`WanError`] if it names something that does not exist.
    pub fn order(&mut self, order: &Order) -> Result<(), WanError> {
        let orders = self.orders.as_mut().ok_or_else(|| WanError::Hub("it has ended".to_string()))?;
        let told = writeln!(orders, "{order}").and_then(|()| orders.flush());
        told.map_err(|source| WanError::Io { what: "telling the hub", source })?;
        self.answer()
    }

    fn answer(&mut self) -> Result<(), WanError> {
        let mut line = String::new();
        let read = self.answers.read_line(&mut line);
        read.map_err(|source| WanError::Io { what: "the hub's answer", source })?;
        match line.trim() {
            DONE => Ok(()),
            "" => Err(WanError::Hub("it has ended; its stderr says why".to_string())),
            wrong => Err(WanError::Hub(wrong.to_string())),
        }
    }

    /// The address of a host.
    ///
    /// # Errors
    /// [`WanError`] if there is no such host.
    pub fn address(&self, host: &str) -> Result<Ipv4Addr, WanError> {
        let number = self.hosts.iter().position(|name| name == host);
        number.map(namespace::address).ok_or_else(|| WanError::Hub(format!("there is no host {host:?}")))
    }

    /// A host as a place where processes run.
    ///
    /// # Errors
    /// [`WanError`] if there is no such host.
    pub fn place(&self, host: &str) -> Result<Place, WanError> {
        Ok(Place::in_namespace(self.namespace(host), self.address(host)?))
    }

    /// A command to be run on a host. The process id is the command's.
    ///
    /// # Errors
    /// [`WanError`] if there is no such host.
    pub fn command_in(&self, host: &str, command: &Command) -> Result<Command, WanError> {
        Ok(self.place(host)?.command(command))
    }

    /// Moves the calling thread to a host; threads and processes that it starts later are there too.
    ///
    /// # Errors
    /// [`WanError`] if there is no such host.
    pub fn enter(&self, host: &str) -> Result<(), WanError> {
        self.address(host)?;
        namespace::enter(&self.namespace(host))
    }

    /// A socket on a host; it stays there, whoever uses it.
    ///
    /// # Errors
    /// [`WanError`] if there is no such host, or it has no free port.
    pub fn udp_socket(&self, host: &str) -> Result<UdpSocket, WanError> {
        let address = self.address(host)?;
        let name = self.namespace(host);
        let binding = std::thread::spawn(move || {
            namespace::enter(&name)?;
            UdpSocket::bind((address, 0)).map_err(|source| WanError::Io { what: "binding a socket", source })
        });
        binding.join().map_err(|_| WanError::Hub("binding a socket panicked".to_string()))?
    }

    /// How long each of `count` small packets takes from one host to another; lost ones are left out.
    ///
    /// # Errors
    /// [`WanError`] if there is no such host, or packets cannot be sent.
    pub fn one_way(&self, from: &str, to: &str, count: usize) -> Result<Vec<Duration>, WanError> {
        let (sender, receiver) = (self.udp_socket(from)?, self.udp_socket(to)?);
        let failed = |source| WanError::Io { what: "measuring a delay", source };
        let target = receiver.local_addr().map_err(failed)?;
        receiver.set_read_timeout(Some(LOST)).map_err(failed)?;
        let mut times = Vec::new();
        for number in 0..count as u64 {
            let start = Instant::now();
            sender.send_to(&number.to_le_bytes(), target).map_err(failed)?;
            let mut received = [0; 8];
            if receiver.recv(&mut received).is_ok() && u64::from_le_bytes(received) == number {
                times.push(start.elapsed());
            }
        }
        Ok(times)
    }

    /// The name of a host's namespace.
    pub fn namespace(&self, host: &str) -> String {
        format!("{}-{host}", self.prefix)
    }
}

impl Drop for Wan {
    fn drop(&mut self) {
        // The hub ends when its stdin closes, and takes the namespaces along.
        drop(self.orders.take());
        let _ = self.hub.wait();
        // Unless somebody has killed it.
        self.hosts.iter().for_each(|host| namespace::remove(&self.namespace(host)));
    }
}

/// The hub, before other work if the system lets us: packets that wait for a processor would be late.
fn promptly(program: &Path) -> Command {
    let real_time = ["-r", "1"];
    let tried = Command::new("chrt").args(real_time).arg("true").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !tried.is_ok_and(|status| status.success()) {
        return Command::new(program);
    }
    let mut command = Command::new("chrt");
    command.args(real_time).arg(program);
    command
}

fn hub_program() -> Result<PathBuf, WanError> {
    let this = std::env::current_exe().map_err(|source| WanError::Io { what: "finding this program", source })?;
    let candidates = this.ancestors().skip(1).take(2).map(|folder| folder.join(HUB));
    let built = candidates.into_iter().find(|path| path.is_file());
    built.ok_or_else(|| WanError::Hub(format!("there is no `{HUB}` beside {}: build it", this.display())))
}
