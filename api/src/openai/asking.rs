//! What each request has beside its body: who asks, how urgently, and under which id.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::error::ApiError;
use super::run::Asked;
use crate::Host;
use crate::auth::bearer;
use crate::gate::Owner;
use crate::queue::Priority;
use crate::request_id::RequestId;
use crate::server::Caller;

/// The header that says how urgent a request is.
const X_SWARM_PRIORITY: &str = "x-swarm-priority";

/// Lets in who has a key, if keys are asked for.
pub(super) async fn authenticate(State(host): State<Arc<Host>>, mut request: Request, next: Next) -> Response {
    let keys = &host.config().keys;
    let owner = if keys.is_open() {
        let caller: Option<&Caller> = request.extensions().get();
        Owner::Address(caller.map(|caller| group(caller.0.ip())))
    } else {
        let key = bearer(request.headers());
        match key.and_then(|key| keys.find(key)) {
            Some(place) => Owner::Key(place),
            None => return ApiError::no_key(key.is_some()).into_response(),
        }
    };
    request.extensions_mut().insert(owner);
    next.run(request).await
}

/// Whoever has one address of a network of IPv6 has 2^64 of them.
fn group(address: IpAddr) -> IpAddr {
    // Callers over IPv4 stay apart where both are listened to on one socket.
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let mut octets = address.octets();
            octets[8..].fill(0);
            IpAddr::from(octets)
        }
        address => address,
    }
}

/// What is known of a request whose body has come.
///
/// # Errors
/// [`ApiError`] if the priority is none.
pub(super) fn asked(
    headers: &HeaderMap,
    Extension(request_id): Extension<RequestId>,
    Extension(owner): Extension<Owner>,
    service_tier: Option<&str>,
) -> Result<Asked, ApiError> {
    let header = headers.get(X_SWARM_PRIORITY).map(|value| value.to_str().unwrap_or_default());
    let priority = priority(header, service_tier)?;
    Ok(Asked { request_id: request_id.0, owner, priority, received: Instant::now() })
}

fn priority(header: Option<&str>, service_tier: Option<&str>) -> Result<Priority, ApiError> {
    match (header, service_tier) {
        (Some("low"), _) => Ok(Priority::Low),
        (Some("normal"), _) => Ok(Priority::Normal),
        (Some("high"), _) => Ok(Priority::High),
        (Some(other), _) => Err(ApiError::bad(
            X_SWARM_PRIORITY,
            format!("{X_SWARM_PRIORITY} is {other:?}; it must be low, normal or high."),
        )),
        (None, Some("flex")) => Ok(Priority::Low),
        (None, Some("priority")) => Ok(Priority::High),
        (None, _) => Ok(Priority::Normal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_goes_before_the_tier() {
        assert_eq!(priority(None, None), Ok(Priority::Normal));
        assert_eq!(priority(None, Some("flex")), Ok(Priority::Low));
        assert_eq!(priority(None, Some("priority")), Ok(Priority::High));
        assert_eq!(priority(Some("low"), Some("priority")), Ok(Priority::Low));
        assert_eq!(priority(Some("urgent"), None).unwrap_err().status().as_u16(), 400);
    }

    #[test]
    fn a_network_of_ipv6_is_one_caller() {
        let group = |text: &str| group(text.parse().unwrap());
        assert_eq!(group("2001:db8::1"), group("2001:db8::ffff:2"));
        assert_ne!(group("2001:db8::1"), group("2001:db8:0:1::1"));
        assert_ne!(group("10.0.0.1"), group("10.0.0.2"));
    }
}
