//! The spans of a text's two phases: its prompt is computed until there is a first token, then one token follows the other.

use swarm_protocol::trace_context::SPANS;
use tracing::field::Empty;
use tracing::{Span, info_span};

use crate::session::SessionError;

/// The phase that a text is in. Made and changed where the span around both is the current one.
#[derive(Debug)]
pub(super) struct Phases {
    span: Span,
    decodes: bool,
}

impl Phases {
    /// Of a text whose prompt is to be computed.
    pub(super) fn prefill(prompt_tokens: usize, reused_tokens: usize) -> Self {
        // Collectors know no unsigned numbers.
        let (prompt_tokens, reused_tokens) = (prompt_tokens as i64, reused_tokens as i64);
        let span = info_span!(
            target: SPANS, "prefill", prompt_tokens, reused_tokens, tokens = Empty, finish = Empty, reroutes = Empty,
            otel.status_code = Empty, otel.status_description = Empty,
        );
        Self { span, decodes: false }
    }

    /// The first token is there.
    pub(super) fn decode(&mut self) {
        if !self.decodes {
            self.decodes = true;
            self.span = info_span!(
                target: SPANS, "decode", tokens = Empty, finish = Empty, reroutes = Empty,
                otel.status_code = Empty, otel.status_description = Empty,
            );
        }
    }

    /// What is done now is a part of this.
    pub(super) fn span(&self) -> Span {
        self.span.clone()
    }

    /// The text is complete.
    pub(super) fn finished(&mut self, tokens: usize, finish: &str, reroutes: usize) {
        self.span.record("tokens", tokens as i64).record("finish", finish).record("reroutes", reroutes as i64);
    }

    /// The text will never be complete.
    pub(super) fn failed(&mut self, error: &SessionError) {
        self.span.record("otel.status_code", "ERROR").record("otel.status_description", error.kind());
    }

    /// Nothing more is done.
    pub(super) fn end(&mut self) {
        self.span = Span::none();
    }
}
