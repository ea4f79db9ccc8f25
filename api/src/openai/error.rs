//! Errors as OpenAI's API gives them: a status, and an object that says what is wrong with which field.

use axum::Json;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use swarm_client::SessionError;
use swarm_client::finder::NoPlan;
use swarm_model::ModelError;

use crate::gate::Refused;

/// When to come again if the queue is full, in seconds: some answers have ended by then.
const RETRY_FULL: u32 = 2;

/// When to come again if nobody serves the model, in seconds: a server that restarts is back by then.
const RETRY_NO_ROUTE: u32 = 5;

/// The code of an error for want of servers.
const NO_ROUTE: &str = "no_route";

/// An answer that is none.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ApiError {
    status: StatusCode,
    kind: &'static str,
    code: Option<&'static str>,
    param: Option<String>,
    message: String,
    retry_after: Option<u32>,
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, code: Option<&'static str>, message: impl Into<String>) -> Self {
        Self { status, kind, code, param: None, message: message.into(), retry_after: None }
    }

    /// The request cannot be obeyed as it is.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", None, message)
    }

    /// A field has a value that cannot be obeyed.
    pub(crate) fn bad(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self { param: Some(param.into()), code: Some("invalid_value"), ..Self::invalid(message) }
    }

    /// A field is understood, and not supported here.
    pub(crate) fn unsupported(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self { param: Some(param.into()), code: Some("unsupported_parameter"), ..Self::invalid(message) }
    }

    /// A prompt that the model's context has no room for.
    pub(crate) fn too_long(param: &str, tokens: usize, context: usize) -> Self {
        let message = format!(
            "This model's maximum context length is {context} tokens, and the prompt has {tokens}, which leaves no room for \
             an answer. Shorten it."
        );
        Self { param: Some(param.to_string()), code: Some("context_length_exceeded"), ..Self::invalid(message) }
    }

    /// No such model.
    pub(crate) fn no_model(name: &str, known: &[&str]) -> Self {
        let message = format!("The model `{name}` does not exist here. There is: {}.", known.join(", "));
        let code = Some("model_not_found");
        Self {
            param: Some("model".to_string()),
            ..Self::new(StatusCode::NOT_FOUND, "invalid_request_error", code, message)
        }
    }

    /// No such path.
    pub(crate) fn no_path(method: &str, path: &str) -> Self {
        let message = format!("There is no {method} {path} here; docs/api.md lists what there is.");
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", Some("unknown_url"), message)
    }

    /// A name under which this is not asked.
    pub(crate) fn no_name(name: &str) -> Self {
        let message = format!(
            "Requests to the name `{name}` are not answered here, since a page of that name in a browser could use this \
             machine's swarm. If it is yours, start swarm-node api with --allow-host {name}."
        );
        Self::new(StatusCode::FORBIDDEN, "invalid_request_error", Some("unknown_host"), message)
    }

    /// A form that an answer cannot be held to, as `field` asks.
    pub(crate) fn of_form(error: SessionError, field: &str) -> Self {
        match &error {
            SessionError::Model(ModelError::BadConstraint { .. }) => Self::bad(field, sentence(&error)),
            SessionError::ConstraintElsewhere | SessionError::Model(ModelError::NoConstraints(_)) => {
                Self::unsupported(field, sentence(&error))
            }
            _ => error.into(),
        }
    }

    /// The path does not know the method.
    pub(crate) fn no_method(method: &str, path: &str) -> Self {
        let message = format!("{path} does not take {method}.");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", Some("method_not_allowed"), message)
    }

    /// No API key, or none that is known.
    pub(crate) fn no_key(given: bool) -> Self {
        let message = match given {
            true => "Incorrect API key provided.",
            false => "No API key provided: send it in the header \"Authorization: Bearer KEY\".",
        };
        Self::new(StatusCode::UNAUTHORIZED, "invalid_request_error", Some("invalid_api_key"), message)
    }

    /// A body of more bytes than are taken.
    pub(crate) fn too_large(most: usize) -> Self {
        let message = format!("The body is larger than the {most} bytes that are taken here.");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", Some("request_too_large"), message)
    }

    /// A body that is not said to be JSON.
    pub(crate) fn no_json() -> Self {
        let message = "The body must be JSON: send the header \"Content-Type: application/json\".";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid_request_error", Some("unsupported_media_type"), message)
    }

    /// A body that does not come.
    pub(crate) fn slow_body() -> Self {
        let message = "The body of the request did not come in time.";
        Self::new(StatusCode::REQUEST_TIMEOUT, "invalid_request_error", Some("request_timeout"), message)
    }

    /// The request has taken as long as it may.
    pub(crate) fn deadline(seconds: f64) -> Self {
        let message = format!(
            "The request did not end within the {seconds} seconds that requests may take here (--request-timeout); ask for \
             fewer tokens, or try again later."
        );
        Self::new(StatusCode::GATEWAY_TIMEOUT, "server_error", Some("deadline_exceeded"), message)
    }

    /// Something here went wrong.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", Some("internal_error"), message)
    }

    fn unavailable(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            retry_after: Some(RETRY_NO_ROUTE),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", Some(code), message)
        }
    }

    /// Whether nobody serves the model.
    pub(crate) fn is_no_route(&self) -> bool {
        self.code == Some(NO_ROUTE)
    }

    /// The status of the answer.
    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// The object, as it stands in an answer or a stream.
    pub(crate) fn body(&self) -> Value {
        json!({"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}})
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        let message = match refused {
            Refused::Stopping => {
                return Self::unavailable("stopping", "This server is about to stop; try again later.");
            }
            Refused::Full => "Too many requests are waiting here already; try again later.",
            Refused::Replaced => "A request of a higher priority took this one's place in the queue; try again later.",
        };
        Self {
            retry_after: Some(RETRY_FULL),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, "requests", Some("rate_limit_exceeded"), message)
        }
    }
}

impl From<NoPlan> for ApiError {
    fn from(error: NoPlan) -> Self {
        let code = if matches!(error, NoPlan::NoRoom { .. }) { "no_room" } else { NO_ROUTE };
        Self::unavailable(code, sentence(&error))
    }
}

impl From<ModelError> for ApiError {
    fn from(error: ModelError) -> Self {
        match &error {
            ModelError::ChatTemplate(_) => Self::bad("messages", sentence(&error)),
            ModelError::TokenOutOfRange { .. } => Self::bad("prompt", sentence(&error)),
            ModelError::BadSampling { option, .. } => Self::bad(*option, sentence(&error)),
            _ => Self::internal(sentence(&error)),
        }
    }
}

impl From<SessionError> for ApiError {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::NoPlan(error) => error.into(),
            SessionError::GaveUp { .. } | SessionError::NoEdges { .. } => Self::unavailable(NO_ROUTE, sentence(&error)),
            SessionError::PastContext { .. } | SessionError::EmptyPrompt => Self::invalid(sentence(&error)),
            SessionError::Model(error) => error.into(),
            _ => Self::internal(sentence(&error)),
        }
    }
}

/// An error's words as a sentence.
fn sentence(error: &dyn std::fmt::Display) -> String {
    let words = error.to_string();
    let mut letters = words.chars();
    let first = letters.next().map(|letter| letter.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}", letters.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_field_and_when_to_come_again() {
        let error = ApiError::bad("messages[0].role", "no such role");
        let object = &error.body()["error"];
        assert_eq!(object["param"], "messages[0].role");
        assert_eq!((object["type"].as_str(), error.status().as_u16()), (Some("invalid_request_error"), 400));
        for (refused, status) in [(Refused::Full, 429), (Refused::Replaced, 429), (Refused::Stopping, 503)] {
            let response = ApiError::from(refused).into_response();
            assert_eq!(response.status().as_u16(), status);
            assert!(response.headers().contains_key(RETRY_AFTER));
        }
    }

    #[test]
    fn words_become_a_sentence() {
        assert_eq!(sentence(&"no route"), "No route");
        assert_eq!(sentence(&""), "");
    }
}
