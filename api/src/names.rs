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
    let name = asked_name(&request);
    match name.filter(|name| !host.config().names.knows(name)) {
        Some(name) => ApiError::no_name(&name).into_response(),
        None => next.run(request).await,
    }
}

/// The name under which the request came, without the port; as it stands there if it is none.
fn asked_name(request: &Request) -> Option<String> {
    let Some(header) = request.headers().get(HOST) else {
        return request.uri().authority().map(|authority| authority.host().to_string());
    };
    let text = String::from_utf8_lossy(header.as_bytes()).into_owned();
    Some(text.parse::<Authority>().map_or(text, |authority| authority.host().to_string()))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

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

    #[test]
    fn a_host_that_cannot_be_read_is_no_known_name() {
        let asked = |host: Option<&[u8]>, uri: &str| {
            let request = Request::builder().uri(uri);
            let request = host.map_or(Request::builder().uri(uri), |host| request.header(HOST, host));
            asked_name(&request.body(Body::empty()).unwrap())
        };
        assert_eq!(asked(Some(b"localhost:8000"), "/v1/models").as_deref(), Some("localhost"));
        assert_eq!(asked(Some(b"[::1]:8000"), "/v1/models").as_deref(), Some("[::1]"));
        assert_eq!(asked(None, "http://evil.example/v1/models").as_deref(), Some("evil.example"));
        assert_eq!(asked(None, "/v1/models"), None);
        let names = HostNames::local_and([]);
        for strange in [&b"a{b.evil.example:8000"[..], b"a\xffb.evil.example", b"evil.example:"] {
            let name = asked(Some(strange), "/").unwrap();
            assert!(!names.knows(&name), "{name}");
        }
    }
}
