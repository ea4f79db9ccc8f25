//! Under which names this may be asked.
//!
//! A page in a browser may ask the site that it comes from. Whoever makes such a page can have the name of that site lead to
//! 127.0.0.1 a moment later ("DNS rebinding"), and the browser lets it ask what listens there. The name stays in the
//! request's `Host`, though, and it is none that people use for their own machine.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::Host;
use crate::openai::ApiError;

/// The names under which requests are answered; all of them by default.
#[derive(Debug, Clone, Default)]
pub struct HostNames {
    known: Option<Vec<String>>,
}

impl HostNames {
    /// Addresses, `localhost`, names below it, and `more`.
    pub fn local_and(more: impl IntoIterator<Item = String>) -> Self {
        Self { known: Some(more.into_iter().collect()) }
    }

    /// Whether a request to `name`, which is without a port, is answered.
    pub fn knows(&self, name: &str) -> bool {
        let Some(known) = &self.known else { return true };
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let literal = name.trim_start_matches('[').trim_end_matches(']');
        // Nobody's name server answers for an address, nor for what is below localhost.
        literal.parse::<IpAddr>().is_ok()
            || name == "localhost"
            || name.ends_with(".localhost")
            || known.iter().any(|known| known.eq_ignore_ascii_case(&name))
    }
}

/// Answers requests under known names only. One without a name comes from no browser.
pub(crate) async fn only_known(State(host): State<Arc<Host>>, request: Request, next: Next) -> Response {
    let header = request.headers().get(HOST).and_then(|value| value.to_str().ok()?.parse::<Authority>().ok());
    match header.as_ref().or(request.uri().authority()).map(Authority::host) {
        Some(name) if !host.config().names.knows(name) => ApiError::no_name(name).into_response(),
        _ => next.run(request).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_own_machine_are_known_and_those_of_sites_are_not() {
        let names = HostNames::local_and(["box.example".to_string()]);
        let known = ["127.0.0.1", "192.168.1.5", "[::1]", "localhost", "LOCALHOST.", "api.localhost", "Box.Example"];
        assert!(known.iter().all(|name| names.knows(name)));
        let strange =
            ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "notlocalhost", "box.example.org", ""];
        assert!(strange.iter().all(|name| !names.knows(name)));
        assert!(HostNames::default().knows("evil.example"));
    }
}
