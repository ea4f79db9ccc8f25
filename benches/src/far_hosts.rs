//! A client, an entry point and servers on hosts of their own, far from one another.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use swarm_tests::wan::{Link, Wan};

use crate::local_swarm::LocalSwarm;
use crate::stats::{Summary, milliseconds};
use crate::workload::{RandomModel, even_ranges};

/// The host of this process.
const CLIENT: &str = "client";

/// The host of the bootstrap peer.
const ENTRY: &str = "entry";

/// The hosts of the servers, in the order of their blocks.
pub(crate) const SERVERS: [&str; 3] = ["h1", "h2", "h3"];

/// Packets by which a delay is measured.
const PACKETS: usize = 5;

/// Bytes by which a rate is measured. The first half is not counted: a connection starts slowly.
const BULK: usize = 8 << 20;

/// Bytes written and read at once.
const PIECE: usize = 1 << 16;

/// The network; this process is on the client's host.
pub(crate) struct FarHosts {
    wan: Wan,
}

impl FarHosts {
    /// Makes the hosts and moves the calling thread, and with it all threads it starts from now on, to the client's.
    ///
    /// # Errors
    /// If there can be no such network here.
    pub(crate) fn enter(link: Link) -> Result<Self> {
        let hosts: Vec<&str> = [CLIENT, ENTRY].into_iter().chain(SERVERS).collect();
        let wan = Wan::new(&hosts, link).context("a network of namespaces takes root, `ip` and TUN devices")?;
        wan.enter(CLIENT)?;
        Ok(Self { wan })
    }

    /// Replaces the links between all hosts.
    ///
    /// # Errors
    /// If the network has ended.
    pub(crate) fn relink(&mut self, link: Link) -> Result<()> {
        let hosts: Vec<&str> = [CLIENT, ENTRY].into_iter().chain(SERVERS).collect();
        for (index, one) in hosts.iter().enumerate() {
            for other in &hosts[index + 1..] {
                self.wan.set_link(one, other, link)?;
            }
        }
        Ok(())
    }

    /// A swarm with the blocks of `model` in even ranges on the servers' hosts.
    ///
    /// # Errors
    /// If something does not start.
    pub(crate) async fn swarm(&self, model: &RandomModel, threads: usize) -> Result<LocalSwarm> {
        let mut swarm = LocalSwarm::start_at(&self.wan.place(ENTRY)?).await?;
        for (host, blocks) in SERVERS.iter().zip(even_ranges(model.spec.blocks as u32, SERVERS.len() as u32)?) {
            swarm.serve_at(&self.wan.place(host)?, model.path(), blocks, threads).await?;
        }
        Ok(swarm)
    }

    /// Measures the delays that a token meets, now.
    ///
    /// # Errors
    /// If packets cannot be sent.
    pub(crate) fn delays(&self) -> Result<Delays> {
        let ring: Vec<&str> = [CLIENT].into_iter().chain(SERVERS).chain([CLIENT]).collect();
        let sum = |pairs: &mut dyn Iterator<Item = (&str, &str)>| {
            pairs.map(|(from, to)| self.one_way_ms(from, to)).sum::<Result<f64>>()
        };
        let ring_ms = sum(&mut ring.windows(2).map(|pair| (pair[0], pair[1])))?;
        let star_ms = sum(&mut SERVERS.into_iter().flat_map(|host| [(CLIENT, host), (host, CLIENT)]))?;
        Ok(Delays { ring_ms, star_ms })
    }

    fn one_way_ms(&self, from: &str, to: &str) -> Result<f64> {
        let times = self.wan.one_way(from, to, PACKETS)?;
        Ok(Summary::of(times.into_iter().map(milliseconds)).median)
    }

    /// How long the link from the client to the first server takes for `bytes`, once a connection is up to speed: without
    /// the delay, with what TCP adds.
    ///
    /// # Errors
    /// If there is no connection.
    pub(crate) fn transfer_time(&self, bytes: usize) -> Result<Duration> {
        let host = SERVERS[0];
        let listener = std::thread::scope(|scope| {
            let binding = scope.spawn(|| -> Result<TcpListener> {
                self.wan.enter(host)?;
                Ok(TcpListener::bind((self.wan.address(host)?, 0))?)
            });
            binding.join().map_err(|_| anyhow!("binding a socket panicked"))?
        })?;
        let target = listener.local_addr()?;
        let sending = std::thread::spawn(move || -> Result<()> {
            let mut stream = TcpStream::connect(target)?;
            (0..BULK / PIECE).try_for_each(|_| stream.write_all(&[0; PIECE]))?;
            Ok(())
        });
        let (mut stream, _) = listener.accept()?;
        let took = second_half(&mut stream)?;
        sending.join().map_err(|_| anyhow!("sending panicked"))??;
        Ok(took.mul_f64(bytes as f64 / (BULK / 2) as f64))
    }
}

/// How long the second half of what comes takes.
fn second_half(stream: &mut TcpStream) -> Result<Duration> {
    let mut half = vec![0; BULK / 2];
    stream.read_exact(&mut half)?;
    let start = Instant::now();
    stream.read_exact(&mut half)?;
    Ok(start.elapsed())
}

/// Sums of one-way delays, in milliseconds, each a median.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Delays {
    /// Client, first server, second, …, client.
    pub(crate) ring_ms: f64,
    /// From the client to each server and back.
    pub(crate) star_ms: f64,
}
