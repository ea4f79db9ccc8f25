//! What shows a swarm and needs no [`Host`](crate::Host): merged into a client's routes, and served by a server of blocks.

use crate::{Views, pages, swarm};
use axum::Router;
use swarm_client::overview::Watcher;

/// What the swarm looks like, as data and as a page with these views; to be merged into a router.
pub fn view<S: Clone + Send + Sync + 'static>(watcher: Watcher, views: Views) -> Router<S> {
    Router::new().merge(swarm::routes(watcher)).merge(pages::routes(views))
}
