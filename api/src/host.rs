//! What the routes serve from.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use swarm_client::{Model, PrefixReuse, Swarm};
use tokio::sync::Semaphore;

use crate::config::ApiConfig;
use crate::gate::{Gate, Owner};
use crate::usage_counters::UsageCounters;

/// Names what scopes of kept beginnings are derived for.
const SCOPE_CONTEXT: &str = "swarm-node api 2026-11 kept beginnings of one API key";

/// Requests that are made ready at once: each takes a thread, and answers that have a form need one for each token.
const CHECKS_AT_ONCE: usize = 4;

/// What the routes serve from: a client's place in a swarm, and the models it has opened.
pub struct Host {
    swarm: Swarm,
    models: Vec<Arc<Model>>,
    names: Vec<String>,
    /// Stands in for models that nobody serves.
    fallback: Option<Arc<Model>>,
    config: ApiConfig,
    gate: Gate,
    checks: Arc<Semaphore>,
    usage: UsageCounters,
    /// Unix time of the start, in seconds.
    started: u64,
    /// Makes scopes of kept beginnings nobody else's, who may know the keys.
    salt: [u8; 32],
}

impl Host {
    /// `models` are what requests may name, the first one if they name none.
    pub fn new(swarm: Swarm, models: Vec<Arc<Model>>) -> Self {
        Self::with(swarm, models, ApiConfig::default())
    }

    /// The same, behaving as `config` says.
    pub fn with(swarm: Swarm, models: Vec<Arc<Model>>, config: ApiConfig) -> Self {
        let names = distinct(models.iter().map(|model| model.name()));
        Self {
            swarm,
            names,
            models,
            fallback: None,
            gate: Gate::new(config.max_requests, config.max_queue),
            checks: Arc::new(Semaphore::new(CHECKS_AT_ONCE)),
            config,
            usage: UsageCounters::default(),
            started: unix_time(),
            salt: rand::random(),
        }
    }

    /// The same with a model that stands in when nobody serves the one that is asked for: one of this process's own.
    pub fn with_fallback(self, fallback: Option<Arc<Model>>) -> Self {
        Self { fallback, ..self }
    }

    /// The model that stands in when nobody serves the one that is asked for.
    pub fn fallback(&self) -> Option<&Arc<Model>> {
        self.fallback.as_ref()
    }

    /// The client's place in the swarm.
    pub fn swarm(&self) -> &Swarm {
        &self.swarm
    }

    /// The models, in the order they were named.
    pub fn models(&self) -> &[Arc<Model>] {
        &self.models
    }

    /// The models with the names that requests give them.
    pub fn named_models(&self) -> impl Iterator<Item = (&str, &Arc<Model>)> {
        self.names.iter().map(String::as_str).zip(&self.models)
    }

    /// How it behaves.
    pub fn config(&self) -> &ApiConfig {
        &self.config
    }

    /// What it has done, in numbers.
    pub(crate) fn usage(&self) -> &UsageCounters {
        &self.usage
    }

    /// How many requests run now, and how many wait.
    pub fn load(&self) -> (usize, usize) {
        self.gate.load()
    }

    /// Unix time of the start, in seconds.
    pub(crate) fn started(&self) -> u64 {
        self.started
    }

    /// Turns to make requests ready, which may take seconds of a thread.
    pub(crate) fn checks(&self) -> &Arc<Semaphore> {
        &self.checks
    }

    pub(crate) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Whose kept beginnings a request of `owner` begins with.
    pub(crate) fn prefixes(&self, owner: Owner) -> PrefixReuse {
        let Owner::Key(key) = owner else {
            return self.config.prefixes.clone();
        };
        let Some(key) = self.config.keys.hash(key) else {
            return PrefixReuse::Off;
        };
        let base: &[u8] = match &self.config.prefixes {
            PrefixReuse::Off => return PrefixReuse::Off,
            // Of nobody else: not even of who knows the key.
            PrefixReuse::Private => &self.salt,
            PrefixReuse::Shared(secret) => secret.as_bytes(),
        };
        let secret = blake3::derive_key(SCOPE_CONTEXT, &[key.as_bytes().as_slice(), base].concat());
        PrefixReuse::Shared(blake3::Hash::from(secret).to_hex().to_string())
    }
}

/// Unix time in seconds.
pub(crate) fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// Names of which no two are the same: later ones get a number.
fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut seen: HashMap<&str, usize> = HashMap::new();
    let named = names.map(|name| {
        let count = seen.entry(name).or_default();
        *count += 1;
        if *count == 1 { name.to_string() } else { format!("{name}#{count}") }
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_models_have_one_name() {
        assert_eq!(distinct(["demo", "a/b", "demo", "demo"].into_iter()), ["demo", "a/b", "demo#2", "demo#3"]);
    }
}
