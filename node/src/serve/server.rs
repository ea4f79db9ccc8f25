//! A server's process: what stays the same whichever blocks it hosts.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use rand::Rng;
use swarm_model::KvArena;
use swarm_protocol::announcement::{MAX_NAME_BYTES, MAX_TTL_SECONDS, ServerState};
use swarm_protocol::block::BlockRange;
use swarm_protocol::model_id::NumericClass;
use swarm_protocol::p2p::{BootstrapPeer, JoinError, Network, addresses_settled};
use swarm_protocol::session::TokenCount;
use swarm_protocol::wire::{MAX_STEP_ROWS, PAGE_POSITIONS};
use tokio::sync::watch;

use super::about::{About, Details, Profile, plain};
use super::announcer::Announcer;
use super::choice::{Counted, assumed_rates, choose_and_announce};
use super::compute;
use super::config::ServeConfig;
use super::digests::compare_with_others;
use super::door::Door;
use super::edges::OfferedEdges;
use super::error::ServeError;
use super::event::{Report, ServeEvent};
use super::host::{Host, OwnWord, serve_streams};
use super::loading::{Loaded, Served, load};
use super::metrics::State;
use super::moving::Mover;
use super::neighbours::Neighbours;
use super::occupancy::{Occupancy, Rooms};
use super::opening::Offer;
use super::phase::Phase;
use super::prefixes::Prefixes;
use super::registry::Registry;
use super::running::Running;
use super::smoothed::SmoothedWait;
use super::steps::StepShape;
use crate::admission::AdmissionConfig;

/// Announcements that may be lost before others forget a server.
const INTERVALS_PER_TTL: u32 = 4;

/// A server's process.
pub(super) struct Server {
    served: Served,
    edges: Option<OfferedEdges>,
    pub(super) network: Network,
    pub(super) door: Door,
    bootstrap: Vec<BootstrapPeer>,
    /// Whether other servers may join at the same moment.
    company: bool,
    pub(super) about: Arc<About>,
    pub(super) announcer: Announcer,
    /// Of a server that may host other blocks one day.
    pub(super) mover: Option<Mover>,
    /// What it relied on when it chose its blocks, until it is known that they stay.
    pub(super) counted: Option<Counted>,
    cache_tokens: TokenCount,
    /// Whether what sessions have computed is kept for later ones.
    prefix_cache: bool,
    idle_timeout: Duration,
    pub(super) drain_timeout: Duration,
    pub(super) report: Report,
}

impl Server {
    /// Opens the model and starts the network.
    pub(super) async fn begin(config: ServeConfig, report: Report) -> Result<Self, ServeError> {
        let served = Served::open(&config).await?;
        let edges = if config.edges { Some(OfferedEdges::load(&served).await?) } else { None };
        let bootstrap = config.network.bootstrap.clone();
        // KV caches grow by whole pages.
        let cache_tokens =
            TokenCount(config.cache_tokens.0.saturating_add(PAGE_POSITIONS - 1) / PAGE_POSITIONS * PAGE_POSITIONS);
        let company = !bootstrap.is_empty() || config.network.mdns;
        let (network, inbound) = Network::start(config.network).await?;
        addresses_settled(&network).await;
        // Of one process one server.
        let _ = config.metrics.network.set(network.clone());
        let dialable = network.dialable_addresses();
        let reachable = !dialable.is_empty();
        let addresses = if reachable { dialable } else { network.listening() };
        report(ServeEvent::Listening {
            peer: network.peer_id(),
            addresses,
            reachable,
            network: Box::new(network.clone()),
        });
        let ttl = (config.announce_interval * INTERVALS_PER_TTL).min(Duration::from_secs(MAX_TTL_SECONDS.into()));
        let about = Arc::new(About {
            network: network.clone(),
            instance: rand::rng().random(),
            model: served.model,
            model_name: served.checkpoint.name().to_string(),
            model_blocks: served.model_blocks,
            name: config.name.as_deref().map(|name| plain(name, MAX_NAME_BYTES)),
            // A holder counts whole seconds.
            ttl: ttl.max(Duration::from_secs(1)),
            sequence: AtomicU64::new(0),
            edges: edges.is_some(),
            neighbours: Neighbours::start(network.clone()),
            metrics: config.metrics.clone(),
            spans: config.spans,
        });
        let announcer = Announcer::new(about.clone(), nobody_yet(cache_tokens), config.announce_interval);
        let mover = match served.wanted {
            Err(count) if count < served.model_blocks.len() => {
                Some(Mover::new(about.clone(), config.announce_interval))
            }
            _ => None,
        };
        Ok(Self {
            served,
            edges,
            network,
            door: Door::new(inbound),
            bootstrap,
            company,
            mover,
            counted: None,
            about,
            announcer,
            cache_tokens,
            prefix_cache: config.prefix_cache,
            idle_timeout: config.idle_timeout,
            drain_timeout: config.drain_timeout,
            report,
        })
    }

    /// Joins, and chooses blocks.
    pub(super) async fn join_and_choose(&mut self) -> Result<BlockRange, ServeError> {
        match self.network.join(&self.bootstrap).await {
            // Somebody has to be the first.
            Err(JoinError::NoNeighbour { .. }) => {}
            joined => joined?,
        }
        let draft = self.draft()?;
        match self.served.wanted {
            Ok(range) => {
                // Also finds the last word of a former life, above which this one goes on.
                self.announcer.look().await?;
                self.announcer.announce(&Profile { blocks: range, ..draft }, ServerState::Joining).await;
                Ok(range)
            }
            Err(count) => {
                let (model, me) = (self.served.model_blocks, self.network.peer_id());
                let choice = choose_and_announce(&mut self.announcer, draft, model, count, me, self.company).await?;
                self.counted = Some(choice.counted);
                Ok(choice.blocks)
            }
        }
    }

    /// What can be said before the blocks are loaded.
    pub(super) fn draft(&self) -> Result<Profile, ServeError> {
        let unknown = format!("{}/loading", self.served.format);
        let class = NumericClass::new(unknown).map_err(|error| ServeError::SelfCheck(error.to_string()))?;
        let rates = assumed_rates(self.served.checkpoint.config(), self.served.format);
        Ok(Profile { blocks: self.served.model_blocks, class, rates })
    }

    /// Loads blocks that have been announced, and compares them with others'.
    pub(super) async fn load(&mut self, blocks: BlockRange) -> Result<Loaded, ServeError> {
        self.about.metrics.set_state(State::Loading);
        (self.report)(ServeEvent::Chosen { blocks });
        let loaded = tokio::select! {
            loaded = load(&self.served, blocks, self.report.clone()) => loaded?,
            error = self.announcer.keep_announcing(ServerState::Joining) => return Err(error),
            () = self.door.ended() => return Err(ServeError::NetworkEnded),
        };
        let seen = self.announcer.look().await?;
        compare_with_others(&self.network, self.served.model, &seen.view, blocks, loaded.blocks.digests()).await?;
        Ok(loaded)
    }

    /// Lets sessions in.
    pub(super) fn start(&mut self, loaded: Loaded) -> Result<Running, ServeError> {
        let Loaded { blocks, pool, rates } = loaded;
        let profile = Profile { blocks: blocks.range(), class: blocks.numeric_class().clone(), rates };
        let config = self.served.checkpoint.config();
        let max_positions = u32::try_from(config.max_positions).unwrap_or(u32::MAX);
        let edges = self.edges.as_ref().map(|edges| edges.offer.clone());
        let details = Details { digests: blocks.digests().to_vec(), max_positions, ready: Instant::now(), edges };
        let offer = Offer {
            model: self.served.model,
            class: profile.class.clone(),
            blocks: profile.blocks,
            longest: TokenCount(max_positions).min(self.cache_tokens),
        };
        let shape = StepShape::new(config.hidden as u32, self.served.format.into(), MAX_STEP_ROWS);
        let pages = self.cache_tokens.0 / PAGE_POSITIONS;
        let metrics = &self.about.metrics;
        let count = i64::from(profile.blocks.len());
        metrics.blocks.set(count);
        metrics.model_blocks.set(i64::from(self.served.model_blocks.len()));
        metrics.weights_bytes.set(config.block_bytes(self.served.format) as i64 * count);
        metrics.kv_capacity_tokens.set(i64::from(self.cache_tokens.0));
        let arena = KvArena::new(u64::from(pages) * blocks.page_bytes(blocks.range()));
        metrics.kv_budget_bytes.set(arena.budget_bytes() as i64);
        let prefixes = Prefixes::new(if self.prefix_cache { pages as usize } else { 0 });
        let compute::Started { compute, wait, ended } =
            compute::start(blocks, pool, arena, prefixes.clone(), metrics.clone())?;
        let admission = AdmissionConfig { idle: self.idle_timeout, ..AdmissionConfig::of(self.cache_tokens) };
        let (registry, rooms) = Registry::start(admission, compute.clone(), metrics.clone());
        let occupancy = Occupancy { total: self.cache_tokens, rooms: rooms.clone(), wait };
        self.announcer.set_occupancy(occupancy.clone());
        let (phase_sender, phase) = watch::channel(Phase::Serving);
        let host = Arc::new(Host {
            about: self.about.clone(),
            profile: profile.clone(),
            details,
            offer,
            shape,
            kv_bytes_per_token_block: config.kv_bytes_per_token_block(self.served.format, self.served.kv_format),
            idle_timeout: self.idle_timeout,
            compute,
            edges: self.edges.clone(),
            registry: registry.clone(),
            prefixes,
            occupancy,
            phase,
            protocol_errors: AtomicU64::new(0),
        });
        let word = OwnWord::of(&host, config.hidden as u32, self.served.format.into());
        metrics.set_state(State::Serving);
        let streams = tokio::spawn(serve_streams(host, self.door.open()));
        let (about, others) = (self.about.clone(), !self.bootstrap.is_empty());
        Ok(Running {
            about,
            profile,
            others,
            word,
            registry,
            rooms,
            phase: phase_sender,
            compute_ended: ended,
            streams,
        })
    }

    /// Nobody is served any more: what is announced of the load says so.
    pub(super) fn set_idle(&mut self) {
        self.about.metrics.blocks.set(0);
        self.about.metrics.weights_bytes.set(0);
        // What the arena held is gone with it.
        self.about.metrics.kv_used_bytes.set(0);
        self.about.metrics.prefix_bytes.set(0);
        self.announcer.set_occupancy(nobody_yet(self.cache_tokens));
    }
}

fn nobody_yet(total: TokenCount) -> Occupancy {
    let (_, rooms) = watch::channel(Rooms { sessions: 0, free: total });
    let (_, wait) = watch::channel(SmoothedWait::default());
    Occupancy { total, rooms, wait }
}
