//! What the client's user does.

use swarm_client::chain::Outputs;
use swarm_protocol::session::TokenCount;

use super::{Client, Phase};
use crate::sim::network::{CLIENT, Net, Timer};
use crate::sim::report::Violation;
use crate::sim::rows::{embed, mix};
use crate::sim::scenario::Turn;

impl Client {
    /// Begins the next turn; `false` while the user thinks.
    pub(super) fn take_turn(&mut self, net: &mut Net) -> Result<bool, Violation> {
        if net.now < self.rest_until {
            return Ok(false);
        }
        match self.turns.pop_front() {
            None => self.phase = Phase::Over,
            Some(Turn::Prompt(tokens)) => self.begin(tokens, Outputs::Last, net)?,
            Some(Turn::Verify(tokens)) => self.begin(tokens, Outputs::All, net)?,
            Some(Turn::Fill(tokens)) => self.begin(tokens, Outputs::None, net)?,
            Some(Turn::Decode(tokens)) => {
                if tokens > 1 {
                    self.turns.push_front(Turn::Decode(tokens - 1));
                }
                self.begin(1, Outputs::Last, net)?;
            }
            Some(Turn::Regret { tokens, after, back }) => {
                self.begin(tokens, Outputs::Last, net)?;
                self.regret = Some(back);
                net.timer(CLIENT, net.now + after, Timer::Regret(self.turn));
            }
            Some(Turn::GoBack(tokens)) => self.go_back(tokens, net),
            Some(Turn::Think(time)) => {
                self.rest_until = net.now + time;
                net.timer(CLIENT, self.rest_until, Timer::Look);
            }
        }
        Ok(true)
    }

    /// Every new token follows from the newest output.
    fn begin(&mut self, tokens: u32, outputs: Outputs, net: &mut Net) -> Result<(), Violation> {
        self.turn += 1;
        if !std::mem::replace(&mut self.settled, false) {
            self.chain.abandon_unanswered();
            self.forget_dropped_shadows(net);
            // What is relayed is asked for again.
            self.reasons += self.chain.hops().len();
        }
        let from = self.tokens.len();
        self.tokens.extend((0..u64::from(tokens)).map(|number| mix(self.newest, number)));
        let rows: Vec<u64> = self.tokens[from..].iter().copied().map(embed).collect();
        self.whole.feed(rows.clone());
        let end = self.tokens.len();
        self.awaited.extend(match outputs {
            Outputs::All => from..end,
            Outputs::Last => end - 1..end,
            Outputs::None => end..end,
        });
        let extended = match self.of_rows {
            true => self.chain.extend_rows(rows, outputs),
            false => self.chain.extend_tokens(TokenCount(tokens), outputs),
        };
        extended.map_err(|error| Violation::Unexpected(error.to_string()))?;
        self.phase = Phase::Settling;
        self.begin_watching(net);
        Ok(())
    }

    /// The call has come to its end.
    pub(super) fn end_turn(&mut self, net: &mut Net) -> Result<(), Violation> {
        if let Some(position) = self.awaited.first() {
            return Err(Violation::Missing { position: *position });
        }
        self.settled = true;
        self.phase = Phase::Resting;
        if let Some(back) = self.regret.take() {
            self.go_back(back, net);
        }
        Ok(())
    }

    /// The user breaks the call off.
    pub(super) fn change_mind(&mut self, net: &mut Net) -> Result<(), Violation> {
        let Some(back) = self.regret.take_if(|_| self.phase == Phase::Settling) else { return Ok(()) };
        self.counts.regrets += 1;
        self.drop_repair(net);
        self.embedding = None;
        self.awaited.clear();
        self.phase = Phase::Resting;
        if back > 0 {
            self.go_back(back, net);
        }
        Ok(())
    }

    fn go_back(&mut self, back: u32, net: &mut Net) {
        let length = self.tokens.len().saturating_sub(back as usize);
        self.tokens.truncate(length);
        self.whole.truncate(length);
        self.chain.truncate(TokenCount(length as u32));
        self.forget_dropped_shadows(net);
    }
}
