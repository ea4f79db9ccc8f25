//! Who runs, who waits, and who is sent away. Pure: `gate` wakes those who may run.
//!
//! Higher priorities run first, but whoever is passed over [`PATIENCE`] times runs next. Among those of one priority the
//! caller runs next who has the fewest requests running, then who came first. When the queue is full, a request of a
//! higher priority takes the place of the newest one of the lowest.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// How many requests of higher priorities may run before one that waits below them.
pub const PATIENCE: u32 = 4;

/// How much a request matters; the more, the later in this list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// The first to be refused, the last to run.
    Low,
    /// What requests have that say nothing.
    #[default]
    Normal,
    /// Runs before others.
    High,
}

const PRIORITIES: [Priority; 3] = [Priority::Low, Priority::Normal, Priority::High];

/// One request in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket(u64);

/// What becomes of a request that has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entered {
    /// It runs.
    Runs,
    /// It waits.
    Waits(Ticket),
    /// It waits, in the place of one that is sent away.
    Replaces(Ticket, Ticket),
    /// It is sent away.
    Full,
}

struct Waiter<O> {
    ticket: Ticket,
    owner: O,
}

/// The queue; `O` says whose a request is.
pub struct Queue<O> {
    most_running: usize,
    most_waiting: usize,
    running: usize,
    /// How many of each owner run; those with none are not named.
    owners: HashMap<O, usize>,
    /// By priority, in the order they came.
    waiting: [VecDeque<Waiter<O>>; 3],
    /// How often each priority was passed over since one of it last ran.
    passed: [u32; 3],
    tickets: u64,
}

impl<O: Clone + Eq + Hash> Queue<O> {
    /// Nobody there; at most so many run and wait. At least one runs.
    pub fn new(most_running: usize, most_waiting: usize) -> Self {
        Self {
            most_running: most_running.max(1),
            most_waiting,
            running: 0,
            owners: HashMap::new(),
            waiting: Default::default(),
            passed: [0; 3],
            tickets: 0,
        }
    }

    /// How many run.
    pub fn running(&self) -> usize {
        self.running
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting.iter().map(VecDeque::len).sum()
    }

    /// A request has come.
    pub fn enter(&mut self, owner: O, priority: Priority) -> Entered {
        // Whoever waits came before.
        if self.running < self.most_running && self.waiting() == 0 {
            self.begin(owner);
            return Entered::Runs;
        }
        let replaced = match self.waiting() < self.most_waiting {
            true => None,
            false => match self.least_below(priority) {
                Some(least) => Some(least),
                None => return Entered::Full,
            },
        };
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.waiting[priority as usize].push_back(Waiter { ticket, owner });
        replaced.map_or(Entered::Waits(ticket), |replaced| Entered::Replaces(ticket, replaced))
    }

    /// Takes the newest of the lowest priority below `priority` out.
    fn least_below(&mut self, priority: Priority) -> Option<Ticket> {
        let below = self.waiting[..priority as usize].iter_mut().find(|waiting| !waiting.is_empty())?;
        below.pop_back().map(|waiter| waiter.ticket)
    }

    /// One of `owner`'s requests has ended; who runs now.
    pub fn finished(&mut self, owner: &O) -> Vec<Ticket> {
        self.running = self.running.saturating_sub(1);
        if let Some(count) = self.owners.get_mut(owner) {
            *count -= 1;
            if *count == 0 {
                self.owners.remove(owner);
            }
        }
        let mut begun = Vec::new();
        while self.running < self.most_running {
            let Some(next) = self.next() else { break };
            begun.push(next);
        }
        begun
    }

    /// One that waits has gone away.
    pub fn withdraw(&mut self, ticket: Ticket) {
        for waiting in &mut self.waiting {
            waiting.retain(|waiter| waiter.ticket != ticket);
        }
    }

    fn begin(&mut self, owner: O) {
        self.running += 1;
        *self.owners.entry(owner).or_default() += 1;
    }

    fn next(&mut self) -> Option<Ticket> {
        let waits = |priority: &usize| !self.waiting[*priority].is_empty();
        let highest = (0..PRIORITIES.len()).rev().find(waits)?;
        let starved = (0..highest).find(|priority| waits(priority) && self.passed[*priority] >= PATIENCE);
        let chosen = starved.unwrap_or(highest);
        for priority in 0..chosen {
            self.passed[priority] += u32::from(!self.waiting[priority].is_empty());
        }
        self.passed[chosen] = 0;
        let queue = &self.waiting[chosen];
        let load = |waiter: &Waiter<O>| self.owners.get(&waiter.owner).copied().unwrap_or(0);
        let (place, _) = queue.iter().enumerate().min_by_key(|(place, waiter)| (load(waiter), *place))?;
        let waiter = self.waiting[chosen].remove(place)?;
        self.begin(waiter.owner);
        Some(waiter.ticket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(queue: &mut Queue<u8>, owner: u8, priority: Priority) -> Ticket {
        match queue.enter(owner, priority) {
            Entered::Waits(ticket) => ticket,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn so_many_run_so_many_wait_and_the_rest_is_sent_away() {
        let mut queue = Queue::new(2, 2);
        assert_eq!(queue.enter(0, Priority::Normal), Entered::Runs);
        assert_eq!(queue.enter(0, Priority::Normal), Entered::Runs);
        let first = waits(&mut queue, 0, Priority::Normal);
        let second = waits(&mut queue, 0, Priority::Normal);
        assert_eq!(queue.enter(0, Priority::Normal), Entered::Full);
        assert_eq!((queue.running(), queue.waiting()), (2, 2));
        assert_eq!(queue.finished(&0), [first]);
        assert_eq!(queue.finished(&0), [second]);
        assert_eq!(queue.finished(&0), []);
        assert_eq!(queue.finished(&0), []);
        assert_eq!((queue.running(), queue.waiting()), (0, 0));
        assert!(queue.owners.is_empty());
    }

    #[test]
    fn the_lowest_are_sent_away_first() {
        let mut queue = Queue::new(1, 3);
        assert_eq!(queue.enter(0, Priority::Low), Entered::Runs);
        let older = waits(&mut queue, 0, Priority::Low);
        let newer = waits(&mut queue, 0, Priority::Low);
        let normal = waits(&mut queue, 0, Priority::Normal);
        assert_eq!(queue.enter(0, Priority::Low), Entered::Full);
        let Entered::Replaces(high, sent_away) = queue.enter(0, Priority::High) else { panic!("no room for it") };
        assert_eq!(sent_away, newer);
        let Entered::Replaces(_, sent_away) = queue.enter(0, Priority::Normal) else { panic!("no room for it") };
        assert_eq!(sent_away, older);
        assert_eq!(queue.enter(0, Priority::Normal), Entered::Full);
        assert_eq!(queue.finished(&0), [high]);
        assert_eq!(queue.finished(&0), [normal]);
    }

    #[test]
    fn nobody_starves() {
        let mut queue = Queue::new(1, 100);
        assert_eq!(queue.enter(0, Priority::High), Entered::Runs);
        let low = waits(&mut queue, 0, Priority::Low);
        for _ in 0..20 {
            waits(&mut queue, 0, Priority::High);
        }
        let order: Vec<Ticket> = (0..20).flat_map(|_| queue.finished(&0)).collect();
        assert_eq!(order.iter().position(|ticket| *ticket == low), Some(PATIENCE as usize));
    }

    #[test]
    fn who_has_least_running_is_next() {
        let mut queue = Queue::new(2, 10);
        assert_eq!(queue.enter(1, Priority::Normal), Entered::Runs);
        assert_eq!(queue.enter(1, Priority::Normal), Entered::Runs);
        let greedy = [1, 1, 1].map(|owner| waits(&mut queue, owner, Priority::Normal));
        let modest = waits(&mut queue, 2, Priority::Normal);
        assert_eq!(queue.finished(&1), [modest], "one of 1 still runs, none of 2");
        assert_eq!(queue.finished(&2), [greedy[0]]);
    }

    #[test]
    fn who_goes_away_leaves_a_place() {
        let mut queue = Queue::new(1, 1);
        assert_eq!(queue.enter(0, Priority::Normal), Entered::Runs);
        let gone = waits(&mut queue, 0, Priority::Normal);
        queue.withdraw(gone);
        let next = waits(&mut queue, 0, Priority::Normal);
        assert_eq!(queue.finished(&0), [next]);
        let mut none = Queue::new(1, 0);
        assert_eq!(none.enter(0, Priority::Normal), Entered::Runs);
        assert_eq!(none.enter(0, Priority::High), Entered::Full);
    }
}
