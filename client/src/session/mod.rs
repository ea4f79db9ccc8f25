//! A session on a chain of servers: what [`crate::chain`] says is to be done, done.

mod error;
mod link;
mod recorder;
mod repair;
mod rows;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use swarm_protocol::PeerId;
use swarm_protocol::block::{BlockIndex, BlockRange};
use swarm_protocol::model_id::{BlockDigest, ModelId, NumericClass, WeightFormat};
use swarm_protocol::p2p::Network;
use swarm_protocol::session::{SessionId, TokenCount};
use swarm_protocol::wire::{self, CloseReason, MAX_STEP_ROWS, RowsHeader, SessionReply, Step, StepOutput};
use tokio::sync::mpsc;
use tokio::time::Instant as TokioInstant;
use tracing::{debug, info};

pub use error::SessionError;
pub use link::OpenFailure;
pub use rows::ActivationRows;

use self::link::{Arrival, Flight, Link, LinkEvent};
use self::recorder::Recorder;
use crate::chain::{Chain, ChainConfig, Completed, HopId, Input, OutputRows, Outputs, Rows, Work};
use crate::config::ClientConfig;
use crate::edges::EdgesWorker;
use crate::finder::{Finder, Outcome};
use crate::trace::TraceRecord;

/// Events of all hops waiting for the session: a window of answers and pongs from each of a long chain.
const EVENTS: usize = 256;

/// How often hops with work are pinged and checked for silence.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// The slowest link a session puts up with, in bytes per second: a hop may be silent for as long as its input takes to
/// arrive at this rate.
const SLOWEST_LINK: f64 = 64.0 * 1024.0;

/// How often a replacement is looked for while a leaving hop has none.
const LEAVE_RETRY: Duration = Duration::from_secs(2);

/// One hop of a session as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HopInfo {
    /// The server.
    pub peer: PeerId,
    /// The blocks it computes in this session.
    pub blocks: BlockRange,
}

/// What happened to a session's route since it was last asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteEvent {
    /// A hop was lost; its blocks have been given to others, and what it knew has been rebuilt.
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
    pub(crate) edges: EdgesWorker,
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
    edges: EdgesWorker,
    tokens: TokenCount,
    /// Fixed by the first servers: replacements must give the same bits.
    class: Option<NumericClass>,
    digests: BTreeMap<BlockIndex, BlockDigest>,
    chain: Chain<ActivationRows>,
    /// The token ids of a chain of tokens: the input of its first hop.
    ids: Vec<u32>,
    links: HashMap<HopId, Link>,
    events_in: link::Events,
    events: mpsc::Receiver<Arrival>,
    epoch: u32,
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
}

impl Session {
    /// A session whose input is token ids, over all of the model's `blocks`.
    pub(crate) async fn of_tokens(parts: SessionParts, blocks: BlockRange) -> Result<Self, SessionError> {
        let chain = Chain::of_tokens(blocks, &[blocks], chunks(&parts.config));
        Self::open(parts, chain).await
    }

    /// A session whose input is rows of activations, over any of the model's blocks.
    pub(crate) async fn of_rows(parts: SessionParts, blocks: BlockRange) -> Result<Self, SessionError> {
        let chain = Chain::of_rows(blocks, &[blocks], chunks(&parts.config));
        Self::open(parts, chain).await
    }

    async fn open(
        parts: SessionParts,
        chain: Result<Chain<ActivationRows>, crate::chain::BadHops>,
    ) -> Result<Self, SessionError> {
        // One hop over the whole range always tiles it.
        let mut chain = chain.map_err(|_| SessionError::Stopped)?;
        // The chain begins with one hop that nobody has opened: a loss like any other.
        let unopened: Vec<HopId> = chain.hops().map(|(hop, _)| hop).collect();
        unopened.into_iter().for_each(|hop| {
            chain.fail(hop);
        });
        let (events_in, events) = mpsc::channel(EVENTS);
        let mut session = Self {
            id: parts.id,
            network: parts.network,
            finder: parts.finder,
            config: parts.config,
            model: parts.model,
            hidden: parts.hidden,
            format: parts.format,
            edges: parts.edges,
            tokens: parts.tokens,
            class: None,
            digests: BTreeMap::new(),
            chain,
            ids: Vec::new(),
            links: HashMap::new(),
            events_in,
            events,
            epoch: 0,
            started: false,
            settled: true,
            setbacks: 0,
            losses: Vec::new(),
            news: VecDeque::new(),
            recorder: Recorder::off(),
        };
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

    /// Rows kept on this client so that a lost hop can be replayed.
    pub fn history_rows(&self) -> usize {
        self.chain.history_rows()
    }

    /// The hops in order.
    pub fn route(&self) -> Vec<HopInfo> {
        let info = |(hop, blocks)| self.links.get(&hop).map(|link| HopInfo { peer: link.peer, blocks });
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

    /// Forgets every position from `position` on, here and on the hops.
    pub fn truncate(&mut self, position: TokenCount) {
        self.epoch = self.epoch.wrapping_add(1);
        self.chain.truncate(position);
        self.ids.truncate(position.as_usize());
    }

    /// Feeds token ids; gives the last hop's outputs that were asked for.
    ///
    /// # Errors
    /// [`SessionError`] if they do not fit the reservation, or no servers are to be had.
    pub async fn feed_tokens(&mut self, ids: &[u32], outputs: Outputs) -> Result<Option<ActivationRows>, SessionError> {
        self.check_room(ids.len())?;
        self.chain.extend_tokens(TokenCount(ids.len() as u32), outputs)?;
        self.ids.extend_from_slice(ids);
        self.settle().await
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

    /// Works until every hop has everything.
    async fn settle(&mut self) -> Result<Option<ActivationRows>, SessionError> {
        let mut outputs: Option<ActivationRows> = None;
        if !std::mem::replace(&mut self.settled, false) {
            self.chain.abandon_unanswered();
        }
        // What the hops said since the last step: some may be gone, or leaving.
        while let Ok(arrival) = self.events.try_recv() {
            self.on_arrival(arrival, &mut outputs);
        }
        self.leave_leaving_hops().await;
        let mut check = TokioInstant::now() + CHECK_INTERVAL;
        loop {
            self.mend().await?;
            while let Some(work) = self.chain.next_work() {
                self.send(work).await?;
            }
            if self.chain.is_idle() {
                self.settled = true;
                return Ok(outputs);
            }
            tokio::select! {
                Some(arrival) = self.events.recv() => self.on_arrival(arrival, &mut outputs),
                () = tokio::time::sleep_until(check) => {
                    self.check_hops();
                    check = TokioInstant::now() + CHECK_INTERVAL;
                }
            }
        }
    }

    /// Replaces what is lost, and tells the news.
    async fn mend(&mut self) -> Result<(), SessionError> {
        if self.chain.lost().is_empty() {
            return Ok(());
        }
        self.epoch = self.epoch.wrapping_add(1);
        self.repair().await?;
        // Nobody listened to the other hops meanwhile.
        let now = Instant::now();
        self.links.values_mut().for_each(|link| link.heard = now);
        for (lost, reason, noticed) in std::mem::take(&mut self.losses) {
            let took = noticed.elapsed();
            self.recorder.rerouted(lost, &reason, took);
            self.news.push_back(RouteEvent::Rerouted { lost, reason, took });
        }
        let route = self.route();
        info!(session = %self.id, hops = route.len(), "route opened");
        self.recorder.routed(&route);
        self.news.push_back(RouteEvent::Route(route));
        Ok(())
    }

    /// A hop that says it will be gone is replaced between two steps, while it still lives, if it can be.
    async fn leave_leaving_hops(&mut self) {
        let now = Instant::now();
        let due = self.links.iter_mut().filter(|(_, link)| link.leave.is_some_and(|at| at <= now));
        let leaving: Vec<(HopId, PeerId, BlockRange)> = due
            .map(|(hop, link)| {
                link.leave = Some(now + LEAVE_RETRY);
                (*hop, link.peer, link.blocks)
            })
            .collect();
        for (hop, peer, blocks) in leaving {
            if self.replaceable(blocks).await {
                self.give_up(hop, "it is leaving".to_string());
            } else {
                debug!(%peer, %blocks, "a leaving hop has no replacement yet; going on with it");
            }
        }
    }

    async fn replaceable(&self, blocks: BlockRange) -> bool {
        let need = crate::finder::Need {
            range: blocks,
            tokens: self.tokens,
            class: self.class.clone(),
            digests: self.digests.clone(),
        };
        self.finder.plan(need, false).await.is_ok()
    }

    async fn send(&mut self, work: Work<ActivationRows>) -> Result<(), SessionError> {
        let (from, count) = (work.from.as_usize(), work.rows.as_usize());
        let rows = match work.input {
            Input::Rows(rows) => rows,
            Input::Tokens => {
                let ids = self.ids[from..from + count].to_vec();
                let began = Instant::now();
                let rows = self.edges.embed(ids).await?;
                self.recorder.step_sent(work.from.0, work.rows.0, began);
                rows
            }
        };
        let (header, payload) = (rows.header(), rows.into_bytes());
        let flight = Flight {
            work: work.id,
            epoch: self.epoch,
            position: work.from.0,
            rows: work.rows.0,
            bytes: payload.len(),
            sent: Instant::now(),
        };
        let step = Step { epoch: self.epoch, position: work.from.0, rows: header, output: on_wire(work.output) };
        let sent = self.links.get_mut(&work.hop).is_some_and(|link| link.step(step, payload, flight));
        if !sent {
            self.lose(work.hop, "its stream takes no more".to_string());
        }
        Ok(())
    }

    fn on_arrival(&mut self, arrival: Arrival, outputs: &mut Option<ActivationRows>) {
        let Arrival { hop, event, at } = arrival;
        let Some(link) = self.links.get_mut(&hop) else {
            return;
        };
        link.heard = link.heard.max(at);
        match event {
            LinkEvent::Broken(reason) => self.lose(hop, reason),
            LinkEvent::Closed(reason) => self.on_closed(hop, &reason),
            LinkEvent::Reply(SessionReply::Output(output), payload) => {
                self.on_output(hop, (output, at), payload, outputs);
            }
            LinkEvent::Reply(SessionReply::Failed { error, .. }, _) => self.on_failed(hop, error),
            LinkEvent::Reply(SessionReply::Leaving { .. }, _) => {
                link.leave.get_or_insert(at);
                self.finder.report(link.peer, Outcome::Leaving);
            }
            LinkEvent::Reply(SessionReply::Pong { .. }, _) => {}
            LinkEvent::Reply(_, _) => self.lose(hop, "it broke the session's protocol".to_string()),
        }
    }

    /// A hop that ends an idle session, or leaves, has done nothing wrong.
    fn on_closed(&mut self, hop: HopId, reason: &CloseReason) {
        match reason {
            CloseReason::Idle => self.give_up(hop, reason.to_string()),
            CloseReason::Left => {
                if let Some(link) = self.links.get(&hop) {
                    self.finder.report(link.peer, Outcome::Leaving);
                }
                self.give_up(hop, reason.to_string());
            }
            CloseReason::Protocol(_) => self.lose(hop, reason.to_string()),
        }
    }

    fn on_output(
        &mut self,
        hop: HopId,
        (output, at): (StepOutput, Instant),
        payload: Vec<u8>,
        outputs: &mut Option<ActivationRows>,
    ) {
        let Some(link) = self.links.get_mut(&hop) else {
            return;
        };
        let answered = |flight: &Flight| (flight.epoch, flight.position) == (output.epoch, output.position);
        let Some(flight) = link.flights.pop_front().filter(answered) else {
            self.lose(hop, "it answered a step it was not given".to_string());
            return;
        };
        self.recorder.hop_answered(link, &flight, &output, at);
        let measured = measured(link, flight, output, at);
        let peer = link.peer;
        if let Some(outcome) = measured {
            self.finder.report(peer, outcome);
        }
        let rows = match self.rows_of(output.rows, payload) {
            Ok(rows) => rows,
            Err(reason) => {
                self.lose(hop, reason);
                return;
            }
        };
        match self.chain.complete(flight.work, rows) {
            Ok(Completed::Output { rows, .. }) => {
                self.setbacks = 0;
                self.recorder.output_arrived(flight.position, at);
                match outputs {
                    Some(outputs) => outputs.append(rows),
                    None => *outputs = Some(rows),
                }
            }
            Ok(Completed::Advanced | Completed::Stale) => {}
            Err(error) => self.lose(hop, error.to_string()),
        }
    }

    fn rows_of(&self, header: RowsHeader, payload: Vec<u8>) -> Result<Option<ActivationRows>, String> {
        if header.rows == 0 {
            return Ok(None);
        }
        let rows = ActivationRows::of_answer(header, self.hidden, self.format.into(), payload);
        rows.map(Some).ok_or_else(|| "it answered with rows of another shape".to_string())
    }

    fn on_failed(&mut self, hop: HopId, error: wire::StepError) {
        let flight = self.links.get_mut(&hop).and_then(|link| link.flights.pop_front());
        match (flight, error) {
            // Its KV is shorter than thought: feed it what is missing.
            (Some(flight), wire::StepError::Gap { have }) if have < flight.position => {
                self.chain.fell_back(flight.work, TokenCount(have));
            }
            (_, error) => self.lose(hop, error.to_string()),
        }
    }

    /// Pings the hops that owe an answer, and gives up those that are silent or stuck.
    fn check_hops(&mut self) {
        let now = Instant::now();
        let mut gone = Vec::new();
        for (hop, link) in &self.links {
            let Some(oldest) = link.flights.front() else {
                continue;
            };
            let bytes: usize = link.flights.iter().map(|flight| flight.bytes).sum();
            let transfer = Duration::from_secs_f64(bytes as f64 / SLOWEST_LINK);
            let silent = now.saturating_duration_since(link.heard.max(oldest.sent));
            if silent > self.config.silence_timeout + transfer {
                gone.push((*hop, format!("silent for {:.1} s", silent.as_secs_f64())));
            } else if now.saturating_duration_since(oldest.sent) > self.config.step_timeout + transfer {
                gone.push((*hop, format!("no answer to a step within {:?}", self.config.step_timeout)));
            } else {
                link.ping();
            }
        }
        for (hop, reason) in gone {
            self.lose(hop, reason);
        }
    }

    /// A hop failed: its server is avoided for a while.
    fn lose(&mut self, hop: HopId, reason: String) {
        self.setbacks += 1;
        if let Some(link) = self.links.get(&hop) {
            self.finder.report(link.peer, Outcome::Failed { reason: reason.clone() });
        }
        self.give_up(hop, reason);
    }

    fn give_up(&mut self, hop: HopId, reason: String) {
        self.chain.fail(hop);
        if let Some(link) = self.links.remove(&hop) {
            info!(session = %self.id, peer = %link.peer, blocks = %link.blocks, reason, "hop lost");
            self.losses.push((link.peer, reason, Instant::now()));
        }
    }

    /// The largest payload an honest hop sends.
    fn payload_limit(&self) -> usize {
        let header = RowsHeader { rows: MAX_STEP_ROWS, hidden: self.hidden, element: self.format.into() };
        header.payload_bytes().unwrap_or(0)
    }
}

fn chunks(config: &ClientConfig) -> ChainConfig {
    ChainConfig { chunk: config.prefill_chunk.min(TokenCount(MAX_STEP_ROWS)), window: config.window }
}

fn on_wire(output: OutputRows) -> wire::OutputRows {
    match output {
        OutputRows::All => wire::OutputRows::All,
        OutputRows::Last => wire::OutputRows::Last,
        OutputRows::None => wire::OutputRows::None,
    }
}

/// What a decode step says about its hop; longer steps say nothing about decoding, nor do steps that waited behind others.
fn measured(link: &Link, flight: Flight, output: StepOutput, at: Instant) -> Option<Outcome> {
    if flight.rows != 1 || !link.flights.is_empty() {
        return None;
    }
    let there = Duration::from_micros(u64::from(output.queue_us) + u64::from(output.compute_us));
    let compute = Duration::from_micros(output.compute_us.into());
    let rtt = at.saturating_duration_since(flight.sent).saturating_sub(there);
    Some(Outcome::Stepped { block_time: compute / link.blocks.len(), rtt })
}
