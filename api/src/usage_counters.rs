//! What the API has done for those who asked, in numbers that `/metrics` shows.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use swarm_telemetry::metrics::{Registry, Unit};

/// Upper bounds of times to the first token, in seconds: from a short prompt on a near swarm to a long one in a queue.
const FIRST_TOKEN_BUCKETS: [f64; 12] = [0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2];

/// Counts as it goes.
#[derive(Debug)]
pub(crate) struct UsageCounters {
    tokens_in: Counter,
    tokens_reused: Counter,
    tokens_out: Counter,
    reroutes: Counter,
    cancelled: Counter,
    failed: Counter,
    first_token: Histogram,
}

impl Default for UsageCounters {
    fn default() -> Self {
        Self {
            tokens_in: Counter::default(),
            tokens_reused: Counter::default(),
            tokens_out: Counter::default(),
            reroutes: Counter::default(),
            cancelled: Counter::default(),
            failed: Counter::default(),
            first_token: Histogram::new(FIRST_TOKEN_BUCKETS),
        }
    }
}

impl UsageCounters {
    pub(crate) fn register(&self, api: &mut Registry) {
        let mut counter = |name, help, counter: &Counter| api.register(name, help, counter.clone());
        counter("prompt_tokens", "Tokens of prompts whose text was generated", &self.tokens_in);
        counter("reused_prompt_tokens", "Tokens of prompts that servers had computed before", &self.tokens_reused);
        counter("generated_tokens", "Tokens generated", &self.tokens_out);
        counter("reroutes", "Servers that were lost and replaced while a text was generated", &self.reroutes);
        counter("cancelled_generations", "Texts whose caller went away", &self.cancelled);
        counter("failed_generations", "Texts that an error ended after they had begun", &self.failed);
        let help = "Time from a request to its first token";
        api.register_with_unit("first_token", help, Unit::Seconds, self.first_token.clone());
    }

    pub(crate) fn took_in(&self, tokens: usize, reused: usize) {
        self.tokens_in.inc_by(tokens as u64);
        self.tokens_reused.inc_by(reused as u64);
    }

    pub(crate) fn gave_out(&self) {
        self.tokens_out.inc();
    }

    pub(crate) fn rerouted(&self) {
        self.reroutes.inc();
    }

    pub(crate) fn cancelled(&self) {
        self.cancelled.inc();
    }

    pub(crate) fn failed(&self) {
        self.failed.inc();
    }

    pub(crate) fn first_token(&self, after: Duration) {
        self.first_token.observe(after.as_secs_f64());
    }
}
