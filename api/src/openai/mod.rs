//! OpenAI's API, over the models of a swarm.
//!
//! A request is parsed (`body`, `options`, `messages`, `input`), prepared (`chat`, `completions`), admitted and
//! generated (`run`), and what happens is written (`answer` and its two forms) as one object or a stream (`reply`).

mod answer;
mod asking;
mod body;
mod chat;
mod chat_form;
mod completion_form;
mod completions;
mod embeddings;
mod error;
mod generate;
mod guided;
mod input;
mod messages;
mod models;
mod options;
mod probabilities;
mod reply;
mod run;
mod usage;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::DefaultBodyLimit;
use axum::extract::Request;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderName, HeaderValue, Method};
use axum::routing::{any, get, post};
use axum::{Router, middleware};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

pub(crate) use self::error::ApiError;
use crate::Host;
use crate::request_id::{X_REQUEST_ID, identify};
use crate::spans::traced;

/// How long a browser need not ask again whether a page may.
const CORS_AGE: Duration = Duration::from_secs(600);

/// The header that names the model which stood in.
pub(crate) const X_SWARM_FALLBACK: HeaderName = HeaderName::from_static("x-swarm-fallback");

/// The routes below `/v1`.
pub fn routes(host: &Arc<Host>) -> Router<Arc<Host>> {
    let routes = Router::new()
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*name}", get(models::one))
        .route("/v1/chat/completions", post(chat::chat))
        .route("/v1/completions", post(completions::complete))
        .route("/v1/embeddings", post(embeddings::embed))
        .route("/v1/{*path}", any(unknown))
        .method_not_allowed_fallback(wrong_method)
        // Bodies are read with a limit and a time of our own.
        .layer(DefaultBodyLimit::disable())
        // Strangers put nothing into anybody's trace.
        .layer(middleware::from_fn_with_state(host.clone(), traced))
        .layer(middleware::from_fn_with_state(host.clone(), asking::authenticate));
    let routes = match cors(&host.config().cors) {
        Some(cors) => routes.layer(cors),
        None => routes,
    };
    // The last layer is the outermost: every answer has an id.
    routes.layer(middleware::from_fn(identify))
}

async fn unknown(request: Request) -> ApiError {
    ApiError::no_path(request.method().as_str(), request.uri().path())
}

async fn wrong_method(request: Request) -> ApiError {
    ApiError::no_method(request.method().as_str(), request.uri().path())
}

/// Which pages may ask from a browser; `None` if none may.
fn cors(origins: &[String]) -> Option<CorsLayer> {
    let origin = if origins.iter().any(|origin| origin.trim_end_matches('/') == "*") {
        AllowOrigin::any()
    } else {
        let origins: Vec<HeaderValue> =
            origins.iter().filter_map(|origin| HeaderValue::from_str(origin.trim_end_matches('/')).ok()).collect();
        if origins.is_empty() {
            return None;
        }
        AllowOrigin::list(origins)
    };
    let layer = CorsLayer::new()
        .allow_origin(origin)
        .allow_methods([Method::GET, Method::POST])
        // Clients send headers of their own (`x-stainless-…`).
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([X_REQUEST_ID, X_SWARM_FALLBACK, RETRY_AFTER])
        .max_age(CORS_AGE);
    Some(layer)
}
