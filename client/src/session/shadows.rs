//! Servers kept beside the chain: standbys, and those that are to take the place of one that leaves.
//!
//! Both are found and opened while the session runs. A standby is fed like the hop it stands beside. Who takes a leaving
//! server's place is handed that server's KV cache; if that comes to nothing, it is fed like a standby until it has caught
//! up.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use swarm_protocol::PeerId;
use swarm_protocol::block::BlockRange;
use swarm_protocol::session::TokenCount;
use swarm_protocol::wire::{HandOver, Input, PAGE_POSITIONS, SessionRequest};
use tokio::task::JoinSet;
use tracing::{debug, info};

use super::Session;
use super::link::OpenedLink;
use super::repair::{Opener, outcome_of};
use crate::chain::HopId;
use crate::finder::{Finder, Need, Plan};

/// How soon a server is looked for again after none was found, or one did not open.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// How many positions a server that is fed may lack when it takes a leaving one's place: they are sent to it in one step.
const CLOSE_ENOUGH: u32 = 1;

/// Why a server is kept beside a hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To stand in at once if the hop fails.
    Standby,
    /// To take the place of a hop that leaves, by its KV cache.
    TakeOver,
    /// The same, by its input.
    CatchUp,
}

/// A server that was to be opened.
pub(super) struct ShadowOpened {
    hop: HopId,
    purpose: Purpose,
    /// The epoch in which it was asked what it has computed before: the session may have been truncated since, and have gone
    /// on another way.
    asked_in: u32,
    opened: Result<OpenedLink, NotOpened>,
}

/// Why no server was opened.
enum NotOpened {
    /// It takes several to do what the hop does.
    Several,
    /// There is none, or it did not open.
    Nobody,
}

#[derive(Default)]
pub(super) struct Shadows {
    pub(super) opening: JoinSet<ShadowOpened>,
    /// Hops for which a server is being opened, or was looked for a moment ago.
    looked: HashMap<HopId, Option<Instant>>,
    /// Hops whose KV cache cannot be handed over.
    by_input: HashSet<HopId>,
}

impl Shadows {
    /// Whether a server may be looked for now.
    fn may_look(&self, hop: HopId, now: Instant) -> bool {
        match self.looked.get(&hop) {
            None => true,
            Some(None) => false,
            Some(Some(again)) => *again <= now,
        }
    }
}

impl Session {
    /// Looks for servers where they are wanted, and swaps those in that have caught up.
    pub(super) fn tend_shadows(&mut self) {
        let now = Instant::now();
        let hops: Vec<(HopId, BlockRange)> = self.chain.hops().collect();
        for (hop, blocks) in hops {
            let leaving = self.links.get(&hop).is_some_and(|link| link.leave.is_some());
            let purpose = match (leaving, self.shadows.by_input.contains(&hop)) {
                (true, false) => Purpose::TakeOver,
                (true, true) => Purpose::CatchUp,
                (false, _) if self.config.standby => Purpose::Standby,
                (false, _) => continue,
            };
            if purpose == Purpose::TakeOver && self.chain.shadow_of(hop).is_none() && !self.chain.may_hand_over(hop) {
                // It may when it has computed its next step.
                continue;
            }
            match self.chain.shadow_lacks(hop) {
                Some(lacks) if leaving && lacks.0 <= CLOSE_ENOUGH && self.may_swap(hop) => self.swap(hop),
                Some(_) => {}
                None if self.shadows.may_look(hop, now) => self.look_for_shadow(hop, blocks, purpose),
                None => {}
            }
        }
    }

    fn look_for_shadow(&mut self, hop: HopId, blocks: BlockRange, purpose: Purpose) {
        self.shadows.looked.insert(hop, None);
        // A server that serves another part of the session anyway would fall together with it.
        let avoid: HashSet<PeerId> = self.links.values().map(|link| link.peer).collect();
        let mut need = Need { avoid, ..self.need(blocks) };
        if purpose == Purpose::TakeOver {
            // Keys and values of one class mean nothing to another.
            need.class = self.links.get(&hop).map(|link| link.class.clone());
            need.mixed = false;
        }
        let finder = self.finder.clone();
        // Who gets a KV cache begins with none.
        let opener = if purpose == Purpose::TakeOver { self.opener().without_recall() } else { self.opener() };
        let asked_in = self.chain.epoch();
        self.shadows.opening.spawn(async move {
            let opened = open(&finder, &opener, need).await;
            ShadowOpened { hop, purpose, asked_in, opened }
        });
    }

    pub(super) fn on_shadow_opened(&mut self, opened: ShadowOpened) {
        let ShadowOpened { hop, purpose, asked_in, opened } = opened;
        let again = Instant::now() + LOOK_AGAIN;
        let opened = match opened {
            Ok(opened) => opened,
            // Replaced like a lost one, between two steps, while it still lives.
            Err(NotOpened::Several) if purpose != Purpose::Standby => {
                return self.give_up(hop, "it is leaving".to_string());
            }
            Err(_) => {
                debug!(session = %self.id, %hop, "no other server could be opened beside a hop");
                if purpose == Purpose::TakeOver && self.config.mixed_classes {
                    self.shadows.by_input.insert(hop);
                }
                self.shadows.looked.insert(hop, Some(again));
                return;
            }
        };
        self.shadows.looked.remove(&hop);
        let Some(shadow) = self.chain.add_shadow(hop, purpose != Purpose::TakeOver) else {
            return;
        };
        info!(session = %self.id, peer = %opened.peer, blocks = %opened.blocks, ?purpose, "opened beside a hop");
        self.chain.narrow(opened.max_step_rows, opened.max_steps);
        let mut link = opened.start(shadow, self.is_first(hop), self.events_in.clone());
        self.chain.recalled(shadow, link.recalled, asked_in);
        let held = self.chain.held_by(shadow).map_or(0, TokenCount::as_usize);
        link.kept_pages = link.kept_pages.min(held / PAGE_POSITIONS as usize);
        self.links.insert(shadow, link);
        if purpose == Purpose::TakeOver {
            self.begin_hand_over(hop, shadow);
        }
    }

    fn begin_hand_over(&mut self, hop: HopId, shadow: HopId) {
        let (Some(from), Some(to)) = (self.links.get(&hop), self.links.get(&shadow)) else {
            return;
        };
        let (peer, to) = (from.peer, to.as_next(self.chain.chunk()));
        let link = self.chain.begin_hand_over(hop);
        self.ask(shadow, SessionRequest::Accept(Input::Import { peer, link }));
        self.ask(hop, SessionRequest::HandOver(HandOver { link, to }));
    }

    pub(super) fn on_handed_over(&mut self, hop: HopId, link: u32, failure: Option<String>) {
        match (self.chain.handed_over(hop, link), failure) {
            (Err(lie), _) => self.on_wrong(hop, &lie),
            (Ok(false), _) => {}
            (Ok(true), None) => self.follow(hop),
            (Ok(true), Some(reason)) => {
                info!(session = %self.id, %hop, reason, "a KV cache was not handed over; its input is replayed");
                self.shadows.by_input.insert(hop);
                if let Some(shadow) = self.chain.shadow_of(hop) {
                    self.give_up(shadow, reason);
                }
            }
        }
    }

    /// From now on the server that a KV cache was handed to gets the hop's input as well, until it takes its place.
    fn follow(&mut self, hop: HopId) {
        let Some(shadow) = self.chain.follow(hop) else {
            return;
        };
        if self.is_first(hop) {
            self.ask(shadow, SessionRequest::Accept(Input::Owner));
        }
    }

    pub(super) fn is_first(&self, hop: HopId) -> bool {
        self.chain.hops().next().is_some_and(|(first, _)| first == hop)
    }

    /// Whether a hop's shadow can go on at once.
    fn may_swap(&self, hop: HopId) -> bool {
        !self.chain.is_handing_over(hop) && !self.chain.shadow_lacks_output(hop)
    }

    /// Puts a hop's shadow in its place while the hop still lives.
    fn swap(&mut self, hop: HopId) {
        if self.chain.shadow_of(hop).is_some() {
            self.give_up(hop, "it is leaving".to_string());
        }
    }

    /// Puts the shadow of a hop that is gone in its place.
    pub(super) fn promote_shadow(&mut self, hop: HopId) {
        let first = self.is_first(hop);
        self.shadows.looked.remove(&hop);
        self.shadows.by_input.remove(&hop);
        let Some(shadow) = self.chain.promote(hop) else {
            return self.forget_dropped_shadows();
        };
        if first {
            self.ask(shadow, SessionRequest::Accept(Input::Owner));
        }
    }

    /// Ends the sessions of shadows that the chain has forgotten.
    pub(super) fn forget_dropped_shadows(&mut self) {
        let chain = &self.chain;
        self.links.retain(|hop, _| chain.held_by(*hop).is_some());
    }
}

/// Opens the one server that can do all that is needed.
async fn open(finder: &Finder, opener: &Opener, need: Need) -> Result<OpenedLink, NotOpened> {
    let plan: Plan = finder.plan(need, false).await.map_err(|_| NotOpened::Nobody)?;
    let [hop] = plan.route.hops.as_slice() else {
        return Err(NotOpened::Several);
    };
    let opened = opener.open(&plan, hop).await;
    opened.map_err(|failure| {
        finder.report(hop.peer, outcome_of(&failure));
        NotOpened::Nobody
    })
}
