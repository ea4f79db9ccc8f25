//! HTTP for whoever watches a program: `/metrics`, `/health` and `/ready`.

mod connections;

use std::net::SocketAddr;

pub use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use serde_json::json;
use tokio::net::TcpListener;

use crate::metrics::CONTENT_TYPE;

pub use connections::{Bounds, answer};

/// Whether a program does what it is there for, and if not why.
pub type Readiness = Result<(), String>;

/// The address in `text`: `ADDRESS:PORT`, or `localhost:PORT`, which is the loopback one.
///
/// # Errors
/// What to write instead.
pub fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let text = text.trim();
    let local = text.strip_prefix("localhost:").and_then(|port| port.parse().ok());
    let local = local.map(|port: u16| SocketAddr::from(([127, 0, 0, 1], port)));
    local.or_else(|| text.parse().ok()).ok_or_else(|| {
        let port = text.trim_start_matches(':').parse().ok().filter(|port: &u16| *port > 0).unwrap_or(8000);
        format!("write ADDRESS:PORT, for example 127.0.0.1:{port} (or 0.0.0.0:{port} for any interface)")
    })
}

/// Listens on `address`.
///
/// # Errors
/// In one line, with what to do.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, String> {
    let advice = "choose another --http ADDRESS:PORT, or end the program that uses it";
    TcpListener::bind(address).await.map_err(|error| format!("cannot listen on http://{address}: {error}; {advice}"))
}

/// `/metrics`: what `text` gives, asked anew each time.
pub fn metrics<S, F, T>(text: F) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    F: Fn() -> T + Clone + Send + Sync + 'static,
    T: Future<Output = Result<String, std::fmt::Error>> + Send,
{
    let answer = move || {
        let text = text.clone();
        async move {
            match text().await {
                Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
                Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
            }
        }
    };
    Router::new().route("/metrics", get(answer))
}

/// `/health` (this process lives) and `/ready` (it does what it is there for; else 503 and why).
pub fn probes<S, F>(ready: F) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    F: Fn() -> Readiness + Clone + Send + Sync + 'static,
{
    let health = || async { json_of(StatusCode::OK, &json!({"status": "ok", "version": env!("CARGO_PKG_VERSION")})) };
    let ready = move || {
        let ready = ready();
        async move {
            match ready {
                Ok(()) => json_of(StatusCode::OK, &json!({"status": "ready"})),
                Err(reason) => {
                    json_of(StatusCode::SERVICE_UNAVAILABLE, &json!({"status": "not ready", "reason": reason}))
                }
            }
        }
    };
    Router::new().route("/health", get(health)).route("/ready", get(ready))
}

fn json_of(status: StatusCode, body: &serde_json::Value) -> impl IntoResponse + use<> {
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string())
}

/// `router` of a program that is starting: whatever else is asked, it says so, on connections that end with that answer, so that
/// the next question finds what has come meanwhile.
pub fn starting(router: Router) -> Router {
    let answer = || async {
        let headers = [(header::CONNECTION, "close"), (header::RETRY_AFTER, "1")];
        (StatusCode::SERVICE_UNAVAILABLE, headers, "the program is starting; ask again in a moment\n")
    };
    router.fallback(answer)
}

/// Answers those who watch this program until `stop` resolves.
pub async fn serve(listener: TcpListener, router: Router, stop: impl Future<Output = ()>) {
    answer(listener, |_| router.clone(), Bounds::default(), stop).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_port() {
        assert_eq!(parse_address("localhost:8981"), Ok(SocketAddr::from(([127, 0, 0, 1], 8981))));
        assert_eq!(parse_address("0.0.0.0:80"), Ok(SocketAddr::from(([0, 0, 0, 0], 80))));
        assert!(parse_address("[::1]:80").is_ok());
        for (wrong, says) in [("8980", "127.0.0.1:8980"), (":8980", "127.0.0.1:8980"), ("127.0.0.1", "ADDRESS:PORT")] {
            assert!(parse_address(wrong).is_err_and(|error| error.contains(says)), "{wrong}");
        }
    }
}
