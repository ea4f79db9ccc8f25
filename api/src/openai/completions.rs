//! `/v1/completions`: texts that are continued.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;
use swarm_client::{GenerationConfig, Model};
use swarm_protocol::wire::MAX_TOP_TOKENS;

use super::completion_form::CompletionForm;
use super::error::ApiError;
use super::generate::{Prepared, fitting, respond};
use super::input::{Input, Tokens};
use super::options::Options;
use super::run::Text;
use super::{asking, body};
use crate::Host;
use crate::gate::Owner;
use crate::request_id::RequestId;

/// Tokens of an answer when the request does not say how many: OpenAI's number.
const SILENT_ANSWER: usize = 16;

/// Prompts of one request.
const MOST_PROMPTS: usize = 128;

/// What a completion has beside what all requests share.
#[derive(Debug, Deserialize)]
struct CompletionRequest {
    prompt: Option<Input>,
    logprobs: Option<u32>,
    echo: Option<bool>,
    suffix: Option<String>,
}

/// Continues texts.
pub(super) async fn complete(
    State(host): State<Arc<Host>>,
    id: Extension<RequestId>,
    owner: Extension<Owner>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let bytes = body::read(&host, &headers, body).await?;
    let options: Arc<Options> = Arc::new(body::parse(&bytes)?);
    let request: Arc<CompletionRequest> = Arc::new(body::parse(&bytes)?);
    drop(bytes);
    let asked = asking::asked(&headers, id, owner, options.service_tier.as_deref())?;
    let read = options.clone();
    respond(&host, &asked, &options, move |model| request.prepare(&read, model)).await
}

impl CompletionRequest {
    fn prepare(&self, options: &Options, model: &Model) -> Result<Prepared, ApiError> {
        let answers = options.answers()?;
        if self.suffix.as_ref().is_some_and(|suffix| !suffix.is_empty()) {
            return Err(ApiError::unsupported("suffix", "suffix is not supported here."));
        }
        let probabilities = match self.logprobs {
            Some(top) if top > MAX_TOP_TOKENS => {
                return Err(ApiError::bad(
                    "logprobs",
                    format!("logprobs is {top}; it must be from 0 to {MAX_TOP_TOKENS}."),
                ));
            }
            top => top.map(|top| top as usize),
        };
        let echo = self.echo.unwrap_or(false);
        if echo && probabilities.is_some() {
            return Err(ApiError::unsupported("echo", "echo together with logprobs is not supported here."));
        }
        let missing = || ApiError::bad("prompt", "prompt is missing; give a text to continue.");
        let prompts = self.prompt.as_ref().ok_or_else(missing)?.each("prompt", MOST_PROMPTS)?;
        let most = options.most_tokens(SILENT_ANSWER)?;
        let seed = options.seed();
        let (mut texts, mut before) = (Vec::new(), Vec::new());
        for (place, tokens) in prompts.iter().enumerate() {
            let prompt = tokens.ids(model, "prompt")?;
            let max_tokens = fitting("prompt", prompt.len(), most, model.max_positions())?;
            let first = place * answers as usize;
            let base = GenerationConfig { max_tokens, probabilities, ..GenerationConfig::default() };
            let configs = options.configs(model.defaults(), seed, &base)?;
            let repeated = if echo { tokens.text(model)? } else { String::new() };
            before.extend((0..answers).map(|_| repeated.clone()));
            texts.push(Text { prompt, first, answers: configs });
        }
        Ok(Prepared {
            id: "cmpl",
            texts,
            guided_by: "prompt",
            odds: probabilities.is_some(),
            form: Box::new(CompletionForm::new(probabilities.is_some(), before)),
        })
    }
}

impl Tokens<'_> {
    /// The text, for who wants it repeated.
    fn text(&self, model: &Model) -> Result<String, ApiError> {
        match self {
            Self::Text(text) => Ok((*text).to_string()),
            Self::Ids(ids) => {
                let mut decoder = model.decoder();
                let mut text = String::new();
                for id in *ids {
                    text.extend(decoder.push(*id)?);
                }
                text.extend(decoder.flush()?);
                Ok(text)
            }
        }
    }
}
