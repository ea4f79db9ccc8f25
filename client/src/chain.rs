//! What a session does next: hops, how they are joined, and how losses are mended.
//!
//! The client feeds the first hop; each hop feeds the next one by itself, and keeps its outputs for as long as the session
//! lives. So whatever is to be mended is mended the same way: *some hop's KV is shorter than what the hop before it holds:
//! join the two again at that position*. A replay, a replacement by several servers, the beginning of a session and what
//! follows a truncation are all that. A driver does what [`Chain::next_order`] says, reports what came of it, and opens hops
//! for what [`Chain::lost`] names. Pure state: no clock, no IO.

mod cutbacks;
mod error;
mod hop;
mod late;
mod order;
mod relay;
mod repair;
mod shadow;
mod source;
#[cfg(test)]
mod tests;
mod wanted;

use std::collections::VecDeque;

use swarm_protocol::activations::Rows;
use swarm_protocol::block::BlockRange;
use swarm_protocol::session::TokenCount;
use swarm_protocol::wire::{Lane, StepDone, StepOutput};

pub use error::{BadHops, ChainError, StaleSpan};
pub use late::Late;
pub use order::{Came, HopId, Input, Order, Outputs, Target, Work};
pub use repair::{LostSpan, Unlinked};

use cutbacks::Cutbacks;
use hop::{Flight, Hop, Joint};
use relay::Relayed;
use source::Source;
use wanted::Wanted;

/// How much work is cut off at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainConfig {
    /// The most rows of one step: what a server takes at once, at least 1.
    pub chunk: TokenCount,
    /// The least rows of a step at the beginning and end of a long input, if there are several hops.
    pub least: TokenCount,
    /// How many steps the first hop may have unanswered, at least 1: with several the next chunk is already there when it
    /// has computed the one before, however long the way.
    pub window: usize,
}

/// The pure state of one session. `R` is what a row of activations is: bytes, or in a simulator their hash.
#[derive(Debug, Clone)]
pub struct Chain<R> {
    config: ChainConfig,
    hops: Vec<Hop>,
    /// The input of the first hop.
    source: Source<R>,
    /// Rows that came from hops which cannot bring them to the next one, in the order in which they came: never more than
    /// there are positions, for each hop.
    relaying: VecDeque<Relayed<R>>,
    wanted: Wanted,
    /// Counts truncations: what is said of an earlier epoch is void.
    epoch: u32,
    cutbacks: Cutbacks,
    next_hop: u64,
    next_link: u32,
}

impl<R: Rows> Chain<R> {
    /// A chain whose first input is made of token ids: it is kept as a count, and the driver embeds the tokens anew
    /// whenever it is told to feed them.
    ///
    /// # Errors
    /// [`BadHops`] if the hops do not tile `range`.
    pub fn of_tokens(range: BlockRange, hops: &[BlockRange], config: ChainConfig) -> Result<Self, BadHops> {
        Self::new(range, hops, config, Source::Tokens(0))
    }

    /// A chain whose first input is rows of activations, which are kept.
    ///
    /// # Errors
    /// [`BadHops`] if the hops do not tile `range`.
    pub fn of_rows(range: BlockRange, hops: &[BlockRange], config: ChainConfig) -> Result<Self, BadHops> {
        Self::new(range, hops, config, Source::rows())
    }

    fn new(range: BlockRange, hops: &[BlockRange], config: ChainConfig, source: Source<R>) -> Result<Self, BadHops> {
        BadHops::check(range, hops)?;
        let least = |count: TokenCount| count.max(TokenCount(1));
        let config =
            ChainConfig { chunk: least(config.chunk), least: least(config.least), window: config.window.max(1) };
        let mut chain = Self {
            config,
            hops: vec![],
            source,
            relaying: VecDeque::new(),
            wanted: Wanted::default(),
            epoch: 0,
            cutbacks: Cutbacks::default(),
            next_hop: 0,
            next_link: 0,
        };
        chain.hops = hops.iter().map(|&blocks| chain.fresh_hop(blocks)).collect();
        Ok(chain)
    }

    /// Cuts work off after `rows` rows, and has at most `steps` unanswered, from now on, if that is less than before: a
    /// server takes no more.
    pub fn narrow(&mut self, rows: TokenCount, steps: usize) {
        self.config.chunk = self.config.chunk.min(rows).max(TokenCount(1));
        self.config.window = self.config.window.min(steps).max(1);
    }

    /// The most rows of one step.
    pub fn chunk(&self) -> TokenCount {
        self.config.chunk
    }

    fn fresh_hop(&mut self, blocks: BlockRange) -> Hop {
        self.next_hop += 1;
        Hop::new(HopId(self.next_hop), blocks)
    }

    fn fresh_link(&mut self) -> u32 {
        self.next_link += 1;
        self.next_link
    }

    /// The hops in order: who computes which blocks. Those that are kept beside the chain are not among them.
    pub fn hops(&self) -> impl ExactSizeIterator<Item = (HopId, BlockRange)> {
        self.hops.iter().map(|hop| (hop.id, hop.blocks))
    }

    /// How many positions the input has.
    pub fn position(&self) -> TokenCount {
        count(self.source.len())
    }

    /// The positions that a hop, or one kept beside the chain, is known to hold.
    pub fn held_by(&self, hop: HopId) -> Option<TokenCount> {
        self.find(hop).map(|hop| count(hop.kv))
    }

    /// How many rows a hop was sent by this client and has not computed yet.
    pub fn unanswered_rows(&self, hop: HopId) -> usize {
        let flights = self.find(hop).map(|hop| hop.flights.iter().chain(&hop.relayed));
        flights.map_or(0, |flights| flights.map(|flight| flight.rows).sum())
    }

    /// Which truncations have happened.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// How many rows are kept here, so that they can be sent again.
    pub fn kept_rows(&self) -> usize {
        self.source.kept_rows()
    }

    /// Whether nothing is left to wait for: every output that was wanted has come; if none was, every hop holds everything.
    pub fn is_settled(&self) -> bool {
        self.wanted.is_satisfied() && (self.wanted.had_any() || self.is_whole())
    }

    /// The positions below are not waited for by the user: their outputs are not wanted, or were handed out.
    pub fn not_wanted(&self) -> TokenCount {
        count(self.wanted.next().min(self.source.len()))
    }

    /// Whether every hop is known to hold every position.
    pub fn is_whole(&self) -> bool {
        let length = self.source.len();
        self.hops.iter().all(|hop| !hop.lost && hop.kv >= length)
    }

    /// The first hop that holds less than the one before it: whom everybody waits for. If there is none, the last one,
    /// as long as it owes its output.
    pub fn waited_for(&self) -> Option<HopId> {
        let mut before = self.source.len();
        for hop in &self.hops {
            if hop.kv < before {
                return (!hop.lost).then_some(hop.id);
            }
            before = hop.kv;
        }
        self.hops.last().filter(|last| !last.lost && !self.wanted.is_satisfied()).map(|last| last.id)
    }

    /// The links that hops feed by themselves: each hop that does, and its link's number.
    pub fn direct_links(&self) -> impl Iterator<Item = (HopId, u32)> {
        let direct = |joint: &Joint| matches!(joint.target, Target::Hop { relayed: false, .. });
        self.hops.iter().filter_map(move |hop| Some((hop.id, hop.joint.filter(direct)?.link)))
    }

    /// There are `tokens` more token ids.
    ///
    /// # Errors
    /// [`ChainError::WrongInput`] on a chain of rows.
    pub fn extend_tokens(&mut self, tokens: TokenCount, outputs: Outputs) -> Result<(), ChainError> {
        let from = self.source.len();
        self.source.add_tokens(tokens.as_usize()).ok_or(ChainError::WrongInput)?;
        self.wanted.set(from..self.source.len(), outputs);
        Ok(())
    }

    /// There are more rows of input.
    ///
    /// # Errors
    /// [`ChainError::WrongInput`] on a chain of token ids.
    pub fn extend_rows(&mut self, rows: R, outputs: Outputs) -> Result<(), ChainError> {
        let from = self.source.len();
        self.source.add_rows(rows).ok_or(ChainError::WrongInput)?;
        self.wanted.set(from..self.source.len(), outputs);
        Ok(())
    }

    /// The next thing to do; `None` while everything is done, or waits for an answer or a replacement. Call it until it
    /// says `None`.
    pub fn next_order(&mut self) -> Option<Order<R>> {
        self.next_join().or_else(|| self.next_feed()).or_else(|| self.next_relay())
    }

    fn next_join(&mut self) -> Option<Order<R>> {
        (0..self.hops.len()).find_map(|index| self.join_of(index).or_else(|| self.mirror_of(index)))
    }

    /// How a hop is joined to what follows it, if it is not (any more).
    fn join_of(&mut self, index: usize) -> Option<Order<R>> {
        let hop = &self.hops[index];
        let next = self.hops.get(index + 1);
        if hop.lost || next.is_some_and(|next| next.lost) {
            return None;
        }
        let target = next.map_or(Target::Owner, |next| Target::Hop { id: next.id, relayed: hop.relays_to(next.id) });
        if hop.joint.is_some_and(|joint| joint.target == target) {
            return None;
        }
        let position = next.map_or_else(|| self.wanted.next(), |next| next.kv);
        // Who was a mirror's other end keeps its link, and goes on where it is.
        let standing = hop.mirror.filter(|mirror| mirror.target == target).map(|mirror| mirror.link);
        let link = standing.unwrap_or_else(|| self.fresh_link());
        self.forget_relayed(target);
        let hop = &mut self.hops[index];
        hop.joint = Some(Joint::new(link, target, position));
        if standing.is_some() {
            hop.mirror = None;
        }
        Some(Order::Join { link, lane: Lane::Main, from: hop.id, to: target, position: count(position) })
    }

    /// The next rows for the first hop, or for the one that is kept like it.
    fn next_feed(&mut self) -> Option<Order<R>> {
        let first = self.hops.first()?;
        let shadow = first.shadow.as_ref().filter(|shadow| shadow.mirrored).map(|shadow| shadow.id);
        let ids = [Some(first.id), shadow];
        ids.into_iter().flatten().find_map(|id| self.feed(id))
    }

    fn feed(&mut self, id: HopId) -> Option<Order<R>> {
        let (config, epoch, length, wanted) = (self.config, self.epoch, self.source.len(), self.wanted.from());
        let hop = self.find(id)?;
        let from = hop.sent();
        let rows = self.cut(length.saturating_sub(from), hop.in_flight());
        if hop.lost || hop.failing || rows == 0 || hop.flights.len() >= config.window {
            return None;
        }
        let input = self.source.slice(from, rows)?;
        self.find_mut(id)?.flights.push_back(Flight { epoch, from, rows });
        let (from, rows, wanted_from) = (count(from), count(rows), count(wanted));
        Some(Order::Feed(Work { hop: id, epoch, from, rows, wanted_from, input }))
    }

    /// How many of the `left` rows go into the next step, while `in_flight` are under way. Several hops work at once only
    /// when the first rows have come to the last one, and when the last rows have left the first: so steps are small at
    /// both ends of a prompt.
    fn cut(&self, left: usize, in_flight: usize) -> usize {
        let whole = self.config.chunk.as_usize();
        if self.hops.len() == 1 {
            return left.min(whole);
        }
        let least = self.config.least.as_usize();
        left.min(whole).min(in_flight.min(left.div_ceil(2)).max(least))
    }

    /// A hop has computed a step.
    ///
    /// # Errors
    /// [`ChainError`] if that cannot be: the server breaks the protocol; give the hop up with [`Chain::fail`].
    pub fn done(&mut self, id: HopId, done: &StepDone) -> Result<Came<R>, ChainError> {
        let (epoch, length) = (self.epoch, self.source.len());
        let fed = self.is_fed(id);
        let Some(hop) = self.find_mut(id).filter(|hop| !hop.lost && done.epoch >= epoch) else {
            return Ok(Came::Stale);
        };
        let end = done.position as usize + done.rows as usize;
        if done.rows == 0 || end > length || (fed && !hop.answered(done)) {
            return Err(ChainError::OutOfOrder { hop: id });
        }
        hop.kv = end;
        hop.epoch = done.epoch;
        hop.took_in(end);
        self.forgive_joint_before(id);
        Ok(Came::Advanced)
    }

    /// Rows came from a hop: to be handed to the user, or on to the next hop.
    ///
    /// # Errors
    /// [`ChainError`] if they are not what was asked for: the server breaks the protocol.
    pub fn output(&mut self, id: HopId, output: &StepOutput, rows: R) -> Result<Came<R>, ChainError> {
        let (epoch, length) = (self.epoch, self.source.len());
        let known = |joint: &Joint| joint.link == output.link;
        let Some(joint) = self.find(id).and_then(|hop| hop.joint).filter(known).filter(|_| output.epoch >= epoch)
        else {
            return Ok(Came::Stale);
        };
        let from = output.position as usize;
        if rows.rows() == 0 || from + rows.rows() > length {
            return Err(ChainError::WrongRows { hop: id });
        }
        match joint.target {
            // Nobody has asked for them here.
            Target::Hop { relayed: false, .. } => Err(ChainError::WrongRows { hop: id }),
            Target::Hop { id: next, relayed: true } => {
                let (end, skips) = (from + rows.rows(), from > joint.next);
                let joint = self.find_mut(id).map(|hop| &mut hop.joint);
                if let Some(joint) = joint {
                    *joint = joint.filter(|_| !skips).map(|joint| Joint { next: end, ..joint });
                }
                if skips {
                    return Ok(Came::Skipped);
                }
                self.relay(next, from, rows);
                Ok(Came::Advanced)
            }
            Target::Owner => self.wanted.take(from, rows).map_err(|_| ChainError::WrongRows { hop: id }),
        }
    }

    /// A hop that this client feeds has not computed a step: it holds `have` positions. What it lacks is sent again.
    pub fn fell_back(&mut self, id: HopId, have: TokenCount) {
        let before = self.hops.iter().position(|hop| hop.id == id).and_then(|index| index.checked_sub(1));
        if let Some(hop) = self.find_mut(id) {
            hop.fell_back(have.as_usize());
        }
        // Relayed rows come from the hop before, which is told to send them again.
        if let Some(before) = before {
            self.hops[before].joint = None;
        }
    }

    /// The driver was interrupted: whatever is unanswered will be sent again, its late answers are void, and outputs that
    /// were wanted and have not been handed out are wanted no more.
    pub fn abandon_unanswered(&mut self) {
        let length = self.source.len();
        self.truncate(count(length));
        self.wanted = Wanted::default();
        self.wanted.set(length..length, Outputs::None);
        // Rows that were to be relayed may be lost: they are asked for again.
        for hop in &mut self.hops {
            hop.joint = hop.joint.filter(|joint| !joint.is_relayed());
        }
    }

    /// Forgets every position from `position` on. Servers rewind by themselves when they are fed a position below
    /// their length; what they say of earlier epochs is void from now on.
    pub fn truncate(&mut self, position: TokenCount) {
        let length = position.as_usize();
        self.epoch = self.epoch.wrapping_add(1);
        self.cutbacks.note(self.epoch, length.min(self.source.len()));
        self.source.truncate(length);
        self.relaying.clear();
        self.hops.iter_mut().for_each(|hop| hop.truncate(length));
        self.wanted.truncate(length);
        // Words about steps of the earlier epoch are void, also those that would have said that a hop holds more.
        let least = self.hops.iter().filter(|hop| !hop.lost).map(|hop| hop.kv).min();
        if let (Some(first), Some(least)) = (self.hops.first_mut(), least) {
            first.kv = first.kv.min(least);
        }
    }

    /// Whether this client feeds the hop from its own input.
    fn is_fed(&self, id: HopId) -> bool {
        let is_first = |first: &Hop| first.id == id || first.shadow.as_ref().is_some_and(|shadow| shadow.id == id);
        self.hops.first().is_some_and(is_first)
    }

    fn find(&self, id: HopId) -> Option<&Hop> {
        let all = self.hops.iter().flat_map(|hop| std::iter::once(hop).chain(hop.shadow.as_deref()));
        all.into_iter().find(|hop| hop.id == id)
    }

    fn find_mut(&mut self, id: HopId) -> Option<&mut Hop> {
        for hop in &mut self.hops {
            if hop.id == id {
                return Some(hop);
            }
            if hop.shadow.as_ref().is_some_and(|shadow| shadow.id == id) {
                return hop.shadow.as_deref_mut();
            }
        }
        None
    }
}

/// Positions are bounded by what was counted in [`TokenCount`]s in the first place.
fn count(length: usize) -> TokenCount {
    TokenCount(u32::try_from(length).unwrap_or(u32::MAX))
}
