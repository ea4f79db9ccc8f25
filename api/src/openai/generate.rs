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
    let Prepared { id, texts, guided_by, odds, form } =
        in_turn(host, asked, aside(move || prepare(&preparing))).await??;
    // What cannot be obeyed is told before anything waits for it.
    if let Some(config) = texts.first().and_then(|text| text.answers.first()) {
        let checked = in_turn(host, asked, model.check(config)).await?;
        checked.map_err(|error| ApiError::of_form(error, guided_by))?;
    }
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

/// Does what takes a thread for a while, a few at a time, within the request's time.
///
/// # Errors
/// [`ApiError`] if the time is over.
pub(super) async fn in_turn<T>(host: &Host, asked: &Asked, work: impl Future<Output = T>) -> Result<T, ApiError> {
    let timeout = host.config().request_timeout;
    let done = async {
        // Not closed before this process ends.
        let _turn = host.checks().acquire().await;
        work.await
    };
    tokio::time::timeout_at((asked.received + timeout).into(), done)
        .await
        .map_err(|_| ApiError::deadline(timeout.as_secs_f64()))
}

/// Runs `work` on a thread of its own: a long text takes its tokenizer some tenths of a second, and everybody's tokens would wait.
///
/// # Errors
/// [`ApiError`] of `work`, or if it panics.
pub(super) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let done = tokio::task::spawn_blocking(work).await;
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
