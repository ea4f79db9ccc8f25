//! The life of a server: start, serve, leave.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use rand::Rng;
use swarm_model::{Blocks, Checkpoint, ComputePool, LoadProgress};
use swarm_protocol::announcement::{MAX_NAME_BYTES, MAX_TTL_SECONDS, Rates, ServerState};
use swarm_protocol::block::BlockRange;
use swarm_protocol::model_id::{ModelId, NumericClass, WeightFormat};
use swarm_protocol::p2p::{BootstrapPeer, InboundStreams, JoinError, Network, addresses_settled};
use swarm_protocol::session::TokenCount;
use swarm_protocol::wire::MAX_STEP_ROWS;
use swarm_protocol::{Multiaddr, PeerId};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{info, warn};

use super::about::{About, Details, Profile, plain};
use super::announcer::Announcer;
use super::choice::{assumed_rates, choose_and_announce};
use super::compute;
use super::config::{ServeConfig, Wanted};
use super::digests::compare_with_others;
use super::error::ServeError;
use super::host::{Host, serve_streams};
use super::memory::{available, blocks_that_fit};
use super::neighbours::Neighbours;
use super::occupancy::{Occupancy, Rooms};
use super::opening::Offer;
use super::phase::Phase;
use super::registry::Registry;
use super::self_check::self_check;
use super::smoothed::SmoothedWait;
use super::steps::StepShape;
use crate::admission::AdmissionConfig;

/// Announcements that may be lost before others forget a server.
const INTERVALS_PER_TTL: u32 = 4;

/// How long sessions may take to read that the server has left.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// What a server tells whoever started it.
#[derive(Debug, Clone)]
pub enum ServeEvent {
    /// It listens, and will join the swarm.
    Listening {
        /// Its id.
        peer: PeerId,
        /// Where others can dial it, best first; where it listens, if they cannot.
        addresses: Vec<Multiaddr>,
        /// Whether others can dial any of them.
        reachable: bool,
    },
    /// It knows which blocks it will host.
    Chosen {
        /// The blocks.
        blocks: BlockRange,
    },
    /// It reads weights.
    Loading(LoadProgress),
    /// Sessions are welcome, and the swarm knows it.
    Ready {
        /// Its id.
        peer: PeerId,
        /// The model.
        model: ModelId,
        /// The model's name for people.
        name: String,
        /// The blocks it hosts.
        blocks: BlockRange,
        /// What its results depend on besides weights and input.
        class: NumericClass,
        /// What it measured of itself.
        rates: Rates,
        /// Where others can dial it, best first; empty if only relays and local peers can.
        addresses: Vec<Multiaddr>,
    },
    /// It was told to stop.
    Leaving {
        /// Sessions that still run.
        sessions: u32,
        /// How long they may.
        within: Duration,
    },
}

/// Where a server's events go.
pub type Report = Arc<dyn Fn(ServeEvent) + Send + Sync>;

/// Serves until `stop` resolves and running sessions have ended or moved.
///
/// # Errors
/// [`ServeError`] if the server cannot start, or cannot go on.
pub async fn serve(config: ServeConfig, report: Report, stop: impl Future<Output = ()>) -> Result<(), ServeError> {
    tokio::pin!(stop);
    let begin = async {
        let plan = Plan::make(&config).await?;
        StartUp::begin(config, plan, report).await
    };
    let mut startup = tokio::select! {
        startup = begin => startup?,
        () = &mut stop => return Ok(()),
    };
    let running = tokio::select! {
        running = startup.load_and_start() => running,
        () = &mut stop => {
            startup.announcer.say_goodbye().await;
            startup.network.shut_down().await;
            return Ok(());
        }
    };
    let StartUp { mut announcer, network, report, drain_timeout, .. } = startup;
    let (mut running, why) = match running {
        Ok(mut running) => {
            let why = running.until_it_ends(&mut announcer, &report, &mut stop).await;
            (Some(running), why)
        }
        Err(error) => (None, Err(error)),
    };
    let drain = if why.is_ok() { drain_timeout } else { Duration::ZERO };
    // A twin's good-bye would withdraw the other one.
    let silent = matches!(why, Err(ServeError::Twin(_)));
    let goodbye = async {
        if !silent {
            announcer.say_goodbye().await;
        }
    };
    match &mut running {
        Some(running) => {
            tokio::join!(goodbye, running.drain(drain, &report));
        }
        None => goodbye.await,
    }
    network.shut_down().await;
    why
}

/// What is certain before the network is touched.
struct Plan {
    checkpoint: Arc<Checkpoint>,
    format: WeightFormat,
    model: ModelId,
    model_blocks: BlockRange,
    wanted: Result<BlockRange, u32>,
    threads: usize,
}

impl Plan {
    async fn make(config: &ServeConfig) -> Result<Self, ServeError> {
        let spec = config.model.clone();
        let checkpoint = blocking(move || Checkpoint::open(&spec)).await??;
        let format = config.format.unwrap_or(checkpoint.native_format());
        let about = checkpoint.config();
        let model_blocks = about.all_blocks()?;
        let wanted = match config.wanted {
            Wanted::Pinned(range) if model_blocks.covers(range) => Ok(range),
            Wanted::Pinned(range) => {
                return Err(swarm_model::ModelError::RangePastModel { range, blocks: about.blocks }.into());
            }
            Wanted::Count(count) => Err(count),
            Wanted::Fitting => {
                let memory = available().ok_or(ServeError::UnknownMemory)?;
                Err(blocks_that_fit(about, format, config.cache_tokens, memory)?)
            }
        };
        let model = checkpoint.id(format);
        let threads = config.threads.unwrap_or_else(default_threads);
        Ok(Self { checkpoint: Arc::new(checkpoint), format, model, model_blocks, wanted, threads })
    }
}

/// One core is left to the network and the system where there is more than one.
fn default_threads() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    cores.saturating_sub(1).max(1)
}

/// A server on its way in.
struct StartUp {
    plan: Plan,
    network: Network,
    inbound: Option<InboundStreams>,
    bootstrap: Vec<BootstrapPeer>,
    /// Whether other servers may join at the same moment.
    company: bool,
    about: Arc<About>,
    announcer: Announcer,
    cache_tokens: TokenCount,
    idle_timeout: Duration,
    drain_timeout: Duration,
    report: Report,
}

struct Loaded {
    blocks: Blocks,
    pool: ComputePool,
    rates: Rates,
}

impl StartUp {
    async fn begin(config: ServeConfig, plan: Plan, report: Report) -> Result<Self, ServeError> {
        let bootstrap = config.network.bootstrap.clone();
        let company = !bootstrap.is_empty() || config.network.mdns;
        let (network, inbound) = Network::start(config.network).await?;
        addresses_settled(&network).await;
        let dialable = network.dialable_addresses();
        let reachable = !dialable.is_empty();
        let addresses = if reachable { dialable } else { network.listening() };
        report(ServeEvent::Listening { peer: network.peer_id(), addresses, reachable });
        let ttl = (config.announce_interval * INTERVALS_PER_TTL).min(Duration::from_secs(MAX_TTL_SECONDS.into()));
        let about = Arc::new(About {
            network: network.clone(),
            instance: rand::rng().random(),
            model: plan.model,
            model_name: plan.checkpoint.name().to_string(),
            model_blocks: plan.model_blocks,
            name: config.name.as_deref().map(|name| plain(name, MAX_NAME_BYTES)),
            // A holder counts whole seconds.
            ttl: ttl.max(Duration::from_secs(1)),
            sequence: AtomicU64::new(0),
            neighbours: Neighbours::start(network.clone()),
        });
        let announcer = Announcer::new(about.clone(), nobody_yet(config.cache_tokens), config.announce_interval);
        Ok(Self {
            plan,
            network,
            inbound: Some(inbound),
            bootstrap,
            company,
            about,
            announcer,
            cache_tokens: config.cache_tokens,
            idle_timeout: config.idle_timeout,
            drain_timeout: config.drain_timeout,
            report,
        })
    }

    /// Joins, chooses, loads, checks, and lets sessions in.
    async fn load_and_start(&mut self) -> Result<Running, ServeError> {
        match self.network.join(&self.bootstrap).await {
            // Somebody has to be the first.
            Err(JoinError::NoNeighbour { .. }) => {}
            joined => joined?,
        }
        let blocks = self.choose().await?;
        (self.report)(ServeEvent::Chosen { blocks });
        let mut inbound = self.inbound.take().ok_or(ServeError::NetworkEnded)?;
        let loaded = tokio::select! {
            loaded = load(&self.plan, blocks, self.report.clone()) => loaded?,
            error = self.announcer.keep_announcing(ServerState::Joining) => return Err(error),
            never = reset_all(&mut inbound) => return Err(never),
        };
        let seen = self.announcer.look().await?;
        compare_with_others(&self.network, self.plan.model, &seen.view, blocks, loaded.blocks.digests()).await?;
        self.start(loaded, inbound)
    }

    async fn choose(&mut self) -> Result<BlockRange, ServeError> {
        let draft = self.draft()?;
        match self.plan.wanted {
            Ok(range) => {
                // Also finds the last word of a former life, above which this one goes on.
                self.announcer.look().await?;
                self.announcer.announce(&Profile { blocks: range, ..draft }, ServerState::Joining).await;
                Ok(range)
            }
            Err(count) => {
                let (model, me) = (self.plan.model_blocks, self.network.peer_id());
                choose_and_announce(&mut self.announcer, draft, model, count, me, self.company).await
            }
        }
    }

    /// What can be said before the blocks are loaded.
    fn draft(&self) -> Result<Profile, ServeError> {
        let unknown = format!("{}/loading", self.plan.format);
        let class = NumericClass::new(unknown).map_err(|error| ServeError::SelfCheck(error.to_string()))?;
        let rates = assumed_rates(self.plan.checkpoint.config(), self.plan.format);
        Ok(Profile { blocks: self.plan.model_blocks, class, rates })
    }

    /// Lets sessions in.
    fn start(&mut self, loaded: Loaded, inbound: InboundStreams) -> Result<Running, ServeError> {
        let Loaded { blocks, pool, rates } = loaded;
        let profile = Profile { blocks: blocks.range(), class: blocks.numeric_class().clone(), rates };
        let config = self.plan.checkpoint.config();
        let max_positions = u32::try_from(config.max_positions).unwrap_or(u32::MAX);
        let details = Details { digests: blocks.digests().to_vec(), max_positions, ready: Instant::now() };
        let offer = Offer {
            model: self.plan.model,
            class: profile.class.clone(),
            blocks: profile.blocks,
            longest: TokenCount(max_positions).min(self.cache_tokens),
        };
        let shape = StepShape::new(config.hidden as u32, self.plan.format.into(), MAX_STEP_ROWS);
        let compute::Started { compute, wait, ended } = compute::start(blocks, pool)?;
        let admission = AdmissionConfig { idle: self.idle_timeout, ..AdmissionConfig::of(self.cache_tokens) };
        let (registry, rooms) = Registry::start(admission, compute.clone());
        let occupancy = Occupancy { total: self.cache_tokens, rooms: rooms.clone(), wait };
        self.announcer.set_occupancy(occupancy.clone());
        let (phase_sender, phase) = watch::channel(Phase::Serving);
        let host = Arc::new(Host {
            about: self.about.clone(),
            profile: profile.clone(),
            details,
            offer,
            shape,
            kv_bytes_per_token_block: config.kv_bytes_per_token_block(self.plan.format),
            idle_timeout: self.idle_timeout,
            compute,
            registry: registry.clone(),
            occupancy,
            phase,
            protocol_errors: AtomicU64::new(0),
        });
        let streams = tokio::spawn(serve_streams(host, inbound));
        let (about, others) = (self.about.clone(), !self.bootstrap.is_empty());
        Ok(Running { about, profile, others, registry, rooms, phase: phase_sender, compute_ended: ended, streams })
    }
}

fn nobody_yet(total: TokenCount) -> Occupancy {
    let (_, rooms) = watch::channel(Rooms { sessions: 0, free: total });
    let (_, wait) = watch::channel(SmoothedWait::default());
    Occupancy { total, rooms, wait }
}

/// Loads the blocks and runs the self-check, on a thread where it may take its time.
async fn load(plan: &Plan, blocks: BlockRange, report: Report) -> Result<Loaded, ServeError> {
    let (checkpoint, format, threads) = (plan.checkpoint.clone(), plan.format, plan.threads);
    blocking(move || {
        let pool = ComputePool::new(threads)?;
        let (blocks, rates) = pool.run(|| -> Result<_, ServeError> {
            let blocks =
                checkpoint.load_blocks(blocks, format, &mut |progress| report(ServeEvent::Loading(progress)))?;
            let rates = self_check(&blocks)?;
            Ok((blocks, rates))
        })?;
        info!(blocks = %blocks.range(), ?rates, "the self-check passed");
        Ok(Loaded { blocks, pool, rates })
    })
    .await?
}

fn ready(about: &About, profile: &Profile) -> ServeEvent {
    ServeEvent::Ready {
        peer: about.network.peer_id(),
        model: about.model,
        name: about.model_name.clone(),
        blocks: profile.blocks,
        class: profile.class.clone(),
        rates: profile.rates,
        addresses: about.network.dialable_addresses(),
    }
}

/// Who asks a server that is not ready learns so at once.
async fn reset_all(inbound: &mut InboundStreams) -> ServeError {
    while inbound.recv().await.is_some() {}
    ServeError::NetworkEnded
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ServeError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| ServeError::SelfCheck(error.to_string()))
}

/// A server that takes sessions.
struct Running {
    about: Arc<About>,
    profile: Profile,
    /// Whether there must be another member to be seen by.
    others: bool,
    registry: Registry,
    rooms: watch::Receiver<Rooms>,
    phase: watch::Sender<Phase>,
    compute_ended: oneshot::Receiver<()>,
    streams: JoinHandle<()>,
}

impl Running {
    /// Serves until told to stop, or until it cannot go on; says when the swarm knows of it.
    async fn until_it_ends(
        &mut self,
        announcer: &mut Announcer,
        report: &Report,
        stop: impl Future<Output = ()>,
    ) -> Result<(), ServeError> {
        let Self { about, profile, others, compute_ended, streams, .. } = self;
        let announcing = async {
            if let Err(error) = announcer.announce_serving(profile, *others).await {
                return error;
            }
            report(ready(about, profile));
            announcer.keep_announcing(ServerState::Serving).await
        };
        tokio::select! {
            () = stop => Ok(()),
            error = announcing => Err(error),
            _ = compute_ended => Err(ServeError::ComputeEnded),
            _ = streams => Err(ServeError::NetworkEnded),
        }
    }

    /// Refuses new sessions, tells the running ones, and gives them time to end or to move.
    async fn drain(&mut self, within: Duration, report: &Report) {
        let until = Instant::now() + within;
        self.registry.leave().await;
        self.phase.send_replace(Phase::Leaving { until });
        report(ServeEvent::Leaving { sessions: self.rooms.borrow().sessions, within });
        if !self.empty_within(within).await {
            warn!(sessions = self.rooms.borrow().sessions, "sessions were still running; they are ended");
        }
        self.phase.send_replace(Phase::Left);
        self.empty_within(LAST_WORDS).await;
    }

    async fn empty_within(&mut self, limit: Duration) -> bool {
        let empty = self.rooms.wait_for(|rooms| rooms.sessions == 0);
        matches!(timeout(limit, empty).await, Ok(Ok(_)))
    }
}
