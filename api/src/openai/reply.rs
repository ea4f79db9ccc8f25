//! Sending answers: one object, or server-sent events as they happen.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderName, HeaderValue};
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream;
use serde_json::Value;
use swarm_client::Model;

use super::answer::{Chunks, Envelope, Form, Said, Whole};
use super::error::ApiError;
use super::probabilities::TokenOdds;
use super::run::{Event, Running};

/// How often a stream without tokens says that it lives: well below what proxies wait.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// The last event of a stream that is complete.
const DONE: &str = "[DONE]";

/// What proxies are told who collect answers before they hand them on.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// What an answer is written with.
pub(super) struct Writer {
    pub(super) envelope: Envelope,
    pub(super) form: Box<dyn Form>,
    pub(super) answers: usize,
    pub(super) listener: Listener,
}

/// Turns events into what is said: tokens' odds become text.
pub(super) struct Listener {
    model: Arc<Model>,
    odds: bool,
    /// The token before the next one of each answer.
    before: HashMap<usize, u32>,
}

impl Listener {
    /// `last` are the last tokens of each answer's prompt.
    pub(super) fn new(model: Arc<Model>, odds: bool, last: impl IntoIterator<Item = u32>) -> Self {
        Self { model, odds, before: last.into_iter().enumerate().collect() }
    }

    fn hear(&mut self, event: Event) -> Result<Option<Said>, ApiError> {
        match event {
            Event::Opened => Ok(None),
            Event::Token { choice, id, text, probabilities } => {
                let mut odds = None;
                if let Some(known) = probabilities.filter(|_| self.odds) {
                    let before = self.before.insert(choice, id).unwrap_or(id);
                    odds = Some(TokenOdds::of(&self.model, before, id, &known)?);
                }
                Ok(Some(Said::Token { choice, text, odds }))
            }
            Event::Done { choice, end } => Ok(Some(Said::End { choice, end })),
        }
    }
}

/// The whole answer, when it is complete.
///
/// # Errors
/// [`ApiError`] if it cannot be completed.
pub(super) async fn whole(mut running: Running, writer: Writer) -> Result<Response, ApiError> {
    let Writer { envelope, form, answers, mut listener } = writer;
    let mut whole = Whole::new(envelope, form, answers);
    while let Some(event) = running.next().await? {
        listener.hear(event)?.into_iter().for_each(|said| whole.on(said));
    }
    Ok(Json(whole.object()).into_response())
}

/// The answer as it is generated. An error ends it: as an event, without the last one of an answer that is complete.
pub(super) fn streamed(running: Running, writer: Writer, includes_usage: bool) -> Response {
    let Writer { envelope, form, answers, listener } = writer;
    let chunks = Chunks::new(envelope, form, answers, includes_usage);
    let feed = Feed { running, listener, chunks, waiting: VecDeque::new(), ended: false };
    let events = stream::unfold(feed, |mut feed| async move {
        let data = feed.next().await?;
        Some((Ok::<_, Infallible>(SseEvent::default().data(data)), feed))
    });
    let mut response = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response();
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response
}

struct Feed {
    running: Running,
    listener: Listener,
    chunks: Chunks,
    waiting: VecDeque<String>,
    ended: bool,
}

impl Feed {
    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(data) = self.waiting.pop_front() {
                return Some(data);
            }
            if self.ended {
                return None;
            }
            let heard = match self.running.next().await {
                Ok(Some(event)) => self.listener.hear(event),
                Ok(None) => Ok(None),
                Err(error) => Err(error),
            };
            match heard {
                Ok(Some(said)) => self.waiting.extend(self.chunks.on(&said).iter().map(Value::to_string)),
                Ok(None) => {}
                Err(error) => {
                    self.waiting.push_back(error.body().to_string());
                    self.ended = true;
                    continue;
                }
            }
            if self.chunks.is_complete() {
                self.waiting.push_back(DONE.to_string());
                self.ended = true;
            }
        }
    }
}
