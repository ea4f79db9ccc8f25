//! Who serves a model, how far away they are, and which route to take. One task owns what is known; sessions ask it for
//! plans and tell it what happened.

mod apart;
mod book;
mod edges;
mod kept;
mod look_up;
mod plan;
mod presence;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, join_all};
use rand::seq::SliceRandom;
use swarm_protocol::PeerId;
use swarm_protocol::announcement::Announcement;
use swarm_protocol::block::BlockRange;
use swarm_protocol::model_id::ModelId;
use swarm_protocol::p2p::Network;
use swarm_protocol::wire::{EdgesOffer, PageKey};
use tokio::sync::{mpsc, oneshot};
use tracing::debug;

pub use book::{Known, Outcome, PeerBook};
pub use edges::EdgesPlan;
pub use kept::Expected;
pub use look_up::{look_up, models};
pub use plan::{Need, NoPlan, Plan};
pub(crate) use presence::Present;
pub use swarm_protocol::p2p::{Probe, ProbeError, probe};

use self::presence::Presence;
use crate::config::{ClientConfig, EdgesPlace};

/// Requests and reports waiting for the finder; a report that finds no room is dropped, it is only advice.
const QUEUE: usize = 256;

/// Servers that are probed for their embedding and head, however many others there are.
const MOST_EDGES: usize = 8;

/// How old a look-up must be before a missing route is reason for another one.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// How old what is known may become while sessions run: a replacement is then found without looking first. As often as
/// servers announce themselves; more would only show the same.
const REFRESH_AFTER: Duration = Duration::from_secs(60);

enum Request {
    Plan {
        need: Need,
        fresh: bool,
        reply: oneshot::Sender<Result<Plan, NoPlan>>,
    },
    /// Embedding and head that give the same bits as these, if any are given.
    Edges {
        bound: Option<EdgesOffer>,
        reply: oneshot::Sender<Option<EdgesPlan>>,
    },
    Report {
        peer: PeerId,
        outcome: Outcome,
    },
    /// One server could not reach the other.
    Apart {
        from: PeerId,
        to: PeerId,
    },
    /// A server has been told to keep a text's pages up to this one.
    Kept {
        peer: PeerId,
        last: PageKey,
    },
    /// A server keeps none of these pages.
    Forgotten {
        peer: PeerId,
        keys: Vec<PageKey>,
    },
    Known {
        reply: oneshot::Sender<Vec<Known>>,
    },
}

/// A handle on the finder of one model.
#[derive(Debug, Clone)]
pub struct Finder {
    requests: mpsc::Sender<Request>,
}

impl Finder {
    /// Starts the finder of `model`, whose blocks are `blocks`, and which `serve --model` knows by `name`. It ends when the last
    /// handle is dropped.
    pub fn start(network: Network, model: ModelId, name: Arc<str>, blocks: BlockRange, config: ClientConfig) -> Self {
        let (requests, queue) = mpsc::channel(QUEUE);
        let task = Task {
            network,
            model,
            name,
            blocks,
            config,
            not_admitted: Vec::new(),
            book: PeerBook::default(),
            presence: Presence::default(),
            looked_up: None,
            looking: None,
            used: None,
            plans: Vec::new(),
            edges: Vec::new(),
            knowns: Vec::new(),
        };
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
        answer.await.unwrap_or_else(|_| Err(crate::route::NoRoute { missing }.into()))
    }

    /// The server whose embedding and head are best used: of those that give the same bits as `bound`, if that is given. `None`
    /// if there is none, after another look-up.
    pub async fn edges(&self, bound: Option<EdgesOffer>) -> Option<EdgesPlan> {
        let (reply, answer) = oneshot::channel();
        let _ = self.requests.send(Request::Edges { bound, reply }).await;
        answer.await.ok().flatten()
    }

    /// Says what a server did.
    pub fn report(&self, peer: PeerId, outcome: Outcome) {
        // A measurement leaves room for what matters more; advice that finds the queue full is dropped.
        if matches!(outcome, Outcome::Stepped { .. } | Outcome::Chose { .. }) && self.requests.capacity() < QUEUE / 2 {
            return;
        }
        let _ = self.requests.try_send(Request::Report { peer, outcome });
    }

    /// Says that `from` could not reach `to`: for some minutes routes count on the way through the client between them, and
    /// sessions take it at once.
    pub fn report_apart(&self, from: PeerId, to: PeerId) {
        let _ = self.requests.try_send(Request::Apart { from, to });
    }

    /// Says that a server has been told to keep a text's pages up to this one.
    pub(crate) fn report_kept(&self, peer: PeerId, last: PageKey) {
        // Advice, like measurements.
        if self.requests.capacity() >= QUEUE / 2 {
            let _ = self.requests.try_send(Request::Kept { peer, last });
        }
    }

    /// Says that a server was asked for these pages, and keeps none of them.
    pub(crate) fn report_forgotten(&self, peer: PeerId, keys: Vec<PageKey>) {
        let _ = self.requests.try_send(Request::Forgotten { peer, keys });
    }

    /// Every server known now, as last seen.
    pub async fn known(&self) -> Vec<Known> {
        let (reply, answer) = oneshot::channel();
        let _ = self.requests.send(Request::Known { reply }).await;
        answer.await.unwrap_or_default()
    }
}

/// A look-up with the probes of those it found.
type LookUp = BoxFuture<'static, LookedUp>;

/// What a look-up found.
struct LookedUp {
    answers: Vec<(Announcement, Result<Probe, ProbeError>)>,
    /// The blocks of servers that this client may not use.
    not_admitted: Vec<BlockRange>,
}

struct Task {
    network: Network,
    model: ModelId,
    /// What follows `serve --model`.
    name: Arc<str>,
    blocks: BlockRange,
    config: ClientConfig,
    /// The blocks of servers that were there at the last look-up, and may not be used.
    not_admitted: Vec<BlockRange>,
    book: PeerBook,
    presence: Presence,
    looked_up: Option<Instant>,
    /// The look-up under way: requests that the book can answer do not wait for it.
    looking: Option<LookUp>,
    /// When a session last asked for something, or told of something.
    used: Option<Instant>,
    plans: Vec<(Need, oneshot::Sender<Result<Plan, NoPlan>>)>,
    edges: Vec<(Option<EdgesOffer>, oneshot::Sender<Option<EdgesPlan>>)>,
    knowns: Vec<oneshot::Sender<Vec<Known>>>,
}

impl Task {
    async fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        loop {
            let refresh = self.refresh_at();
            tokio::select! {
                request = queue.recv() => match request {
                    Some(request) => self.on_request(request),
                    None => return,
                },
                found = finished(&mut self.looking) => self.on_found(found),
                () = sleep_until(refresh) => self.look(false),
            }
        }
    }

    /// When to look again although nobody asks: while sessions run, which tell of every step.
    fn refresh_at(&self) -> Option<Instant> {
        let looked_up = self.looked_up.filter(|_| self.looking.is_none())?;
        self.used.filter(|used| looked_up.saturating_duration_since(*used) < REFRESH_AFTER)?;
        Some(looked_up + REFRESH_AFTER)
    }

    fn on_request(&mut self, request: Request) {
        if !matches!(request, Request::Known { .. }) {
            self.used = Some(Instant::now());
        }
        match request {
            Request::Plan { need, fresh, reply } => self.on_plan(need, fresh, reply),
            Request::Edges { bound, reply } => self.on_edges(bound, reply),
            Request::Report { peer, outcome } => {
                self.book.report(peer, &outcome, Instant::now(), &mut rand::rng());
            }
            Request::Apart { from, to } => self.book.apart.note(from, to, Instant::now()),
            Request::Kept { peer, last } => self.book.kept.note(peer, last),
            Request::Forgotten { peer, keys } => self.book.kept.forget(peer, &keys),
            Request::Known { reply } if self.older_than(self.config.probe_age) => {
                self.knowns.push(reply);
                self.look(false);
            }
            Request::Known { reply } => self.answer_known(reply),
        }
    }

    fn on_plan(&mut self, need: Need, fresh: bool, reply: oneshot::Sender<Result<Plan, NoPlan>>) {
        let outdated = self.looked_up.is_none() || (fresh && self.older_than(self.config.probe_age));
        if outdated {
            self.plans.push((need, reply));
            self.look(false);
            return;
        }
        match self.plan(&need, Instant::now()) {
            Err(_) if self.looking.is_some() || self.older_than(LOOK_AGAIN_AFTER) => {
                self.plans.push((need, reply));
                // Without a route the servers that failed a moment ago are asked as well.
                self.look(true);
            }
            // The session may have given up.
            planned => drop(reply.send(planned)),
        }
    }

    fn on_edges(&mut self, bound: Option<EdgesOffer>, reply: oneshot::Sender<Option<EdgesPlan>>) {
        let found = self.book.cheapest_edges(bound.as_ref(), Instant::now());
        if found.is_none() && (self.looking.is_some() || self.older_than(LOOK_AGAIN_AFTER)) {
            self.edges.push((bound, reply));
            self.look(true);
            return;
        }
        // The session may have given up.
        drop(reply.send(found));
    }

    /// The cheapest plan, which later ones count with.
    fn plan(&mut self, need: &Need, now: Instant) -> Result<Plan, NoPlan> {
        self.book.ours = self.presence.counts();
        let planned = plan::cheapest(&self.book, need, now);
        let mut plan = planned.map_err(|reason| reason.of_model(&self.name, &self.not_admitted))?;
        plan.present = plan.route.hops.iter().map(|hop| self.presence.enter(hop.peer)).collect();
        Ok(plan)
    }

    fn answer_known(&self, reply: oneshot::Sender<Vec<Known>>) {
        drop(reply.send(self.book.known().cloned().collect()));
    }

    fn older_than(&self, age: Duration) -> bool {
        self.looked_up.is_none_or(|at| at.elapsed() > age)
    }

    /// Begins a look-up unless one is under way; with `everybody` also servers that are being avoided are probed.
    fn look(&mut self, everybody: bool) {
        if self.looking.is_some() {
            return;
        }
        let now = Instant::now();
        let avoided: HashSet<PeerId> = match everybody {
            true => HashSet::new(),
            false => self.book.avoided(now).collect(),
        };
        let (network, model, blocks, config) = (self.network.clone(), self.model, self.blocks, self.config.clone());
        self.looking = Some(Box::pin(async move {
            let view = look_up(&network, model, blocks).await;
            let (servers, others): (Vec<_>, Vec<_>) =
                view.serving().partition(|server| config.peers.admits(server.peer));
            let not_admitted = others.into_iter().map(|server| server.blocks).collect();
            let servers = servers.into_iter().filter(|server| !avoided.contains(&server.peer)).cloned().collect();
            let edges = if config.edges == EdgesPlace::Served { MOST_EDGES } else { 0 };
            let servers = short_list(servers, blocks, config.most_probes, edges);
            let probes = servers.into_iter().map(|server| async {
                let answer = probe(&network, server.peer, &server.addresses, config.probe_timeout).await;
                (server, answer)
            });
            LookedUp { answers: join_all(probes).await, not_admitted }
        }));
    }

    fn on_found(&mut self, LookedUp { answers, not_admitted }: LookedUp) {
        self.looking = None;
        self.not_admitted = not_admitted;
        let now = Instant::now();
        self.looked_up = Some(now);
        for (server, answer) in answers {
            let peer = server.peer;
            match answer {
                Ok(Probe { info, rtt }) if info.announcement.model == self.model => self.book.probed(info, rtt, now),
                Ok(_) => {
                    debug!(%peer, "the server now serves another model");
                    self.book.forget(peer);
                }
                Err(error) => {
                    debug!(%peer, %error, "a probe failed");
                    self.book.probe_failed(&server, error.reason(), now, &mut rand::rng());
                }
            }
        }
        self.book.forget_silent(now);
        for (need, reply) in std::mem::take(&mut self.plans) {
            drop(reply.send(self.plan(&need, now)));
        }
        for (bound, reply) in std::mem::take(&mut self.edges) {
            drop(reply.send(self.book.cheapest_edges(bound.as_ref(), now)));
        }
        for reply in std::mem::take(&mut self.knowns) {
            self.answer_known(reply);
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// The look-up's result; pending while there is none.
async fn finished(looking: &mut Option<LookUp>) -> LookedUp {
    match looking {
        Some(look_up) => look_up.await,
        None => std::future::pending().await,
    }
}

/// The servers worth probing: a random sample where there are very many, each block as often as possible, and `edges` that offer
/// embedding and head.
fn short_list(mut servers: Vec<Announcement>, blocks: BlockRange, most: usize, edges: usize) -> Vec<Announcement> {
    if servers.len() <= most {
        return servers;
    }
    servers.shuffle(&mut rand::rng());
    // Blocks come first.
    let mut left = edges.min(most / 2);
    let (mut chosen, others): (Vec<_>, Vec<_>) = servers.into_iter().partition(|server| {
        let taken = server.edges && left > 0;
        left -= usize::from(taken);
        taken
    });
    chosen.extend(spread(others, blocks, most.saturating_sub(chosen.len())));
    chosen
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
