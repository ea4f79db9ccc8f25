//! What hops say, and what follows from it.

use std::time::Duration;

use swarm_client::chain::{Came, ChainError, HopId, Unlinked};
use swarm_protocol::session::TokenCount;
use swarm_protocol::wire::{CloseReason, SessionReply, StepDone, StepError, StepOutput};

use super::link::Arrival;
use super::{Client, LEAVING_BAN};
use crate::sim::message::{Message, Payload};
use crate::sim::network::Net;
use crate::sim::report::Violation;
use crate::sim::rows::Activations;
use crate::sim::world::Known;

impl Client {
    pub(super) fn on_arrival(&mut self, arrival: Arrival, known: &Known, net: &mut Net) -> Result<(), Violation> {
        let Arrival { hop, message, at } = arrival;
        let Some(link) = self.links.get_mut(&hop) else { return Ok(()) };
        link.heard = link.heard.max(at);
        match message {
            Message::End | Message::Broken => self.lose(hop, "its stream ended", net),
            Message::Reply(SessionReply::Closed(reason), _) => self.on_closed(hop, &reason, net),
            Message::Reply(reply, payload) => return self.on_reply(hop, reply, payload, at, known, net),
            Message::Request(..) => {}
        }
        Ok(())
    }

    fn on_reply(
        &mut self,
        hop: HopId,
        reply: SessionReply,
        payload: Payload,
        at: Duration,
        known: &Known,
        net: &mut Net,
    ) -> Result<(), Violation> {
        match reply {
            SessionReply::Output(output) => return self.on_output(hop, &output, payload.into_rows(), known, net),
            SessionReply::Done(done) => return self.on_done(hop, &done, at, known, net),
            SessionReply::Failed { epoch, error, .. } => return self.on_failed(hop, epoch, error, known, net),
            SessionReply::Pong { nonce } => {
                if let Some(link) = self.links.get_mut(&hop) {
                    link.ponged(nonce, at);
                }
            }
            SessionReply::Leaving { .. } => self.on_leaving(hop, net),
            SessionReply::Unlinked { link, .. } => self.on_unlinked(hop, link, net),
            SessionReply::Received { position } => self.chain.imported(hop, TokenCount(position)),
            SessionReply::HandedOver { link, failure } => {
                return self.on_handed_over(hop, link, failure.is_some(), known, net);
            }
            other => return Err(Violation::Unexpected(format!("{hop} said {other:?}"))),
        }
        Ok(())
    }

    fn on_closed(&mut self, hop: HopId, reason: &CloseReason, net: &mut Net) {
        match reason {
            CloseReason::Idle => self.give_up(hop, "idle", net),
            CloseReason::Left => {
                self.avoid_leaver(hop, net);
                self.give_up(hop, "left", net);
            }
            CloseReason::Protocol(_) => self.lose(hop, "protocol", net),
        }
    }

    fn on_leaving(&mut self, hop: HopId, net: &Net) {
        if let Some(link) = self.links.get_mut(&hop) {
            link.leaving = true;
            self.avoid_leaver(hop, net);
        }
    }

    fn avoid_leaver(&mut self, hop: HopId, net: &Net) {
        if let Some(link) = self.links.get(&hop) {
            self.bans.insert(link.peer, (0, net.now + LEAVING_BAN));
        }
    }

    fn on_output(
        &mut self,
        hop: HopId,
        output: &StepOutput,
        rows: Activations,
        known: &Known,
        net: &mut Net,
    ) -> Result<(), Violation> {
        match self.chain.output(hop, output, rows) {
            Ok(Came::Output { from, rows }) => return self.hand_out(from.as_usize(), &rows),
            Ok(Came::Stale) => self.counts.stale += 1,
            Ok(Came::Skipped) => {
                self.counts.gaps += 1;
                self.reasons += 1;
            }
            Ok(Came::Advanced) => {}
            Err(error) => return self.on_wrong(hop, &error, known, net),
        }
        Ok(())
    }

    /// Every output is right, and comes in order and once.
    fn hand_out(&mut self, from: usize, rows: &[u64]) -> Result<(), Violation> {
        for (position, row) in (from..).zip(rows) {
            if self.whole.output(position) != Some(*row) {
                return Err(Violation::WrongOutput { position });
            }
            if self.awaited.first() != Some(&position) {
                return Err(Violation::OutOfOrder { position });
            }
            self.awaited.remove(&position);
            self.newest = *row;
        }
        Ok(())
    }

    fn on_done(
        &mut self,
        hop: HopId,
        done: &StepDone,
        at: Duration,
        known: &Known,
        net: &mut Net,
    ) -> Result<(), Violation> {
        match self.chain.done(hop, done) {
            Ok(came) => {
                self.counts.stale += usize::from(came == Came::Stale);
                if let Some(link) = self.links.get_mut(&hop) {
                    link.progressed = at;
                    link.last_step = Duration::from_micros(u64::from(done.queue_us) + u64::from(done.compute_us));
                    if done.rows == 1 {
                        self.bans.entry(link.peer).and_modify(|(failures, _)| *failures = 0);
                    }
                }
                Ok(())
            }
            Err(error) => self.on_wrong(hop, &error, known, net),
        }
    }

    /// No server here says anything wrong: whoever is found to has been accused unjustly, unless it has a bug.
    pub(super) fn on_wrong(
        &mut self,
        hop: HopId,
        error: &ChainError,
        known: &Known,
        net: &mut Net,
    ) -> Result<(), Violation> {
        self.counts.wrong += 1;
        let culprit = error.culprit().unwrap_or(hop);
        if !self.links.get(&culprit).is_some_and(|link| known.may_be_wrong(link.peer)) {
            return Err(Violation::Unexpected(error.to_string()));
        }
        self.lose(culprit, "wrong", net);
        Ok(())
    }

    fn on_failed(
        &mut self,
        hop: HopId,
        epoch: u32,
        error: StepError,
        known: &Known,
        net: &mut Net,
    ) -> Result<(), Violation> {
        match error {
            _ if epoch < self.chain.epoch() => self.counts.stale += 1,
            StepError::Gap { have } => {
                self.counts.gaps += 1;
                self.reasons += 1;
                self.chain.fell_back(hop, TokenCount(have));
            }
            error if !known.has_bugs() => return Err(Violation::Unexpected(format!("{hop} failed: {error}"))),
            _ => self.lose(hop, "failed", net),
        }
        Ok(())
    }

    fn on_unlinked(&mut self, hop: HopId, link: u32, net: &mut Net) {
        match self.chain.unlinked(hop, link) {
            Unlinked::Stale => self.counts.stale += 1,
            Unlinked::Again => {
                self.counts.unlinked += 1;
                self.reasons += 1;
            }
            Unlinked::Shadow(shadow) => {
                self.counts.unlinked += 1;
                self.give_up(shadow, "unlinked", net);
            }
            Unlinked::GiveUp(hop) => {
                self.counts.unlinked_for_good += 1;
                self.lose(hop, "unlinked", net);
            }
        }
    }
}
