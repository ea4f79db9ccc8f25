//! Doing what the chain says.

use swarm_client::chain::{HopId, Input, Order, Target, Work};
use swarm_protocol::activations::Rows;
use swarm_protocol::session::TokenCount;
use swarm_protocol::wire::{self, Connect, Lane, Output, SessionRequest, Step};

use super::{Client, upstream};
use crate::sim::message::{Payload, shape};
use crate::sim::network::{CLIENT, Net, Timer};
use crate::sim::report::Violation;
use crate::sim::rows::{Activations, embed};
use crate::sim::world::Known;

impl Client {
    pub(super) fn obey(&mut self, order: Order<Activations>, _: &Known, net: &mut Net) -> Result<(), Violation> {
        match order {
            Order::Feed(work) => self.feed(work, net),
            Order::Join { link, lane, from, to, position } => self.join(link, lane, from, to, position, net),
        }
    }

    fn join(
        &mut self,
        link: u32,
        lane: Lane,
        from: HopId,
        to: Target,
        position: TokenCount,
        net: &mut Net,
    ) -> Result<(), Violation> {
        self.counts.joins += 1;
        let lost = |hop: HopId| Violation::OrderToTheLost { hop: hop.to_string() };
        let upper = self.links.get(&from).ok_or_else(|| lost(from))?.node;
        let output = match to {
            Target::Owner => Output::Owner,
            Target::Hop { id, relayed } => {
                let chunk = self.chain.chunk();
                let lower = self.links.get_mut(&id).ok_or_else(|| lost(id))?;
                if lane == Lane::Main && lower.fed_by.replace((from, relayed)) != Some((from, relayed)) {
                    // What was wrong with the way to it was not its fault.
                    lower.progressed = net.now;
                }
                let next = lower.as_next(chunk);
                let input = if relayed { wire::Input::Owner } else { upstream(upper, link) };
                self.ask(id, SessionRequest::Accept(input), net);
                self.counts.relays += usize::from(relayed);
                if relayed { Output::Relay } else { Output::Next(next) }
            }
        };
        self.ask(from, SessionRequest::Connect(Connect { lane, link, output, position: position.0 }), net);
        Ok(())
    }

    fn feed(&mut self, mut work: Work<Activations>, net: &mut Net) -> Result<(), Violation> {
        if !self.links.contains_key(&work.hop) {
            return Err(Violation::OrderToTheLost { hop: work.hop.to_string() });
        }
        let is_tokens = work.input == Input::Tokens;
        if is_tokens {
            let tokens = &self.tokens[work.from.as_usize()..][..work.rows.as_usize()];
            work.input = Input::Rows(tokens.iter().copied().map(embed).collect());
        }
        if is_tokens && !self.embed_time.is_zero() {
            net.timer(CLIENT, net.now + self.embed_time, Timer::Embedded);
            self.embedding = Some(work);
        } else {
            self.send_step(work, net);
        }
        Ok(())
    }

    pub(super) fn on_embedded(&mut self, net: &mut Net) -> Result<(), Violation> {
        if let Some(work) = self.embedding.take() {
            self.send_step(work, net);
        }
        Ok(())
    }

    pub(super) fn send_step(&mut self, work: Work<Activations>, net: &mut Net) {
        let Input::Rows(rows) = work.input else { return };
        let (epoch, position, wanted_from) = (work.epoch, work.from.0, work.wanted_from.0);
        let step = Step { epoch, position, rows: shape(rows.rows()), wanted_from };
        match self.links.get(&work.hop) {
            Some(link) => {
                net.ask(CLIENT, link.stream, SessionRequest::Step(step), Payload::Rows(rows));
            }
            None => self.lose(work.hop, "its stream takes no more", net),
        }
    }

    /// Sends a word without rows.
    pub(super) fn ask(&mut self, hop: HopId, request: SessionRequest, net: &mut Net) {
        if let Some(link) = self.links.get(&hop) {
            net.ask(CLIENT, link.stream, request, Payload::None);
        }
    }
}
