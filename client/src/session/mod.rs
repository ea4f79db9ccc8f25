//! A session on a chain of servers: what [`crate::chain`] says is to be done, done.

mod ahead;
mod arrivals;
mod cuts;
mod error;
mod link;
mod orders;
mod prefix;
mod recorder;
mod repair;
mod shadows;
mod spans;
mod waiting;
mod warming;
mod watch;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use swarm_protocol::PeerId;
use swarm_protocol::activations::{ActivationRows, Rows};
use swarm_protocol::block::{BlockIndex, BlockRange};
use swarm_protocol::model_id::{BlockDigest, ModelId, NumericClass, WeightFormat};
use swarm_protocol::p2p::Network;
use swarm_protocol::session::{SessionId, TokenCount};
use swarm_protocol::trace_context::{SPANS, TraceContext};
use swarm_protocol::wire::{LinkFormat, MAX_STEP_ROWS, PAGE_POSITIONS, RowsHeader};
use tokio::sync::mpsc;
use tokio::time::Instant as TokioInstant;
use tracing::info;

pub use error::SessionError;
pub use link::OpenFailure;

use self::ahead::Ahead;
use self::cuts::Cuts;
use self::link::{Arrival, Link};
use self::prefix::PageKeys;
use self::recorder::Recorder;
use self::shadows::Shadows;
use self::waiting::take_waiting;
use crate::chain::{BadHops, Chain, ChainConfig, HopId, Outputs};
use crate::config::ClientConfig;
use crate::edges::ClientEdges;
use crate::finder::{Finder, Outcome};
use crate::route::Route;
use crate::trace::TraceRecord;

/// Events of all hops waiting for the session: a window of answers and pongs from each of a long chain.
const EVENTS: usize = 256;

/// How often hops are pinged, and checked for silence, while they owe an answer.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// How long [`Session::warm_up`] takes at most: several times what connections around the world take.
const WARM_UP_WITHIN: Duration = Duration::from_secs(3);

/// One hop of a session as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HopInfo {
    /// The server.
    pub peer: PeerId,
    /// The blocks it computes in this session.
    pub blocks: BlockRange,
    /// Bytes of a token's row on the way to it. Where servers pack rows for one another, these are the bytes before.
    pub bytes_in: u32,
    /// Bytes of a token's row on the way from it.
    pub bytes_out: u32,
}

/// What happened to a session's route since it was last asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteEvent {
    /// A hop was lost; its blocks have been given to others, and what it knew is being rebuilt.
    Rerouted {
        /// The server that was lost.
        lost: PeerId,
        /// Why.
        reason: String,
        /// From noticing the loss to having opened its replacement.
        took: Duration,
    },
    /// The route is this now.
    Route(Vec<HopInfo>),
}

/// What a session is opened with.
pub(crate) struct SessionParts {
    pub(crate) network: Network,
    pub(crate) finder: Finder,
    pub(crate) config: ClientConfig,
    pub(crate) model: ModelId,
    pub(crate) format: WeightFormat,
    pub(crate) hidden: u32,
    pub(crate) edges: ClientEdges,
    pub(crate) id: SessionId,
    /// Room to reserve on every hop.
    pub(crate) tokens: TokenCount,
}

/// One sequence on a chain of servers, with a KV cache on each. Dropping it frees them.
///
/// If a call to [`feed_tokens`](Self::feed_tokens) or [`feed_rows`](Self::feed_rows) is dropped before it ends, its outputs
/// are lost, the positions it fed stay: [`truncate`](Self::truncate) to where they began to feed them again.
pub struct Session {
    id: SessionId,
    network: Network,
    finder: Finder,
    config: ClientConfig,
    model: ModelId,
    hidden: u32,
    format: WeightFormat,
    edges: ClientEdges,
    /// Rows that were embedded before they were needed.
    ahead: Ahead,
    tokens: TokenCount,
    /// Fixed by the first servers: replacements must give the same bits.
    class: Option<NumericClass>,
    digests: BTreeMap<BlockIndex, BlockDigest>,
    /// Where rows are rounded.
    cuts: Cuts,
    chain: Chain<ActivationRows>,
    /// The token ids of a chain of tokens: the input of its first hop.
    ids: Vec<u32>,
    /// Their pages, if hops are to reuse what they have computed in other sessions.
    pages: Option<PageKeys>,
    /// Of the chain's hops, and of those kept beside it.
    links: HashMap<HopId, Link>,
    events_in: link::Events,
    events: mpsc::Receiver<Arrival>,
    /// Outputs of the last hop that came since the last call.
    outputs: Option<ActivationRows>,
    shadows: Shadows,
    /// What the first route was expected to cost.
    planned: Option<Route>,
    /// A first route was opened.
    started: bool,
    /// The last call was not dropped midway.
    settled: bool,
    /// Hops lost, or not opened, since the session last gave an output.
    setbacks: u32,
    /// Losses whose replacement has not been opened.
    losses: Vec<(PeerId, String, Instant)>,
    news: VecDeque<RouteEvent>,
    recorder: Recorder,
    /// The span that hops work for.
    context: Option<TraceContext>,
}

impl Session {
    /// A session whose input is token ids, over all of the model's `blocks`.
    ///
    /// It is expected to begin with `expected`: what hops have computed of that in other sessions, but for its last
    /// token, counts as fed.
    pub(crate) async fn of_tokens(
        parts: SessionParts,
        blocks: BlockRange,
        expected: &[u32],
    ) -> Result<Self, SessionError> {
        let chain = Chain::of_tokens(blocks, &[blocks], chunks(&parts.config));
        let mut pages = PageKeys::new(&parts.config.prefixes);
        // The output of the last token is needed, so that one is computed.
        let expected = &expected[..expected.len().saturating_sub(1)];
        pages.iter_mut().for_each(|pages| pages.follow(expected, 0));
        let mut session = Self::open(parts, chain, pages).await?;
        session.begin_with(expected);
        // Servers dial one another, and bring the ways between them up to speed, before anything is fed.
        session.obey_orders().await?;
        Ok(session)
    }

    /// A session whose input is rows of activations, over any of the model's blocks.
    pub(crate) async fn of_rows(parts: SessionParts, blocks: BlockRange) -> Result<Self, SessionError> {
        let chain = Chain::of_rows(blocks, &[blocks], chunks(&parts.config));
        let mut session = Self::open(parts, chain, None).await?;
        session.obey_orders().await?;
        Ok(session)
    }

    async fn open(
        parts: SessionParts,
        chain: Result<Chain<ActivationRows>, BadHops>,
        pages: Option<PageKeys>,
    ) -> Result<Self, SessionError> {
        // One hop over the whole range always tiles it.
        let mut chain = chain.map_err(|_| SessionError::Stopped)?;
        // The chain begins with one hop that nobody has opened: a loss like any other.
        let unopened: Vec<HopId> = chain.hops().map(|(hop, _)| hop).collect();
        unopened.into_iter().for_each(|hop| {
            chain.fail(hop);
        });
        let (events_in, events) = link::Events::new(EVENTS);
        let mut session = Self {
            id: parts.id,
            network: parts.network,
            finder: parts.finder,
            cuts: Cuts::new(parts.config.wire.rounding()),
            config: parts.config,
            model: parts.model,
            hidden: parts.hidden,
            format: parts.format,
            edges: parts.edges,
            ahead: Ahead::default(),
            tokens: parts.tokens,
            class: None,
            digests: BTreeMap::new(),
            chain,
            ids: Vec::new(),
            pages,
            links: HashMap::new(),
            events_in,
            events,
            outputs: None,
            shadows: Shadows::default(),
            planned: None,
            started: false,
            settled: true,
            setbacks: 0,
            losses: Vec::new(),
            news: VecDeque::new(),
            recorder: Recorder::off(),
            context: None,
        };
        session.follow_span();
        session.mend().await?;
        session.started = true;
        Ok(session)
    }

    /// How many positions the session has been fed.
    pub fn position(&self) -> TokenCount {
        self.chain.position()
    }

    /// How many positions it may have.
    pub fn reserved(&self) -> TokenCount {
        self.tokens
    }

    /// The token ids it has been fed; none for a session of rows.
    pub(crate) fn fed_ids(&self) -> &[u32] {
        &self.ids
    }

    /// The arithmetic its servers share.
    pub fn numeric_class(&self) -> Option<&NumericClass> {
        self.class.as_ref()
    }

    /// Rows kept on this client so that they can be sent again: none, if its input is token ids. What later hops are fed
    /// with is kept by the hops before them.
    pub fn kept_rows(&self) -> usize {
        self.chain.kept_rows()
    }

    /// What the first route was expected to cost, hop by hop: why it was taken.
    pub fn planned(&self) -> Option<&Route> {
        self.planned.as_ref()
    }

    /// The hops in order.
    pub fn route(&self) -> Vec<HopInfo> {
        let bytes = |format: LinkFormat| format.encoding(self.format.into()).row_bytes(self.hidden as usize) as u32;
        let info = |(hop, blocks)| {
            let Link { peer, formats, packed, .. } = self.links.get(&hop)?;
            let bytes_in = packed.input.unwrap_or(bytes(formats.input));
            let bytes_out = packed.output.unwrap_or(bytes(formats.output));
            Some(HopInfo { peer: *peer, blocks, bytes_in, bytes_out })
        };
        self.chain.hops().filter_map(info).collect()
    }

    /// The next thing that happened to the route since it was last asked; the first is the route it was opened with.
    pub fn next_route_event(&mut self) -> Option<RouteEvent> {
        self.news.pop_front()
    }

    /// Writes down where time goes from now on, counted from `start`; `None` ends it.
    pub(crate) fn trace(&mut self, start: Option<Instant>) {
        self.recorder = start.map_or_else(Recorder::off, Recorder::since);
        let route = self.route();
        self.recorder.routed(&route);
    }

    /// The oldest record of the trace that was not taken.
    pub(crate) fn next_record(&mut self) -> Option<TraceRecord> {
        self.recorder.next()
    }

    /// Waits until the ways to the first hop and between the hops are up to speed, though not for ever: worth it when a
    /// long prompt is to come and there is time until then, since a connection that has been idle for some tenths of a
    /// second starts slowly. Without it the prompt's first rows do the same.
    ///
    /// # Errors
    /// [`SessionError`] if hops were lost and no servers are to be had.
    pub async fn warm_up(&mut self) -> Result<(), SessionError> {
        tokio::time::timeout(WARM_UP_WITHIN, self.work_until(Self::is_warm)).await.unwrap_or(Ok(()))
    }

    /// Forgets every position from `position` on, here and on the hops.
    pub fn truncate(&mut self, position: TokenCount) {
        info!(target: SPANS, session = %self.id, %position, "truncated");
        self.chain.truncate(position);
        self.forget_dropped_shadows();
        self.ids.truncate(position.as_usize());
        self.pages.iter_mut().for_each(|pages| pages.follow(&self.ids, position.as_usize()));
        // Pages that are filled anew are told anew.
        let whole = position.as_usize() / PAGE_POSITIONS as usize;
        self.links.values_mut().for_each(|link| link.kept_pages = link.kept_pages.min(whole));
    }

    /// Feeds token ids; gives the last hop's outputs that were asked for.
    ///
    /// # Errors
    /// [`SessionError`] if they do not fit the reservation, or no servers are to be had.
    pub async fn feed_tokens(&mut self, ids: &[u32], outputs: Outputs) -> Result<Option<ActivationRows>, SessionError> {
        self.check_room(ids.len())?;
        self.forget_dropped_call();
        self.chain.extend_tokens(TokenCount(ids.len() as u32), outputs)?;
        let fed = self.ids.len();
        self.ids.extend_from_slice(ids);
        self.pages.iter_mut().for_each(|pages| pages.follow(&self.ids, fed));
        self.settle().await
    }

    /// What token `id` is embedded as, if it is the next that is fed.
    pub(crate) fn is_embedded(&mut self, id: u32, row: ActivationRows) {
        self.ahead = Ahead::new(self.ids.len(), vec![id], row);
    }

    /// Feeds rows of activations; gives the last hop's outputs that were asked for.
    ///
    /// # Errors
    /// [`SessionError`] if they do not fit the model or the reservation, or no servers are to be had.
    pub async fn feed_rows(
        &mut self,
        rows: ActivationRows,
        outputs: Outputs,
    ) -> Result<Option<ActivationRows>, SessionError> {
        let header = rows.header();
        if header.hidden != self.hidden || header.element != self.format.into() {
            return Err(SessionError::WrongRows { hidden: self.hidden as usize });
        }
        self.check_room(rows.rows())?;
        self.forget_dropped_call();
        self.chain.extend_rows(rows, outputs)?;
        self.settle().await
    }

    fn check_room(&self, more: usize) -> Result<(), SessionError> {
        let asked = self.position().as_usize().saturating_add(more);
        if asked > self.tokens.as_usize() {
            let asked = TokenCount(u32::try_from(asked).unwrap_or(u32::MAX));
            return Err(SessionError::PastReservation { asked, reserved: self.tokens });
        }
        Ok(())
    }

    /// If the last call was dropped midway, what it waited for is wanted no more. That comes before anything new is asked
    /// for, which would be forgotten with it.
    fn forget_dropped_call(&mut self) {
        if !self.settled {
            self.chain.abandon_unanswered();
            self.forget_dropped_shadows();
        }
    }

    /// Works until everything has come that was asked for.
    async fn settle(&mut self) -> Result<Option<ActivationRows>, SessionError> {
        self.outputs = None;
        self.settled = false;
        self.work_until(Self::is_settled).await?;
        self.settled = true;
        Ok(self.outputs.take())
    }

    fn is_settled(&self) -> bool {
        // A trace waits for every hop's word about the step, which nothing else needs.
        let told = !self.recorder.is_on() || self.chain.is_whole();
        self.chain.is_settled() && told && self.chain.lost().is_empty()
    }

    fn is_warm(&self) -> bool {
        let fed = |(hop, link)| self.links.get(&hop).is_some_and(|known| known.fed == Some(link));
        self.chain.lost().is_empty() && self.links.values().all(|link| link.warm) && self.chain.direct_links().all(fed)
    }

    async fn obey_orders(&mut self) -> Result<(), SessionError> {
        while let Some(order) = self.chain.next_order() {
            self.obey(order).await?;
        }
        Ok(())
    }

    async fn work_until(&mut self, done: fn(&Self) -> bool) -> Result<(), SessionError> {
        let mut check = TokioInstant::now() + CHECK_INTERVAL;
        self.follow_span();
        self.begin_watching();
        loop {
            self.catch_up();
            self.mend().await?;
            self.tend_shadows();
            self.obey_orders().await?;
            if done(self) {
                return Ok(());
            }
            tokio::select! {
                Some(arrival) = self.events.recv() => self.on_arrival(arrival),
                Some(Ok(opened)) = self.shadows.opening.join_next() => self.on_shadow_opened(opened),
                () = tokio::time::sleep_until(check) => {
                    self.catch_up();
                    self.check_hops();
                    check = TokioInstant::now() + CHECK_INTERVAL;
                }
            }
        }
    }

    /// Takes in all that has come, but no more than waited: a flood would never end.
    fn catch_up(&mut self) {
        for _ in 0..EVENTS {
            let Some(arrival) = take_waiting(&mut self.events) else { return };
            self.on_arrival(arrival);
        }
    }

    /// Replaces what is lost, and tells the news.
    async fn mend(&mut self) -> Result<(), SessionError> {
        if self.chain.lost().is_empty() && self.losses.is_empty() {
            return Ok(());
        }
        self.repair().await?;
        for (lost, reason, noticed) in std::mem::take(&mut self.losses) {
            let took = noticed.elapsed();
            self.recorder.rerouted(lost, &reason, took);
            info!(target: SPANS, session = %self.id, %lost, reason, ?took, "re-routed");
            self.news.push_back(RouteEvent::Rerouted { lost, reason, took });
        }
        let route = self.route();
        info!(session = %self.id, hops = route.len(), "route opened");
        self.recorder.routed(&route);
        self.news.push_back(RouteEvent::Route(route));
        self.begin_watching();
        Ok(())
    }

    /// A hop failed: its server is avoided for a while.
    fn lose(&mut self, hop: HopId, reason: String) {
        if let Some(link) = self.links.get(&hop) {
            self.finder.report(link.peer, Outcome::Failed { reason: reason.clone() });
        }
        if self.chain.hops().any(|(known, _)| known == hop) {
            self.setbacks += 1;
        }
        self.give_up(hop, reason);
    }

    /// Lets go of a hop. Who was kept beside it takes its place at once.
    fn give_up(&mut self, hop: HopId, reason: String) {
        let in_chain = self.chain.hops().any(|(known, _)| known == hop);
        self.chain.fail(hop);
        let Some(link) = self.links.remove(&hop) else {
            return;
        };
        if !in_chain {
            info!(session = %self.id, peer = %link.peer, blocks = %link.blocks, reason, "a standby was lost");
            return;
        }
        info!(session = %self.id, peer = %link.peer, blocks = %link.blocks, reason, "hop lost");
        self.losses.push((link.peer, reason, Instant::now()));
        self.promote_shadow(hop);
    }

    /// One row of activations.
    fn row_shape(&self) -> RowsHeader {
        RowsHeader { rows: 1, hidden: self.hidden, element: self.format.into() }
    }

    /// Bytes of one row of activations.
    fn row_bytes(&self) -> usize {
        self.row_shape().payload_bytes().unwrap_or(0)
    }
}

fn chunks(config: &ClientConfig) -> ChainConfig {
    ChainConfig {
        chunk: config.prefill_chunk.min(TokenCount(MAX_STEP_ROWS)),
        least: config.least_chunk,
        window: config.window,
    }
}
