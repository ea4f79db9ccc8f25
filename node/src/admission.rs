//! Who may use how much of the KV caches.
//!
//! A session reserves room for all its tokens when it opens, so that no open session ever runs out of memory. Room
//! comes back when the session closes, when its client is gone, and when nothing came for too long. Pure accounting:
//! `now` is the time since any fixed moment, and never runs backwards.

mod refusal;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use swarm_protocol::PeerId;
use swarm_protocol::session::{SessionId, TokenCount};

pub use refusal::{Reason, Refusal};

/// What a server gives away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdmissionConfig {
    /// Tokens of all sessions together.
    pub budget: TokenCount,
    /// Sessions at once, whatever their size: each costs streams, pages and a place in the batch.
    pub sessions: usize,
    /// Tokens that only an owner without an open session may reserve, so that no client can take everything.
    pub newcomers: TokenCount,
    /// How long a session may be silent.
    pub idle: Duration,
}

impl AdmissionConfig {
    /// 256 sessions, an eighth of the budget for newcomers, two minutes of silence.
    pub fn of(budget: TokenCount) -> Self {
        let newcomers = TokenCount(budget.0 / 8);
        Self { budget, sessions: 256, newcomers, idle: Duration::from_secs(120) }
    }
}

/// One open session.
#[derive(Debug, Clone, Copy)]
struct Lease {
    owner: PeerId,
    tokens: TokenCount,
    touched: Duration,
}

/// The open sessions of one server and what they reserve.
#[derive(Debug, Clone)]
pub struct Admission {
    config: AdmissionConfig,
    leases: BTreeMap<SessionId, Lease>,
    /// The sum of all leases; never above the budget.
    reserved: TokenCount,
    leaving: bool,
}

impl Admission {
    /// Nobody is here yet.
    pub fn new(config: AdmissionConfig) -> Self {
        Self { config, leases: BTreeMap::new(), reserved: TokenCount(0), leaving: false }
    }

    /// Reserves `tokens` for a session of `owner`.
    ///
    /// # Errors
    /// [`Refusal`] says why, how much is free, and when to try again; nothing is reserved then.
    pub fn open(
        &mut self,
        session: SessionId,
        owner: PeerId,
        tokens: TokenCount,
        now: Duration,
    ) -> Result<(), Refusal> {
        if let Some(reason) = self.objection(session, owner, tokens) {
            return Err(self.refusal(reason, tokens, now));
        }
        self.leases.insert(session, Lease { owner, tokens, touched: now });
        self.reserved.0 += tokens.0;
        Ok(())
    }

    fn objection(&self, session: SessionId, owner: PeerId, tokens: TokenCount) -> Option<Reason> {
        let left = self.free().0.checked_sub(tokens.0);
        let known = self.leases.values().any(|lease| lease.owner == owner);
        if self.leaving {
            Some(Reason::Leaving)
        } else if tokens > self.config.budget {
            Some(Reason::TooLong { budget: self.config.budget })
        } else if self.leases.contains_key(&session) {
            Some(Reason::AlreadyOpen)
        } else if self.leases.len() >= self.config.sessions {
            Some(Reason::TooManySessions)
        } else if left.is_none() {
            Some(Reason::Full)
        } else if known && left < Some(self.config.newcomers.0) {
            Some(Reason::KeptForOthers)
        } else {
            None
        }
    }

    fn refusal(&self, reason: Reason, tokens: TokenCount, now: Duration) -> Refusal {
        let wait = || self.room_expected_in(tokens, now).clamp(refusal::SOONEST_RETRY, refusal::LATEST_RETRY);
        let retry_after = reason.passes().then(wait);
        Refusal { reason, free: self.free(), retry_after }
    }

    /// When there is room for `tokens` at the latest, if every client falls silent now.
    fn room_expected_in(&self, tokens: TokenCount, now: Duration) -> Duration {
        let mut oldest: Vec<&Lease> = self.leases.values().collect();
        oldest.sort_by_key(|lease| lease.touched);
        let mut free = self.free().0;
        for lease in oldest {
            free += lease.tokens.0;
            if free >= tokens.0 {
                return (lease.touched + self.config.idle).saturating_sub(now);
            }
        }
        self.config.idle
    }

    /// The session's client was heard; `false` if the session is not open.
    pub fn touch(&mut self, session: SessionId, now: Duration) -> bool {
        let lease = self.leases.get_mut(&session);
        lease.map(|lease| lease.touched = lease.touched.max(now)).is_some()
    }

    /// Gives the session's room back. Idempotent; `false` if it was not open.
    pub fn close(&mut self, session: SessionId) -> bool {
        let closed = self.leases.remove(&session);
        self.reserved.0 -= closed.map_or(0, |lease| lease.tokens.0);
        closed.is_some()
    }

    /// Closes every session of a client that is gone, and says which.
    pub fn close_owner(&mut self, owner: PeerId) -> Vec<SessionId> {
        self.close_where(|lease| lease.owner == owner)
    }

    /// Closes every session that was silent for too long, and says which.
    pub fn sweep(&mut self, now: Duration) -> Vec<SessionId> {
        let idle = self.config.idle;
        self.close_where(|lease| lease.touched + idle <= now)
    }

    fn close_where(&mut self, ends: impl Fn(&Lease) -> bool) -> Vec<SessionId> {
        let ended = self.leases.iter().filter(|(_, lease)| ends(lease));
        let ended: Vec<SessionId> = ended.map(|(session, _)| *session).collect();
        for session in &ended {
            self.close(*session);
        }
        ended
    }

    /// When [`Admission::sweep`] has something to do at the earliest; `None` without sessions.
    pub fn next_sweep(&self) -> Option<Duration> {
        self.leases.values().map(|lease| lease.touched + self.config.idle).min()
    }

    /// From now on every new session is refused; open ones stay.
    pub fn leave(&mut self) {
        self.leaving = true;
    }

    /// Who may steer the session.
    pub fn owner(&self, session: SessionId) -> Option<PeerId> {
        self.leases.get(&session).map(|lease| lease.owner)
    }

    /// How many tokens the session may hold.
    pub fn tokens(&self, session: SessionId) -> Option<TokenCount> {
        self.leases.get(&session).map(|lease| lease.tokens)
    }

    /// How many sessions are open.
    pub fn sessions(&self) -> usize {
        self.leases.len()
    }

    /// What open sessions hold.
    pub fn reserved(&self) -> TokenCount {
        self.reserved
    }

    /// What is left of the budget.
    pub fn free(&self) -> TokenCount {
        TokenCount(self.config.budget.0 - self.reserved.0)
    }
}
