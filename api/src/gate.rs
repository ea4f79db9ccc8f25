//! The door to the models: [`Queue`] says who may pass, this wakes them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{oneshot, watch};

use crate::queue::{Entered, Priority, Queue, Ticket};

/// Whose a request is: those of one owner stand back behind others'.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Owner {
    /// Who has the API key with that number.
    Key(usize),
    /// Without keys: who calls from there.
    Address(Option<IpAddr>),
}

/// Why a request may not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// As many wait as may.
    Full,
    /// A request of a higher priority took its place.
    Replaced,
    /// This process is about to end.
    Stopping,
}

/// The door; clones are the same one.
#[derive(Clone)]
pub(crate) struct Gate {
    state: Arc<Mutex<State>>,
    running: Arc<watch::Sender<usize>>,
}

/// Says how waiting has ended.
type Turn = oneshot::Sender<Result<Permit, Refused>>;

struct State {
    queue: Queue<Owner>,
    waiting: HashMap<Ticket, (Owner, Turn)>,
    stopping: bool,
}

impl Gate {
    pub(crate) fn new(most_running: usize, most_waiting: usize) -> Self {
        let queue = Queue::new(most_running, most_waiting);
        let state = State { queue, waiting: HashMap::new(), stopping: false };
        Self { state: Arc::new(Mutex::new(state)), running: Arc::new(watch::channel(0).0) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many run, and how many wait.
    pub(crate) fn load(&self) -> (usize, usize) {
        let state = self.state();
        (state.queue.running(), state.queue.waiting())
    }

    /// Waits until the request may run. It holds its place until the permit, or this future, is dropped.
    ///
    /// # Errors
    /// [`Refused`] at once if there is no place, later if it is lost.
    pub(crate) async fn enter(&self, owner: Owner, priority: Priority) -> Result<Permit, Refused> {
        let waiting = match self.queue_up(owner, priority)? {
            Place::Runs(permit) => return Ok(permit),
            Place::Waits(waiting) => waiting,
        };
        waiting.wait().await
    }

    fn queue_up(&self, owner: Owner, priority: Priority) -> Result<Place, Refused> {
        let mut state = self.state();
        if state.stopping {
            return Err(Refused::Stopping);
        }
        let (ticket, replaced) = match state.queue.enter(owner, priority) {
            Entered::Runs => {
                self.running.send_replace(state.queue.running());
                return Ok(Place::Runs(self.permit(owner)));
            }
            Entered::Full => return Err(Refused::Full),
            Entered::Waits(ticket) => (ticket, None),
            Entered::Replaces(ticket, replaced) => (ticket, state.waiting.remove(&replaced)),
        };
        let (sender, turn) = oneshot::channel();
        state.waiting.insert(ticket, (owner, sender));
        drop(state);
        if let Some((_, replaced)) = replaced {
            // It may have gone by itself.
            let _ = replaced.send(Err(Refused::Replaced));
        }
        Ok(Place::Waits(Waiting { gate: self.clone(), ticket, turn }))
    }

    fn permit(&self, owner: Owner) -> Permit {
        Permit { gate: self.clone(), owner }
    }

    fn finished(&self, owner: Owner) {
        let mut state = self.state();
        let begun = state.queue.finished(&owner);
        let begun: Vec<_> = begun.into_iter().filter_map(|ticket| state.waiting.remove(&ticket)).collect();
        self.running.send_replace(state.queue.running());
        drop(state);
        // A permit that nobody takes comes back here, which takes the lock.
        for (owner, turn) in begun {
            let _ = turn.send(Ok(self.permit(owner)));
        }
    }

    /// Lets nobody in any more, and sends away those who wait.
    pub(crate) fn stop(&self) {
        let mut state = self.state();
        state.stopping = true;
        let waiting: Vec<_> = state.waiting.drain().collect();
        waiting.iter().for_each(|(ticket, _)| state.queue.withdraw(*ticket));
        drop(state);
        for (_, (_, turn)) in waiting {
            let _ = turn.send(Err(Refused::Stopping));
        }
    }

    /// Waits until nobody runs.
    pub(crate) async fn idle(&self) {
        // The sender is this gate's own.
        let _ = self.running.subscribe().wait_for(|running| *running == 0).await;
    }
}

enum Place {
    Runs(Permit),
    Waits(Waiting),
}

/// A place in the queue; dropping it leaves.
struct Waiting {
    gate: Gate,
    ticket: Ticket,
    turn: oneshot::Receiver<Result<Permit, Refused>>,
}

impl Waiting {
    async fn wait(mut self) -> Result<Permit, Refused> {
        (&mut self.turn).await.unwrap_or(Err(Refused::Stopping))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut state = self.gate.state();
        if state.waiting.remove(&self.ticket).is_some() {
            state.queue.withdraw(self.ticket);
        }
        // A permit that has come meanwhile goes with the channel, when the lock is free.
    }
}

/// The right to run, until it is dropped.
pub(crate) struct Permit {
    gate: Gate,
    owner: Owner,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.gate.finished(self.owner);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const OWNER: Owner = Owner::Key(0);

    #[tokio::test]
    async fn who_waits_runs_when_another_is_done() {
        let gate = Gate::new(1, 2);
        let first = gate.enter(OWNER, Priority::Normal).await.ok().unwrap();
        let mut second = Box::pin(gate.enter(OWNER, Priority::Normal));
        assert!((&mut second).now_or_never().is_none());
        assert_eq!(gate.load(), (1, 1));
        drop(first);
        let second = second.await.ok().unwrap();
        assert_eq!(gate.load(), (1, 0));
        drop(second);
        gate.idle().await;
    }

    #[tokio::test]
    async fn who_goes_away_holds_nobody_up() {
        let gate = Gate::new(1, 2);
        let first = gate.enter(OWNER, Priority::Normal).await.ok().unwrap();
        let mut gone = Box::pin(gate.enter(OWNER, Priority::Normal));
        let mut gone_late = Box::pin(gate.enter(OWNER, Priority::Normal));
        assert!((&mut gone).now_or_never().is_none());
        assert!((&mut gone_late).now_or_never().is_none());
        drop(gone);
        assert_eq!(gate.load(), (1, 1));
        // The permit is on its way when nobody wants it any more.
        drop(first);
        drop(gone_late);
        assert_eq!(gate.load(), (0, 0));
    }

    #[tokio::test]
    async fn when_it_stops_nobody_waits() {
        let gate = Gate::new(1, 1);
        let running = gate.enter(OWNER, Priority::Normal).await.ok().unwrap();
        let mut waiting = Box::pin(gate.enter(OWNER, Priority::Normal));
        assert!((&mut waiting).now_or_never().is_none());
        assert_eq!(gate.enter(OWNER, Priority::Normal).await.err(), Some(Refused::Full));
        gate.stop();
        assert_eq!(waiting.await.err(), Some(Refused::Stopping));
        assert_eq!(gate.enter(OWNER, Priority::Normal).await.err(), Some(Refused::Stopping));
        assert!(gate.idle().now_or_never().is_none());
        drop(running);
        gate.idle().await;
    }

    #[tokio::test]
    async fn a_higher_one_takes_the_place_of_a_lower() {
        let gate = Gate::new(1, 1);
        let _running = gate.enter(OWNER, Priority::Normal).await.ok().unwrap();
        let mut low = Box::pin(gate.enter(OWNER, Priority::Low));
        assert!((&mut low).now_or_never().is_none());
        let mut high = Box::pin(gate.enter(OWNER, Priority::High));
        assert!((&mut high).now_or_never().is_none());
        assert_eq!(low.await.err(), Some(Refused::Replaced));
    }
}
