//! Each request's id: the caller's own if it is sane, else a new one.

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use tracing::{Instrument, error_span};

/// The header that carries it both ways.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest id that is taken over, in bytes: room for any uuid with a prefix, and no more in logs than a line.
const MOST_BYTES: usize = 128;

/// The id of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestId(pub(crate) String);

impl RequestId {
    /// The id that the header names, if it is one that can be logged as it is.
    fn taken(header: Option<&HeaderValue>) -> Option<Self> {
        let id = header?.to_str().ok()?;
        let sane = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
        (!id.is_empty() && id.len() <= MOST_BYTES && id.chars().all(sane)).then(|| Self(id.to_string()))
    }

    fn new() -> Self {
        Self(format!("req_{}", random()))
    }
}

/// 128 random bits in hexadecimal.
pub(crate) fn random() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// Gives the request an id and the answer the same.
pub(crate) async fn identify(mut request: Request, next: Next) -> Response {
    let id = RequestId::taken(request.headers().get(X_REQUEST_ID)).unwrap_or_else(RequestId::new);
    request.extensions_mut().insert(id.clone());
    // Whatever is logged until the answer begins says of which request.
    let span = error_span!("request", request = %id.0);
    let mut response = next.run(request).instrument(span).await;
    if let Ok(value) = HeaderValue::from_str(&id.0) {
        response.headers_mut().insert(X_REQUEST_ID, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_sane_id_is_taken_over() {
        let taken = |text: &str| RequestId::taken(HeaderValue::from_str(text).ok().as_ref()).map(|id| id.0);
        assert_eq!(taken("a-1_b.c:2").as_deref(), Some("a-1_b.c:2"));
        assert_eq!(taken(&"x".repeat(MOST_BYTES)).map(|id| id.len()), Some(MOST_BYTES));
        for bad in ["", "a b", "a\"b", "ä", &"x".repeat(MOST_BYTES + 1)] {
            assert_eq!(taken(bad), None, "{bad:?}");
        }
        assert_ne!(RequestId::new(), RequestId::new());
    }
}
