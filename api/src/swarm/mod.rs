//! What the swarm looks like: now (`/api/v1/swarm`), what has happened (`/api/v1/timeline`), and both as they change
//! (`/api/v1/events`). The data is `swarm_client::overview`'s; one watcher looks for everybody.

mod events;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use serde_json::json;
use swarm_client::overview::{Seen, Watcher};
use tokio::time::timeout;

/// How long a look may take: queries of the DHT and the slowest probe.
const LOOK_WITHIN: Duration = Duration::from_secs(20);

/// The routes over what `watcher` sees.
pub fn routes<S: Clone + Send + Sync + 'static>(watcher: Watcher) -> Router<S> {
    Router::new()
        .route("/api/v1/swarm", get(swarm))
        .route("/api/v1/timeline", get(timeline))
        .route("/api/v1/events", get(events::events))
        .with_state(watcher)
}

async fn swarm(State(watcher): State<Watcher>) -> Response {
    look(&watcher).await.map_or_else(IntoResponse::into_response, |seen| fresh(&*seen.overview))
}

async fn timeline(State(watcher): State<Watcher>) -> Response {
    look(&watcher).await.map_or_else(IntoResponse::into_response, |seen| fresh(&seen.timeline))
}

fn fresh(what: &impl Serialize) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], Json(what)).into_response()
}

/// Why there is nothing to show.
#[derive(Debug, Clone, Copy)]
enum Unseen {
    Ended,
    TooSlow,
    TooManyListeners,
}

async fn look(watcher: &Watcher) -> Result<Arc<Seen>, Unseen> {
    match timeout(LOOK_WITHIN, watcher.now()).await {
        Ok(Some(seen)) => Ok(seen),
        Ok(None) => Err(Unseen::Ended),
        Err(_) => Err(Unseen::TooSlow),
    }
}

impl IntoResponse for Unseen {
    fn into_response(self) -> Response {
        let (status, message) = match self {
            Self::Ended => (StatusCode::SERVICE_UNAVAILABLE, "this process is about to end; ask another one"),
            Self::TooSlow => {
                (StatusCode::GATEWAY_TIMEOUT, "the swarm does not answer; is the bootstrap peer reachable?")
            }
            Self::TooManyListeners => (
                StatusCode::SERVICE_UNAVAILABLE,
                "as many listen to the events as may; ask /api/v1/swarm now and then instead, or try again later",
            ),
        };
        (status, Json(json!({"error": {"message": message, "type": "unavailable"}}))).into_response()
    }
}
