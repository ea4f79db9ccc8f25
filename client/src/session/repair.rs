//! Finding servers for blocks that have none: at the start of a session for all of them, later for those of hops that
//! were lost. One mechanism for both.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use futures::future::{Either, join_all, select};
use swarm_protocol::PeerId;
use swarm_protocol::activations::packing_pays;
use swarm_protocol::block::BlockRange;
use swarm_protocol::model_id::ModelId;
use swarm_protocol::p2p::Network;
use swarm_protocol::session::{SessionId, TokenCount};
use swarm_protocol::trace_context::TraceContext;
use swarm_protocol::wire::{LinkFormat, LinkFormats, MAX_STEP_ROWS, Open, Recall, Refusal, RowsHeader};
use tracing::{debug, info, warn};

use super::cuts::Cuts;
use super::link::{self, OpenFailure, OpenedLink, Opening};
use super::{Session, SessionError};
use crate::chain::{HopId, LostSpan};
use crate::config::Wire;
use crate::finder::{Finder, Need, NoPlan, Outcome, Plan};
use crate::route::{NoRoute, RouteHop};

/// The pause before servers are looked for again; doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest such pause: a server that comes back is used within a second.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How long a session waits for a replacement before it says so.
const TELL_AFTER: Duration = Duration::from_secs(1);

/// Round trips that a server may take to open a session before the second best is asked as well: dialling takes some
/// four of them, opening one.
const HEDGE_ROUND_TRIPS: u32 = 8;

/// The least such time: a busy server may be that late.
const HEDGE_AT_LEAST: Duration = Duration::from_millis(300);

/// One attempt at a server of a planned route.
type Attempt = (PeerId, BlockRange, Result<OpenedLink, OpenFailure>);

/// Opens sessions on servers.
#[derive(Clone)]
pub(super) struct Opener {
    network: Network,
    model: ModelId,
    tokens: TokenCount,
    shape: RowsHeader,
    /// Where rows are rounded.
    cuts: Cuts,
    /// Whether rows may be packed.
    packs: bool,
    /// What each is asked whether it has computed it before.
    recall: Option<Recall>,
    /// The span that each works for.
    context: Option<TraceContext>,
    limit: Duration,
}

impl Opener {
    pub(super) fn without_recall(self) -> Self {
        Self { recall: None, ..self }
    }

    pub(super) async fn open(&self, plan: &Plan, hop: &RouteHop) -> Result<OpenedLink, OpenFailure> {
        let addresses = plan.addresses.get(&hop.peer).map_or(&[][..], Vec::as_slice);
        let request = Open {
            // One id for each opened hop: a server may serve two parts of a session, or be opened again before it
            // has noticed that an earlier hop was given up.
            session: SessionId::random(&mut rand::rng()),
            model: self.model,
            class: plan.classes.get(&hop.peer).or(plan.class.as_ref()).cloned().ok_or(OpenFailure::NoAnswer)?,
            blocks: hop.blocks,
            tokens: self.tokens,
        };
        let formats = self.formats(plan, hop);
        let (recall, context) = (self.recall.clone(), self.context);
        let opening = Opening { request, formats, recall, context, shape: self.shape };
        let opened = link::open(&self.network, hop.peer, addresses, opening, self.limit).await?;
        Ok(opened.counted(plan.present(hop.peer)))
    }

    /// The formats of a hop's links. Servers measure where packing pays; what comes back to this client from nearby does not.
    fn formats(&self, plan: &Plan, hop: &RouteHop) -> LinkFormats {
        let formats = self.cuts.formats(hop.blocks);
        if !self.packs {
            return formats;
        }
        let last = plan.route.hops.last().is_some_and(|last| last == hop);
        let near = last && !packing_pays(self.shape.element.row_bytes(self.shape.hidden as usize), plan.route.back * 2);
        let packed = |format| if format == LinkFormat::Exact { LinkFormat::Packed } else { format };
        LinkFormats { input: packed(formats.input), output: if near { formats.output } else { packed(formats.output) } }
    }

    /// Opens `hop`; if it is slow to answer, the best other server of the same blocks as well. Who opens first is taken.
    async fn open_hedged(&self, finder: &Finder, plan: &Plan, hop: &RouteHop, need: Need) -> Attempt {
        let patience = (hop.cost.link * 2 * HEDGE_ROUND_TRIPS).max(HEDGE_AT_LEAST);
        let first = Box::pin(self.open(plan, hop));
        let second = Box::pin(async {
            tokio::time::sleep(patience).await;
            let other = finder.plan(need, false).await.ok();
            match other.as_ref().map(|plan| (plan, plan.route.hops.as_slice())) {
                Some((plan, [other])) => (other.peer, self.open(plan, other).await),
                _ => std::future::pending().await,
            }
        });
        match select(first, second).await {
            Either::Left((opened, _)) => (hop.peer, hop.blocks, opened),
            Either::Right(((peer, Ok(opened)), _)) => {
                debug!(slow = %hop.peer, %peer, "the second best server was quicker to open");
                (peer, hop.blocks, Ok(opened))
            }
            Either::Right(((peer, Err(failure)), first)) => {
                finder.report(peer, outcome_of(&failure));
                (hop.peer, hop.blocks, first.await)
            }
        }
    }
}

impl Session {
    /// Opens hops for everything that has none.
    ///
    /// # Errors
    /// [`SessionError`] if no servers are found within the configured patience, or too many fail.
    pub(super) async fn repair(&mut self) -> Result<(), SessionError> {
        let (start, mut told) = (Instant::now(), false);
        let patience = if self.started { self.config.repair_patience } else { self.config.start_patience };
        let (mut pause, mut last) =
            (FIRST_PAUSE, self.losses.last().map(|(peer, reason, _)| format!("{peer}: {reason}")));
        while let Some(span) = self.chain.lost().into_iter().next() {
            if self.setbacks > self.config.most_repairs {
                let last = last.unwrap_or_default();
                return Err(SessionError::GaveUp { range: span.range, attempts: self.setbacks, last });
            }
            if !self.started && self.links.is_empty() {
                // Nothing stands of the route before.
                self.cuts.forget();
            }
            match self.plan(span.range).await {
                Ok(plan) => last = self.open_route(&span, plan).await.or(last),
                // Nothing has been computed: servers of another class may have what this one lacks.
                Err(_) if !self.started && self.class.is_some() => self.begin_again(),
                Err(reason) if start.elapsed() >= patience => return Err(self.gave_up(span.range, last, reason)),
                Err(reason) => {
                    if self.started && !told && start.elapsed() >= TELL_AFTER {
                        told = true;
                        warn!("no server of blocks {} can be used now; waiting up to {patience:?} for one", span.range);
                    }
                    debug!(session = %self.id, %reason, "no replacement yet");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
            // Others may have been lost meanwhile: they are mended together, where they are neighbours.
            self.catch_up();
        }
        Ok(())
    }

    /// A route over `range` with a hop's end at each of the session's cuts.
    fn plan(&self, range: BlockRange) -> impl Future<Output = Result<Plan, NoPlan>> + use<> {
        let needs: Vec<Need> = self.cuts.parts(range).into_iter().map(|part| self.need(part)).collect();
        let (finder, fresh) = (self.finder.clone(), !self.started);
        async move {
            let mut plan: Option<Plan> = None;
            for mut need in needs {
                if let Some(before) = plan.as_ref().filter(|_| need.class.is_none() && !need.mixed) {
                    need.class.clone_from(&before.class);
                }
                let next = finder.plan(need, fresh).await?;
                plan = Some(match plan {
                    Some(before) => before.followed_by(next),
                    None => next,
                });
            }
            plan.ok_or_else(|| NoRoute { missing: vec![range] }.into())
        }
    }

    /// Lets go of every hop, and of the class and digests that they have fixed.
    fn begin_again(&mut self) {
        let hops: Vec<_> = self.chain.hops().map(|(hop, _)| hop).collect();
        for hop in hops {
            self.chain.fail(hop);
            self.links.remove(&hop);
        }
        self.class = None;
        self.digests.clear();
    }

    /// What a server said when it was tried says more than the hole it leaves in the next plan.
    fn gave_up(&self, range: BlockRange, last: Option<String>, reason: NoPlan) -> SessionError {
        match last {
            Some(last) if !self.started => SessionError::GaveUp { range, attempts: self.setbacks.max(1), last },
            _ => reason.into(),
        }
    }

    pub(super) fn need(&self, range: BlockRange) -> Need {
        Need {
            range,
            tokens: self.tokens,
            class: self.class.clone(),
            mixed: self.config.mixed_classes,
            digests: self.digests.clone(),
            avoid: HashSet::new(),
            expected: self.expected(),
        }
    }

    pub(super) fn opener(&self) -> Opener {
        Opener {
            network: self.network.clone(),
            model: self.model,
            tokens: self.tokens,
            shape: RowsHeader { rows: MAX_STEP_ROWS, ..self.row_shape() },
            cuts: self.cuts.clone(),
            packs: self.config.wire == Wire::Auto,
            recall: self.recall(),
            context: self.context,
            limit: self.config.open_timeout,
        }
    }

    /// Opens the planned hops at once and puts them into the chain. Says what went wrong, if anything did: the hops that
    /// did not open are lost again at once, those that did are kept.
    async fn open_route(&mut self, span: &LostSpan, plan: Plan) -> Option<String> {
        self.cuts.follow(plan.route.hops.iter().map(|hop| hop.blocks));
        if !self.started && self.links.is_empty() {
            self.planned = Some(plan.route.clone());
        }
        let recall = self.recall();
        let attempts = self.open_all(&plan).await;
        for (_, blocks, _) in attempts.iter().filter(|(_, _, opened)| opened.is_ok()) {
            if !self.started && self.class.is_none() {
                self.class.clone_from(&plan.class);
            } else if self.class != plan.class && self.class.take().is_some() {
                warn!(session = %self.id, "servers of several numeric classes go on with this text: it may differ from now on");
            }
            self.digests.extend(plan.digests.iter().filter(|(block, _)| blocks.contains(**block)));
        }
        let blocks: Vec<BlockRange> = attempts.iter().map(|(_, blocks, _)| *blocks).collect();
        let hops = match self.chain.replace(span, &blocks) {
            Ok(hops) => hops,
            Err(error) => return Some(error.to_string()),
        };
        let mut failure = None;
        for (hop, (peer, blocks, opened)) in hops.into_iter().zip(attempts) {
            match opened {
                Ok(opened) => {
                    self.finder.report(peer, Outcome::Opened);
                    self.chain.narrow(opened.max_step_rows, opened.max_steps);
                    let link = opened.start(hop, self.is_first(hop), self.events_in.clone());
                    self.chain.recalled(hop, link.recalled, self.chain.epoch());
                    if let Some(recall) = recall.as_ref().filter(|_| link.recalled == TokenCount(0)) {
                        self.finder.report_forgotten(peer, recall.keys.clone());
                    }
                    self.links.insert(hop, link);
                }
                Err(reason) => {
                    info!(session = %self.id, %peer, %blocks, %reason, "a server did not open the session");
                    self.finder.report(peer, outcome_of(&reason));
                    self.chain.fail(hop);
                    self.setbacks += 1;
                    failure = Some(format!("{peer}: {reason}"));
                }
            }
        }
        self.take_detours(&plan.apart);
        failure
    }

    /// Hops whose servers could not reach one another a while ago do not try it again; nor does a server dial itself.
    fn take_detours(&mut self, apart: &HashSet<(PeerId, PeerId)>) {
        let peer = |hop| self.links.get(&hop).map(|link| link.peer);
        let hops: Vec<(HopId, Option<PeerId>)> = self.chain.hops().map(|(hop, _)| (hop, peer(hop))).collect();
        for pair in hops.windows(2) {
            if let [(hop, Some(from)), (next, Some(to))] = *pair
                && (from == to || apart.contains(&(from, to)))
            {
                self.chain.take_detour(hop, next);
            }
        }
    }

    /// The future holds nothing of the session, which threads cannot share: so a session can move between them.
    fn open_all<'a>(&self, plan: &'a Plan) -> impl Future<Output = Vec<Attempt>> + use<'a> {
        let planned: HashSet<PeerId> = plan.route.hops.iter().map(|hop| hop.peer).collect();
        // The other server holds the same weights and computes the same bits.
        let need = |blocks| Need {
            class: plan.class.clone(),
            digests: plan.digests.clone(),
            avoid: planned.clone(),
            ..self.need(blocks)
        };
        let needs: Vec<Need> = plan.route.hops.iter().map(|hop| need(hop.blocks)).collect();
        let (opener, finder) = (self.opener(), self.finder.clone());
        async move {
            let hops = plan.route.hops.iter().zip(needs);
            join_all(hops.map(|(hop, need)| opener.open_hedged(&finder, plan, hop, need))).await
        }
    }
}

pub(super) fn outcome_of(failure: &OpenFailure) -> Outcome {
    match failure {
        OpenFailure::Refused(Refusal::Leaving) => Outcome::Leaving,
        OpenFailure::Refused(refusal) => match (refusal, refusal.retry_after_ms()) {
            (Refusal::NoRoom { free, .. }, Some(after)) => {
                Outcome::Full { retry_after: Duration::from_millis(after), free: *free }
            }
            (_, Some(after)) => Outcome::Full { retry_after: Duration::from_millis(after), free: TokenCount(0) },
            (Refusal::TooLong { most }, None) => Outcome::Full { retry_after: Duration::ZERO, free: *most },
            (refusal, None) => Outcome::Failed { reason: refusal.to_string() },
        },
        other => Outcome::Failed { reason: other.to_string() },
    }
}
