//! Bodies of requests: read within a size and a time, and parsed so that an error names the field.

use std::sync::Arc;

use axum::body::{Body, Bytes, to_bytes};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use super::error::ApiError;
use crate::Host;

/// The whole body of a request that must be JSON.
///
/// # Errors
/// [`ApiError`] if it is not said to be JSON, too large, or does not come in time.
pub(crate) async fn read(host: &Arc<Host>, headers: &HeaderMap, body: Body) -> Result<Bytes, ApiError> {
    // Pages of other origins may send other types without being asked first.
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !is_json(kind) {
        return Err(ApiError::no_json());
    }
    let most = host.config().max_body;
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > most as u64) {
        return Err(ApiError::too_large(most));
    }
    match tokio::time::timeout(host.config().read_timeout, to_bytes(body, most)).await {
        Err(_) => Err(ApiError::slow_body()),
        // The body broke off, and nobody hears this, or it is too large.
        Ok(Err(_)) => Err(ApiError::too_large(most)),
        Ok(Ok(bytes)) => Ok(bytes),
    }
}

fn is_json(kind: &str) -> bool {
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}

/// What is understood of a request; fields that are not are passed over, as OpenAI's server does.
///
/// # Errors
/// [`ApiError`] says where it is no JSON, or which field has a wrong type.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let parsed: Result<T, _> = serde_path_to_error::deserialize(&mut json);
    parsed
        .map_err(|error| {
            let path = error.path().to_string();
            let inner = error.into_inner();
            match inner.classify() {
                Category::Data if path == "." => {
                    ApiError::invalid(format!("The body of the request is wrong: {inner}."))
                }
                Category::Data => ApiError::bad(path.clone(), format!("Invalid value for '{path}': {inner}.")),
                _ => ApiError::invalid(format!("The body of the request is no JSON: {inner}.")),
            }
        })
        .and_then(|value| {
            json.end().map_err(|error| ApiError::invalid(format!("The body of the request is no JSON: {error}.")))?;
            Ok(value)
        })
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[allow(dead_code)]
    struct Inner {
        role: String,
    }

    #[derive(Debug, Deserialize)]
    #[allow(dead_code)]
    struct Outer {
        messages: Vec<Inner>,
        n: Option<u32>,
    }

    #[test]
    fn errors_say_where() {
        let error = |text: &str| parse::<Outer>(text.as_bytes()).unwrap_err().body()["error"].clone();
        let wrong = error(r#"{"messages": [{"role": "user"}, {"role": 3}]}"#);
        assert_eq!(wrong["param"], "messages[1].role");
        assert!(wrong["message"].as_str().unwrap().contains("expected a string"), "{wrong}");
        assert_eq!(error(r#"{"messages": [], "n": -1}"#)["param"], "n");
        let missing = error("{}");
        assert!(missing["message"].as_str().unwrap().contains("missing field `messages`"), "{missing}");
        for broken in ["", "{", "{\"messages\": [}", "nonsense", "{\"messages\": []} more", "\u{0}"] {
            let message = error(broken)["message"].to_string();
            assert!(message.contains("no JSON") && message.contains("line 1 column"), "{broken:?}: {message}");
        }
        assert!(error("[]")["message"].as_str().unwrap().contains("sequence") || error("[]")["param"].is_null());
        let unknown = parse::<Outer>(br#"{"messages": [], "whatever": {"x": 1}}"#).unwrap();
        assert!(unknown.messages.is_empty() && unknown.n.is_none());
    }

    #[test]
    fn only_json_is_json() {
        assert!(["application/json", "application/json; charset=utf-8", "Application/JSON"].iter().all(|k| is_json(k)));
        assert!(
            ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"].iter().all(|k| !is_json(k))
        );
    }
}
