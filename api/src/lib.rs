//! HTTP in front of a swarm.
//!
//! Each part brings the routes of its own ([`health`], [`openai`] and so on), over one [`Host`] that holds what they serve
//! from; [`serve`] answers until it is told to stop. What the swarm looks like ([`swarm`], [`pages`]) needs no host: a server
//! of blocks shows it as well ([`view()`]).
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod auth;
mod config;
mod gate;
pub mod health;
mod host;
mod metrics;
mod names;
pub mod openai;
pub mod pages;
pub mod queue;
mod request_id;
mod server;
mod spans;
pub mod swarm;
mod usage_counters;
mod view;

use std::sync::Arc;

use axum::{Router, middleware};

pub use auth::ApiKeys;
pub use config::ApiConfig;
pub use host::Host;
pub use metrics::ApiMetrics;
pub use names::HostNames;
pub use pages::Views;
pub use server::serve;
pub use view::view;

/// All routes over `host`, and those of `view`, which shows the swarm.
pub fn router(host: Arc<Host>, view: Router<Arc<Host>>) -> Router {
    let routes = Router::new().merge(health::routes()).merge(openai::routes(&host)).merge(view);
    let known = middleware::from_fn_with_state(host.clone(), names::only_known);
    ApiMetrics::default().watch(routes.with_state(host.clone()), host).layer(known)
}
