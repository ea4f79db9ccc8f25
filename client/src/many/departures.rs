//! Texts that wait for their convoy.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::oneshot;
use tokio::time::timeout_at;

use super::convoys::{Convoys, Member, Way};
use crate::session::HopInfo;

/// Lets texts go on together; clones share.
#[derive(Debug, Clone, Default)]
pub(super) struct Departures(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    convoys: Convoys,
    waiting: HashMap<Member, oneshot::Sender<()>>,
    members: u64,
}

/// One text's place; whoever drops it is not waited for.
#[derive(Debug)]
pub(super) struct Seat {
    departures: Departures,
    member: Member,
}

impl Departures {
    /// The text's prompt is sent over this route.
    pub(super) fn join(&self, route: &[HopInfo]) -> Seat {
        self.with(|state| {
            state.members += 1;
            let member = Member(state.members);
            state.convoys.join(member, &way(route), Instant::now());
            Seat { departures: self.clone(), member }
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        // Nothing in here panics half-way.
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    /// Those may go on; a text that has been dropped meanwhile does not care.
    fn release(&mut self, gone: &[Member]) {
        gone.iter().filter_map(|member| self.waiting.remove(member)).for_each(|sender| {
            let _ = sender.send(());
        });
    }
}

fn way(route: &[HopInfo]) -> Way {
    route.iter().map(|hop| hop.peer).collect()
}

impl Seat {
    /// The text has its next token, over this route: waits until it is time for the next step.
    pub(super) async fn wait_for_company(&self, route: Vec<HopInfo>) {
        let way = way(&route);
        let (sender, mut go) = oneshot::channel();
        self.departures.with(|state| {
            state.waiting.insert(self.member, sender);
            let gone = state.convoys.arrive(self.member, &way, Instant::now());
            state.release(&gone);
        });
        // Each of the others that comes back puts it off, or lets everybody go.
        while let Some(until) = self.departures.with(|state| state.convoys.waits_until(self.member)) {
            if timeout_at(until.into(), &mut go).await.is_ok() {
                return;
            }
            self.departures.with(|state| {
                let now = Instant::now();
                if state.convoys.waits_until(self.member).is_some_and(|until| until <= now) {
                    let gone = state.convoys.go_without(self.member, now);
                    state.release(&gone);
                }
            });
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.departures.with(|state| {
            state.waiting.remove(&self.member);
            let gone = state.convoys.leave(self.member, Instant::now());
            state.release(&gone);
        });
    }
}
