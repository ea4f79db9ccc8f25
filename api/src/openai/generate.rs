//! What chat and completions do alike once a request is understood.

use std::sync::Arc;

use axum::http::HeaderValue;
use axum::response::Response;
use swarm_client::Model;
use tracing::info;

use super::X_SWARM_FALLBACK;
use super::answer::{Envelope, Form};
use super::error::ApiError;
use super::models::find;
use super::options::Options;
use super::reply::{Listener, Writer, streamed, whole};
use super::run::{Asked, Text, begin};
use crate::Host;
use crate::host::unix_time;
use crate::request_id::random;

/// A request that can be obeyed.
pub(super) struct Prepared {
    /// What its answer's id begins with.
    pub(super) id: &'static str,
    pub(super) texts: Vec<Text>,
    /// The field that the answers' form comes from.
    pub(super) guided_by: &'static str,
    /// Whether tokens' odds are wanted.
    pub(super) odds: bool,
    pub(super) form: Box<dyn Form>,
}

/// Generates and answers. `prepare` makes of the request what a model is asked for.
///
/// # Errors
/// [`ApiError`] as long as nothing of the answer has been sent.
pub(super) async fn respond(
    host: &Arc<Host>,
    asked: &Asked,
    options: &Options,
    prepare: impl Fn(&Model) -> Result<Prepared, ApiError> + Clone + Send + 'static,
) -> Result<Response, ApiError> {
    let answered = attempt(host, asked, options, find(host, options.model.as_deref())?, prepare.clone()).await;
    match (answered, host.fallback()) {
        (Err(error), Some(model)) if error.is_no_route() => {
            info!(request = asked.request_id, model = model.name(), "no server: this process computes the answer");
            attempt(host, asked, options, (model.name().to_string(), model.clone()), prepare).await
        }
        (answered, _) => answered,
    }
}

async fn attempt(
    host: &Arc<Host>,
    asked: &Asked,
    options: &Options,
    (name, model): (String, Arc<Model>),
    prepare: impl FnOnce(&Model) -> Result<Prepared, ApiError> + Send + 'static,
) -> Result<Response, ApiError> {
    let preparing = model.clone();
    // What cannot be obeyed is told before anything waits for it.
    let prepared = move || {
        let prepared = prepare(&preparing)?;
        if let Some(config) = prepared.texts.first().and_then(|text| text.answers.first()) {
            preparing.check(config).map_err(|error| ApiError::of_form(error, prepared.guided_by))?;
        }
        Ok(prepared)
    };
    let Prepared { id, texts, guided_by: _, odds, form } = in_turn(host, asked, prepared).await?;
    let answers = texts.iter().map(|text| text.answers.len()).sum();
    let last = texts.iter().flat_map(|text| text.answers.iter().map(|_| text.prompt.last().copied().unwrap_or(0)));
    let listener = Listener::new(model.clone(), odds, last.collect::<Vec<_>>());
    let envelope = Envelope {
        id: format!("{id}-{}", random()),
        created: unix_time(),
        model: name.clone(),
        fingerprint: fingerprint(&model),
        request_id: asked.request_id.clone(),
        fallback: model.computes_here(),
    };
    let running = begin(host, asked, &model, texts).await?;
    let writer = Writer { envelope, form, answers, listener };
    let mut response = match options.streams() {
        true => streamed(running, writer, options.includes_usage()),
        false => whole(running, writer).await?,
    };
    if let Some(name) = HeaderValue::from_str(&name).ok().filter(|_| model.computes_here()) {
        response.headers_mut().insert(X_SWARM_FALLBACK, name);
    }
    Ok(response)
}

/// Does what takes a thread for a while, within the request's time: a long text takes its tokenizer some tenths of a second, a
/// form up to seconds, and everybody's tokens would wait. A turn lasts as long as the work, whether somebody still waits for it or
/// not.
///
/// # Errors
/// [`ApiError`] of `work`, if the time is over, or if it panics.
pub(super) async fn in_turn<T: Send + 'static>(
    host: &Host,
    asked: &Asked,
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let (timeout, checks) = (host.config().request_timeout, host.checks().clone());
    let done = async {
        // Not closed before this process ends.
        let turn = checks.acquire_owned().await;
        tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work()
        })
        .await
    };
    let done = tokio::time::timeout_at((asked.received + timeout).into(), done).await;
    let done = done.map_err(|_| ApiError::deadline(timeout.as_secs_f64()))?;
    done.unwrap_or_else(|_| Err(ApiError::internal("The request could not be prepared.")))
}

/// Names weights and their format: the same one gives the same text for the same seed, as long as the servers are of one class.
fn fingerprint(model: &Model) -> String {
    format!("fp_{}", model.id().to_string().chars().take(12).collect::<String>())
}

/// As many of `most` tokens as fit behind a prompt of so many.
///
/// # Errors
/// [`ApiError`] if none does.
pub(super) fn fitting(field: &str, prompt: usize, most: usize, context: usize) -> Result<usize, ApiError> {
    match context.saturating_sub(prompt) {
        0 => Err(ApiError::too_long(field, prompt, context)),
        room => Ok(most.min(room)),
    }
}
