//! Telling hops whose work they do: the span of this client that the session's caller is in.
//!
//! A hop is told when that changes, right behind the request that opens it and before the rows that follow: twice or so a
//! request, and never with a token. Without a collector of spans nothing is told at all.

use swarm_protocol::wire::SessionRequest;
use tracing::Span;

use super::Session;

impl Session {
    /// Tells the hops of the span that this is called in, as far as they do not know it.
    pub(super) fn follow_span(&mut self) {
        if let Some(spans) = self.config.spans {
            self.context = (spans.name)(&Span::current());
            self.tell_context();
        }
    }

    /// Nobody waits for anything any more: what hops do now is no part of any span.
    pub(crate) fn leave_span(&mut self) {
        self.context = None;
        self.tell_context();
    }

    fn tell_context(&mut self) {
        let context = self.context;
        for link in self.links.values_mut().filter(|link| link.context != context) {
            // One that takes no more is lost with its next step.
            if link.send(SessionRequest::Trace(context), Vec::new()) {
                link.context = context;
            }
        }
    }
}
