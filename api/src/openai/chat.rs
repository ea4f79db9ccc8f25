//! `/v1/chat/completions`.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;
use swarm_client::{GenerationConfig, Model};
use swarm_model::ChatOptions;
use swarm_protocol::wire::MAX_TOP_TOKENS;

use super::chat_form::{ChatForm, Tools};
use super::error::ApiError;
use super::generate::{Prepared, fitting, respond};
use super::guided::{Guidance, Guided};
use super::messages::{Message, for_template};
use super::options::{Options, silent_answer};
use super::run::Text;
use super::{asking, body};
use crate::Host;
use crate::gate::Owner;
use crate::request_id::{RequestId, random};

/// What a chat has beside what all requests share.
#[derive(Debug, Deserialize)]
struct ChatRequest {
    messages: Vec<Message>,
    logprobs: Option<bool>,
    top_logprobs: Option<u32>,
}

/// Answers a conversation.
pub(super) async fn chat(
    State(host): State<Arc<Host>>,
    id: Extension<RequestId>,
    owner: Extension<Owner>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let bytes = body::read(&host, &headers, body).await?;
    let options: Arc<Options> = Arc::new(body::parse(&bytes)?);
    let request: Arc<ChatRequest> = Arc::new(body::parse(&bytes)?);
    let guidance: Arc<Guidance> = Arc::new(body::parse(&bytes)?);
    drop(bytes);
    let asked = asking::asked(&headers, id, owner, options.service_tier.as_deref())?;
    let read = options.clone();
    respond(&host, &asked, &options, move |model| request.prepare(&read, &guidance, model)).await
}

impl ChatRequest {
    fn prepare(&self, options: &Options, guidance: &Guidance, model: &Model) -> Result<Prepared, ApiError> {
        options.answers()?;
        let probabilities = self.probabilities()?;
        let Guided { tools, constraint, field } = guidance.understood(model)?;
        let shown = ChatOptions { tools: tools.clone(), ..ChatOptions::default() };
        let prompt = model.encode_chat_with(&for_template(&self.messages)?, &shown)?;
        let most = options.most_tokens(silent_answer(model.defaults()))?;
        let max_tokens = fitting("messages", prompt.len(), most, model.max_positions())?;
        let format = model.tool_format();
        let shown_tokens = if tools.is_empty() { Vec::new() } else { format.shown_tokens() };
        let base =
            GenerationConfig { max_tokens, probabilities, constraint, shown_tokens, ..GenerationConfig::default() };
        let answers = options.configs(model.defaults(), options.seed(), &base)?;
        let tools = (!tools.is_empty()).then(|| Tools::new(format, tools, random()));
        Ok(Prepared {
            id: "chatcmpl",
            texts: vec![Text { prompt, first: 0, answers }],
            guided_by: field,
            odds: probabilities.is_some(),
            form: Box::new(ChatForm { odds: probabilities.is_some(), tools }),
        })
    }

    fn probabilities(&self) -> Result<Option<usize>, ApiError> {
        match (self.logprobs.unwrap_or(false), self.top_logprobs) {
            (_, Some(top)) if top > MAX_TOP_TOKENS => {
                let message = format!("top_logprobs is {top}; it must be from 0 to {MAX_TOP_TOKENS}.");
                Err(ApiError::bad("top_logprobs", message))
            }
            (false, Some(1..)) => {
                Err(ApiError::bad("top_logprobs", "top_logprobs is only allowed when logprobs is true."))
            }
            (false, _) => Ok(None),
            (true, top) => Ok(Some(top.unwrap_or(0) as usize)),
        }
    }
}
