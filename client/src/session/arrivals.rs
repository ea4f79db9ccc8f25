//! What hops say, and what follows from it.

use std::time::{Duration, Instant};

use swarm_protocol::activations::{ActivationRows, Rows};
use swarm_protocol::session::TokenCount;
use swarm_protocol::wire::{CloseReason, ElementType, LinkFormat, SessionReply, StepDone, StepError, StepOutput};

use super::Session;
use super::link::{Arrival, LinkEvent, PackedBytes};
use crate::chain::{Came, ChainError, HopId, Unlinked};
use crate::finder::Outcome;

impl Session {
    pub(super) fn on_arrival(&mut self, arrival: Arrival) {
        let Arrival { hop, event, at, .. } = arrival;
        let Some(link) = self.links.get_mut(&hop) else {
            return;
        };
        link.heard = link.heard.max(at);
        match event {
            LinkEvent::Warm => link.warm = true,
            LinkEvent::Broken(reason) => self.lose(hop, reason),
            LinkEvent::Closed(reason) => self.on_closed(hop, &reason),
            LinkEvent::Reply(reply, rows) => self.on_reply(hop, reply, rows, at),
        }
    }

    fn on_reply(&mut self, hop: HopId, reply: SessionReply, rows: Vec<u8>, at: Instant) {
        match reply {
            SessionReply::Output(output) => self.on_output(hop, output, rows, at),
            SessionReply::Done(done) => self.on_done(hop, done, at),
            SessionReply::Failed { epoch, error, .. } => self.on_failed(hop, epoch, error),
            SessionReply::Pong { nonce } => {
                if let Some(link) = self.links.get_mut(&hop) {
                    link.ponged(nonce, at);
                }
            }
            SessionReply::Leaving { .. } => self.on_leaving(hop, at),
            SessionReply::Linked { link: number } => {
                if let Some(link) = self.links.get_mut(&hop) {
                    link.fed = Some(number);
                }
            }
            SessionReply::Unlinked { link, reason } => self.on_unlinked(hop, link, reason),
            SessionReply::Received { position } => self.chain.imported(hop, TokenCount(position)),
            SessionReply::HandedOver { link, failure } => self.on_handed_over(hop, link, failure),
            SessionReply::Opened { .. }
            | SessionReply::Refused(_)
            | SessionReply::Expected
            | SessionReply::Recalled { .. }
            | SessionReply::Agreed
            | SessionReply::Closed(_) => {
                self.lose(hop, "it broke the session's protocol".to_string());
            }
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

    fn on_leaving(&mut self, hop: HopId, at: Instant) {
        if let Some(link) = self.links.get_mut(&hop) {
            link.leave.get_or_insert(at);
            self.finder.report(link.peer, Outcome::Leaving);
        }
    }

    fn on_output(&mut self, hop: HopId, output: StepOutput, bytes: Vec<u8>, at: Instant) {
        let element = ElementType::from(self.format);
        let format = self.links.get(&hop).map_or(LinkFormat::Exact, |link| link.formats.output);
        let fits = output.rows.hidden == self.hidden && format.admits(element, output.rows.element);
        let Some(rows) = fits.then(|| ActivationRows::unpacked(output.rows, bytes)).flatten() else {
            return self.lose(hop, "it answered with rows of another shape".to_string());
        };
        if let Some(link) = self.links.get_mut(&hop) {
            link.packed.output = PackedBytes::a_row(&output.rows);
        }
        match self.chain.output(hop, &output, rows) {
            Ok(Came::Output { from, rows }) => {
                self.recorder.output_arrived(from.0, at);
                self.setbacks = 0;
                let held = from.as_usize() + rows.rows();
                self.keep_pages(hop, held);
                let rows = rows.off_link(element);
                match &mut self.outputs {
                    Some(outputs) => outputs.append(rows),
                    None => self.outputs = Some(rows),
                }
            }
            Ok(Came::Advanced | Came::Skipped | Came::Stale) => {}
            Err(error) => self.on_wrong(hop, &error),
        }
    }

    fn on_done(&mut self, hop: HopId, done: StepDone, at: Instant) {
        match self.chain.done(hop, &done) {
            Ok(_) => {
                let Some(link) = self.links.get_mut(&hop) else {
                    return;
                };
                self.recorder.hop_answered(link, &done, at);
                // What it had computed before is no progress, however often it says so.
                if let Some(held) = self.chain.held_by(hop).filter(|held| *held > link.reached) {
                    link.reached = held;
                    link.progressed = at;
                }
                link.last_step = Duration::from_micros(u64::from(done.queue_us) + u64::from(done.compute_us));
                // Longer steps say nothing about decoding.
                if done.rows == 1 {
                    let block_time = Duration::from_micros(done.compute_us.into()) / link.blocks.len();
                    self.finder.report(link.peer, Outcome::Stepped { block_time, rtt: link.rtt });
                }
                let held = self.chain.held_by(hop).map_or(0, TokenCount::as_usize);
                self.keep_pages(hop, held);
            }
            Err(error) => self.on_wrong(hop, &error),
        }
    }

    pub(super) fn on_wrong(&mut self, hop: HopId, error: &ChainError) {
        self.lose(error.culprit().unwrap_or(hop), error.to_string());
    }

    fn on_failed(&mut self, hop: HopId, epoch: u32, error: StepError) {
        match error {
            // What was fed to it before a truncation is no matter any more.
            _ if epoch < self.chain.epoch() => {}
            // Its KV is shorter than thought: feed it what is missing.
            StepError::Gap { have } => self.chain.fell_back(hop, TokenCount(have)),
            error => self.lose(hop, error.to_string()),
        }
    }

    fn on_unlinked(&mut self, hop: HopId, link: u32, reason: String) {
        match self.chain.unlinked(hop, link) {
            Unlinked::Stale => {}
            Unlinked::Again => {
                tracing::debug!(session = %self.id, %hop, reason, "two hops lost their connection; it is made anew");
                let next = self.chain.detour_of(hop).and_then(|next| self.links.get(&next));
                if let (Some(from), Some(to)) = (self.links.get(&hop), next) {
                    self.finder.report_apart(from.peer, to.peer);
                }
            }
            Unlinked::Shadow(shadow) => self.give_up(shadow, reason),
            Unlinked::GiveUp(hop) => self.lose(hop, reason),
        }
    }
}
