//! Telling silent hops from slow ones.

use std::time::{Duration, Instant};

use swarm_protocol::liveness::progress_deadline;

use super::Session;
use crate::chain::{HopId, Late};

/// How late a hop may be, against a standby that has computed the same already, until that takes its place: a server is
/// often that much slower for a moment, and changing costs little.
const LATER_THAN_STANDBY: Duration = Duration::from_millis(200);

/// The same in steps of its own: a hop whose steps are long may be late by some of them.
const STEPS_LATER_THAN_STANDBY: u32 = 4;

/// A hop's newest step, by which the next ones are judged, may have been one of a few rows; chunks of a prompt take as
/// much longer as they have more rows, up to this factor.
const LONGEST_STEP: u32 = 64;

impl Session {
    /// Nobody was watched while nothing was asked for, nor while hops were replaced.
    pub(super) fn begin_watching(&mut self) {
        let now = Instant::now();
        for (hop, link) in &mut self.links {
            link.progressed = now;
            link.reached = self.chain.held_by(*hop).unwrap_or_default();
        }
    }

    /// Gives up the hops that are silent or stuck, and asks the others whether they live.
    pub(super) fn check_hops(&mut self) {
        let now = Instant::now();
        let waited_for = self.chain.waited_for();
        let row_bytes = self.row_bytes();
        let (mut gone, mut late) = (Vec::new(), Vec::new());
        for (hop, link) in &mut self.links {
            if waited_for != Some(*hop) {
                link.progressed = now;
            }
            let under_way = self.chain.unanswered_rows(*hop) * row_bytes;
            let awaited = self.chain.awaited_rows(*hop) * row_bytes;
            let silent = link.silent_for(now);
            let stuck = now.saturating_duration_since(link.progressed);
            let patience = progress_deadline(link.last_step * LONGEST_STEP).min(self.config.step_timeout);
            if silent > link.liveness.deadline(under_way) {
                gone.push((*hop, format!("silent for {:.1} s", silent.as_secs_f64())));
            } else if stuck > patience + transfer(link.liveness.deadline(under_way + awaited), silent) {
                late.push((*hop, stuck));
            } else {
                link.ping(now);
            }
        }
        for (hop, reason) in gone {
            self.lose(hop, reason);
        }
        for (hop, stuck) in late {
            self.on_late(hop, stuck);
        }
        self.hedge(now);
    }

    /// A hop that answers does not get on: it, or the hop before, which passes nothing on.
    fn on_late(&mut self, hop: HopId, stuck: Duration) {
        match self.chain.late(hop) {
            Late::Stale => {}
            Late::Detour => {
                tracing::debug!(session = %self.id, %hop, ?stuck, "a hop gets on with nothing; its input goes this way now");
            }
            Late::GiveUp(culprit) if culprit == hop => {
                self.lose(hop, format!("no answer to a step within {:.0} s", stuck.as_secs_f64()));
            }
            Late::GiveUp(before) => {
                self.lose(before, format!("nothing came of what it has computed within {:.0} s", stuck.as_secs_f64()));
            }
        }
    }

    /// Takes the standby of a hop that everybody waits for, if it has computed what the hop has not. It is no sure sign
    /// that the hop is gone, so nothing is held against it.
    fn hedge(&mut self, now: Instant) {
        let Some(hop) = self.chain.waited_for().filter(|hop| self.chain.shadow_is_ahead(*hop)) else {
            return;
        };
        let Some(link) = self.links.get(&hop) else {
            return;
        };
        let late = now.saturating_duration_since(link.progressed);
        if late > LATER_THAN_STANDBY.max(link.last_step * STEPS_LATER_THAN_STANDBY) {
            self.give_up(hop, format!("its standby is {:.1} s faster", late.as_secs_f64()));
        }
    }
}

/// What is left of the time that rows on their way to a hop may take.
fn transfer(deadline: Duration, silent: Duration) -> Duration {
    deadline.saturating_sub(silent)
}
