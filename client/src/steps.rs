//! Who computes a text's steps: the servers of a route, or this process.

use std::time::Instant;

use swarm_protocol::activations::ActivationRows;
use swarm_protocol::session::TokenCount;

use crate::chain::Outputs;
use crate::here::SessionHere;
use crate::route::Route;
use crate::session::{HopInfo, RouteEvent, Session, SessionError};
use crate::trace::TraceRecord;

/// A sequence of tokens, wherever it is computed.
pub(crate) enum Steps {
    /// By servers.
    Swarm(Box<Session>),
    /// By this process.
    Here(Box<SessionHere>),
}

impl Steps {
    pub(crate) fn route(&self) -> Vec<HopInfo> {
        match self {
            Self::Swarm(session) => session.route(),
            Self::Here(_) => Vec::new(),
        }
    }

    pub(crate) fn planned(&self) -> Option<&Route> {
        match self {
            Self::Swarm(session) => session.planned(),
            Self::Here(_) => None,
        }
    }

    pub(crate) fn reserved(&self) -> TokenCount {
        match self {
            Self::Swarm(session) => session.reserved(),
            Self::Here(session) => session.reserved(),
        }
    }

    pub(crate) fn position(&self) -> TokenCount {
        match self {
            Self::Swarm(session) => session.position(),
            Self::Here(session) => session.position(),
        }
    }

    pub(crate) fn fed_ids(&self) -> &[u32] {
        match self {
            Self::Swarm(session) => session.fed_ids(),
            Self::Here(session) => session.fed_ids(),
        }
    }

    pub(crate) fn truncate(&mut self, position: TokenCount) {
        match self {
            Self::Swarm(session) => session.truncate(position),
            Self::Here(session) => session.truncate(position),
        }
    }

    pub(crate) async fn warm_up(&mut self) -> Result<(), SessionError> {
        match self {
            Self::Swarm(session) => session.warm_up().await,
            Self::Here(_) => Ok(()),
        }
    }

    pub(crate) fn trace(&mut self, start: Option<Instant>) {
        if let Self::Swarm(session) = self {
            session.trace(start);
        }
    }

    pub(crate) fn next_record(&mut self) -> Option<TraceRecord> {
        match self {
            Self::Swarm(session) => session.next_record(),
            Self::Here(_) => None,
        }
    }

    pub(crate) fn next_route_event(&mut self) -> Option<RouteEvent> {
        match self {
            Self::Swarm(session) => session.next_route_event(),
            Self::Here(_) => None,
        }
    }

    /// What token `id` is embedded as, if it is the next that is fed.
    pub(crate) fn is_embedded(&mut self, id: u32, row: ActivationRows) {
        if let Self::Swarm(session) = self {
            session.is_embedded(id, row);
        }
    }

    /// What hops do now is no part of any span.
    pub(crate) fn leave_span(&mut self) {
        if let Self::Swarm(session) = self {
            session.leave_span();
        }
    }

    /// Feeds token ids; gives the last block's output of the last one.
    ///
    /// # Errors
    /// [`SessionError`] if they do not fit, or nobody computes them.
    pub(crate) async fn feed_tokens(&mut self, ids: &[u32]) -> Result<Option<ActivationRows>, SessionError> {
        match self {
            Self::Swarm(session) => session.feed_tokens(ids, Outputs::Last).await,
            Self::Here(session) => session.feed_tokens(ids).await,
        }
    }
}
