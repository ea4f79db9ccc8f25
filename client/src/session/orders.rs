//! Doing what the chain says.

use std::time::{Duration, Instant};

use swarm_protocol::activations::{ActivationRows, Rows, packing_pays};
use swarm_protocol::session::TokenCount;
use swarm_protocol::wire::{self, Connect, Lane, LinkFormat, Output, SessionRequest, Step};

use super::link::PackedBytes;
use super::{Session, SessionError};
use crate::chain::{HopId, Input, Order, Target, Work};

/// What embedding takes at most where nothing is wrong, a look at another server included.
const EMBEDS_AT_ONCE: Duration = Duration::from_millis(100);

impl Session {
    pub(super) async fn obey(&mut self, order: Order<ActivationRows>) -> Result<(), SessionError> {
        match order {
            Order::Feed(work) => self.feed(work).await,
            Order::Join { link, lane, from, to, position } => {
                self.join(link, lane, from, to, position);
                Ok(())
            }
        }
    }

    /// Tells the lower hop first: the upper one may be quicker to reach it than this client.
    fn join(&mut self, link: u32, lane: Lane, from: HopId, to: Target, position: TokenCount) {
        if let Target::Hop { id, relayed } = to
            && lane == Lane::Main
            && let Some(lower) = self.links.get_mut(&id)
            && lower.fed_by.replace((from, relayed)) != Some((from, relayed))
        {
            // That nothing came from whoever fed it before was not its fault. That it fell back, or the same server lost it
            // for a moment, is no progress.
            lower.progressed = Instant::now();
        }
        let output = match to {
            Target::Owner => Output::Owner,
            Target::Hop { id, relayed: true } => {
                self.ask(id, SessionRequest::Accept(wire::Input::Owner));
                Output::Relay
            }
            Target::Hop { id, relayed: false } => {
                let (Some(upper), Some(lower)) = (self.links.get(&from), self.links.get(&id)) else {
                    return;
                };
                let (peer, next) = (upper.peer, lower.as_next(self.chain.chunk()));
                self.ask(id, SessionRequest::Accept(wire::Input::Upstream { peer, link }));
                Output::Next(next)
            }
        };
        self.ask(from, SessionRequest::Connect(Connect { lane, link, output, position: position.0 }));
    }

    async fn feed(&mut self, work: Work<ActivationRows>) -> Result<(), SessionError> {
        let (from, count) = (work.from.as_usize(), work.rows.as_usize());
        let rows = match work.input {
            Input::Rows(rows) => rows,
            Input::Tokens => {
                let began = Instant::now();
                let rows = self.ahead.embed(&self.edges, &self.ids, from..from + count).await?;
                self.recorder.step_sent(work.from.0, work.rows.0, began);
                if began.elapsed() > EMBEDS_AT_ONCE {
                    // No hop is to blame for this wait.
                    self.begin_watching();
                }
                rows
            }
        };
        self.send_step(work.hop, work.epoch, work.from, work.wanted_from, rows);
        Ok(())
    }

    fn send_step(&mut self, hop: HopId, epoch: u32, from: TokenCount, wanted_from: TokenCount, rows: ActivationRows) {
        let sent = self.links.get_mut(&hop).is_some_and(|link| {
            let (rows, bytes) = match link.formats.input {
                // One row tells what the round trip is worth: how fast many would go, nobody has measured here.
                LinkFormat::Packed if packing_pays(rows.bytes().len() / rows.rows().max(1), link.rtt) => {
                    rows.into_packed()
                }
                format => rows.on_link(format).into_wire(),
            };
            link.packed.input = PackedBytes::a_row(&rows);
            let step = Step { epoch, position: from.0, rows, wanted_from: wanted_from.0 };
            link.send(SessionRequest::Step(step), bytes)
        });
        if !sent {
            self.lose(hop, "its stream takes no more".to_string());
        }
    }

    /// Sends a word without rows.
    pub(super) fn ask(&mut self, hop: HopId, request: SessionRequest) {
        let sent = self.links.get(&hop).is_some_and(|link| link.send(request, Vec::new()));
        if !sent {
            self.lose(hop, "its stream takes no more".to_string());
        }
    }
}
