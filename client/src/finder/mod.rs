//! Who serves a model, how far away they are, and which route to take. One task owns what is known; sessions ask it for
//! plans and tell it what happened.

mod book;
mod look_up;
mod plan;
mod probe;

use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use rand::seq::SliceRandom;
use swarm_protocol::PeerId;
use swarm_protocol::announcement::Announcement;
use swarm_protocol::block::BlockRange;
use swarm_protocol::model_id::ModelId;
use swarm_protocol::p2p::Network;
use swarm_protocol::swarm_view::SwarmView;
use tokio::sync::{mpsc, oneshot};
use tracing::debug;

pub use book::{Known, Outcome, PeerBook};
pub use look_up::{look_up, models};
pub use plan::{Need, NoPlan, Plan};
pub use probe::{Probe, ProbeError, probe};

use crate::config::ClientConfig;

/// Requests and reports waiting for the finder; a report that finds no room is dropped, it is only advice.
const QUEUE: usize = 256;

/// How old a look-up must be before a missing route is reason for another one.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(200);

enum Request {
    Plan { need: Need, fresh: bool, reply: oneshot::Sender<Result<Plan, NoPlan>> },
    Report { peer: PeerId, outcome: Outcome },
    Known { reply: oneshot::Sender<Vec<Known>> },
}

/// A handle on the finder of one model.
#[derive(Debug, Clone)]
pub struct Finder {
    requests: mpsc::Sender<Request>,
}

impl Finder {
    /// Starts the finder of `model`, whose blocks are `blocks`. It ends when the last handle is dropped.
    pub fn start(network: Network, model: ModelId, blocks: BlockRange, config: ClientConfig) -> Self {
        let (requests, queue) = mpsc::channel(QUEUE);
        let task = Task { network, model, blocks, config, book: PeerBook::default(), looked_up: None };
        tokio::spawn(task.run(queue));
        Self { requests }
    }

    /// A route for `need`. With `fresh`, what is known is first brought up to date if it is old; without, it is used as it
    /// is as long as it gives a route, which is what a session in trouble wants.
    ///
    /// # Errors
    /// [`NoPlan`] says which blocks are not to be had, after another look-up.
    pub async fn plan(&self, need: Need, fresh: bool) -> Result<Plan, NoPlan> {
        let missing = vec![need.range];
        let (reply, answer) = oneshot::channel();
        // The finder outlives its handles' requests; without it there is no route.
        let _ = self.requests.send(Request::Plan { need, fresh, reply }).await;
        answer.await.unwrap_or(Err(NoPlan::NoRoute(crate::route::NoRoute { missing })))
    }

    /// Says what a server did.
    pub fn report(&self, peer: PeerId, outcome: Outcome) {
        // Advice that finds the queue full is dropped.
        let _ = self.requests.try_send(Request::Report { peer, outcome });
    }

    /// Every server known now, as last seen.
    pub async fn known(&self) -> Vec<Known> {
        let (reply, answer) = oneshot::channel();
        let _ = self.requests.send(Request::Known { reply }).await;
        answer.await.unwrap_or_default()
    }
}

struct Task {
    network: Network,
    model: ModelId,
    blocks: BlockRange,
    config: ClientConfig,
    book: PeerBook,
    looked_up: Option<Instant>,
}

impl Task {
    async fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        while let Some(request) = queue.recv().await {
            match request {
                Request::Plan { need, fresh, reply } => {
                    let plan = self.plan(&need, fresh).await;
                    // The session may have given up.
                    let _ = reply.send(plan);
                }
                Request::Report { peer, outcome } => {
                    self.book.report(peer, &outcome, Instant::now(), &mut rand::rng());
                }
                Request::Known { reply } => {
                    if self.older_than(self.config.probe_age) {
                        self.look_up_and_probe().await;
                    }
                    let _ = reply.send(self.book.known().cloned().collect());
                }
            }
        }
    }

    async fn plan(&mut self, need: &Need, fresh: bool) -> Result<Plan, NoPlan> {
        if self.looked_up.is_none() || (fresh && self.older_than(self.config.probe_age)) {
            self.look_up_and_probe().await;
        }
        let planned = plan::cheapest(&self.book, need, Instant::now());
        if planned.is_ok() || !self.older_than(LOOK_AGAIN_AFTER) {
            return planned;
        }
        self.look_up_and_probe().await;
        plan::cheapest(&self.book, need, Instant::now())
    }

    fn older_than(&self, age: Duration) -> bool {
        self.looked_up.is_none_or(|at| at.elapsed() > age)
    }

    async fn look_up_and_probe(&mut self) {
        let view = look_up(&self.network, self.model, self.blocks).await;
        let servers = self.short_list(&view);
        let (network, limit) = (&self.network, self.config.probe_timeout);
        let probes: FuturesUnordered<_> = servers
            .iter()
            .map(|server| async move { (server.peer, probe(network, server.peer, &server.addresses, limit).await) })
            .collect();
        let answers: Vec<_> = probes.collect().await;
        let now = Instant::now();
        for (peer, answer) in answers {
            match answer {
                Ok(Probe { info, rtt }) if info.announcement.model == self.model => self.book.probed(info, rtt, now),
                Ok(_) => debug!(%peer, "the server now serves another model"),
                Err(error) => {
                    debug!(%peer, %error, "a probe failed");
                    let outcome = Outcome::Failed { reason: error.to_string() };
                    self.book.report(peer, &outcome, now, &mut rand::rng());
                }
            }
        }
        self.looked_up = Some(now);
    }

    /// The servers worth probing: a random sample where there are very many, each block as often as possible.
    fn short_list(&self, view: &SwarmView) -> Vec<Announcement> {
        let now = Instant::now();
        let mut servers: Vec<Announcement> = view
            .serving()
            .filter(|server| self.config.peers.admits(server.peer) && self.book.worth_probing(server.peer, now))
            .cloned()
            .collect();
        if servers.len() > self.config.most_probes {
            servers.shuffle(&mut rand::rng());
            servers = spread(servers, self.blocks, self.config.most_probes);
        }
        servers
    }
}

/// The first `most` servers when those are taken first that host the blocks which the ones before them host least.
fn spread(mut servers: Vec<Announcement>, blocks: BlockRange, most: usize) -> Vec<Announcement> {
    let mut replicas = vec![0usize; blocks.end() as usize];
    let mut chosen = Vec::with_capacity(most);
    while chosen.len() < most {
        let scarcity = |server: &Announcement| {
            let within = server.blocks.intersection(blocks);
            within.into_iter().flat_map(BlockRange::blocks).map(|block| replicas[block.as_usize()]).min()
        };
        let next = (0..servers.len()).min_by_key(|&index| scarcity(&servers[index]).unwrap_or(usize::MAX));
        let Some(next) = next else {
            break;
        };
        let server = servers.swap_remove(next);
        for block in server.blocks.intersection(blocks).into_iter().flat_map(BlockRange::blocks) {
            replicas[block.as_usize()] += 1;
        }
        chosen.push(server);
    }
    chosen
}
