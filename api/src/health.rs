//! Whether this process lives (`/health`), and whether it does what it is there for (`/ready`).

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::Host;

/// Tokens of the session whose route is looked for: any room will do.
const ROOM: usize = 1;

/// The routes of a client: it is ready if a request would find a route.
pub fn routes() -> Router<Arc<Host>> {
    Router::new().route("/health", get(health)).route("/ready", get(ready))
}

async fn health() -> Json<Value> {
    Json(json!({"status": "ok", "version": env!("CARGO_PKG_VERSION")}))
}

async fn ready(State(host): State<Arc<Host>>) -> (StatusCode, Json<Value>) {
    for model in host.models() {
        let blocks = match model.config().all_blocks() {
            Ok(blocks) => blocks,
            Err(error) => return not_ready(model.name(), &error),
        };
        if let Err(error) = model.plan(blocks, ROOM).await {
            return not_ready(model.name(), &error);
        }
    }
    (StatusCode::OK, Json(json!({"status": "ready"})))
}

fn not_ready(model: &str, reason: &dyn std::fmt::Display) -> (StatusCode, Json<Value>) {
    let body = json!({"status": "not ready", "reason": reason.to_string(), "model": model});
    (StatusCode::SERVICE_UNAVAILABLE, Json(body))
}
