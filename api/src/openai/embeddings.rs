//! `/v1/embeddings`: the mean of a text's hidden states behind the last block and the final norm, of length 1.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::{Extension, Json};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use serde_json::{Value, json};
use swarm_client::Model;

use super::error::ApiError;
use super::generate::in_turn;
use super::input::Input;
use super::models::find;
use super::run::admit;
use super::{asking, body};
use crate::Host;
use crate::gate::Owner;
use crate::request_id::RequestId;

/// Texts of one request: OpenAI's number.
const MOST_TEXTS: usize = 2048;

/// Tokens of all texts of one request together: OpenAI's number.
const MOST_TOKENS: usize = 300_000;

/// Texts that are computed at the same time, each in a session of its own.
const TEXTS_AT_ONCE: usize = 8;

/// Tokens of a text that are computed and added at a time.
const PIECE: usize = 256;

/// A request.
#[derive(Debug, Deserialize)]
struct EmbeddingRequest {
    model: Option<String>,
    input: Input,
    #[serde(default)]
    encoding_format: Encoding,
    dimensions: Option<usize>,
    service_tier: Option<String>,
}

/// How a vector is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    /// A list of numbers.
    #[default]
    Float,
    /// f32, little-endian, in base64.
    Base64,
}

/// Computes embeddings.
pub(super) async fn embed(
    State(host): State<Arc<Host>>,
    id: Extension<RequestId>,
    owner: Extension<Owner>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let bytes = body::read(&host, &headers, body).await?;
    let request: EmbeddingRequest = body::parse(&bytes)?;
    let asked = asking::asked(&headers, id, owner, request.service_tier.as_deref())?;
    let (name, model) = find(&host, request.model.as_deref())?;
    let width = model.config().hidden;
    if request.dimensions.is_some_and(|dimensions| dimensions != width) {
        let message = format!("This model's embeddings have {width} dimensions, and no others.");
        return Err(ApiError::unsupported("dimensions", message));
    }
    let (input, reader) = (request.input, model.clone());
    let tokens_of = move || -> Result<Vec<_>, _> {
        input.each("input", MOST_TEXTS)?.iter().map(|text| text.ids(&reader, "input")).collect()
    };
    let texts = in_turn(&host, &asked, tokens_of).await?;
    let longest = texts.iter().map(Vec::len).max().unwrap_or(1);
    if longest > model.max_positions() {
        return Err(ApiError::too_long("input", longest, model.max_positions()));
    }
    let tokens: usize = texts.iter().map(Vec::len).sum();
    if tokens > MOST_TOKENS {
        return Err(ApiError::bad("input", format!("input has {tokens} tokens; at most {MOST_TOKENS} are taken.")));
    }
    let _permit = admit(&host, &asked, &model, longest).await?;
    host.usage().took_in(tokens, 0);
    let timeout = host.config().request_timeout;
    let computing: Vec<_> = texts.into_iter().map(|ids| vector(&model, ids)).collect();
    let vectors = stream::iter(computing).buffered(TEXTS_AT_ONCE).try_collect::<Vec<_>>();
    let vectors = tokio::time::timeout_at((asked.received + timeout).into(), vectors).await;
    let vectors = vectors.map_err(|_| ApiError::deadline(timeout.as_secs_f64()))??;
    let data: Vec<Value> = vectors.iter().enumerate().map(|(index, vector)| {
        json!({"object": "embedding", "index": index, "embedding": request.encoding_format.write(vector)})
    }).collect();
    Ok(Json(json!({
        "object": "list",
        "data": data,
        "model": name,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        "swarm": {"request_id": asked.request_id},
    })))
}

/// The embedding of a text.
async fn vector(model: &Model, ids: Vec<u32>) -> Result<Vec<f32>, ApiError> {
    let mut session = model.session(model.config().all_blocks()?, ids.len()).await?;
    let mut sum = vec![0f64; model.config().hidden];
    // Piece by piece: a long text's rows are never all here, and others choose tokens in between.
    for piece in ids.chunks(PIECE) {
        let rows = session.forward(&model.embed(piece).await?).await?;
        for row in model.final_norm(&rows).await? {
            sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(value));
        }
    }
    Ok(direction(&sum))
}

/// The vector of length 1 that goes where `sum` goes: the sum of the rows points where their mean does.
fn direction(sum: &[f64]) -> Vec<f32> {
    let length = sum.iter().map(|value| value * value).sum::<f64>().sqrt();
    // A text of nothing but zeros has no direction.
    sum.iter().map(|value| if length > 0.0 { (value / length) as f32 } else { 0.0 }).collect()
}

impl Encoding {
    fn write(self, vector: &[f32]) -> Value {
        match self {
            Self::Float => json!(vector),
            Self::Base64 => {
                let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
                json!(BASE64_STANDARD.encode(bytes))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_has_length_one() {
        assert_eq!(direction(&[6.0, 8.0]), [0.6, 0.8]);
        assert_eq!(direction(&[0.0, 0.0]), [0.0, 0.0]);
    }

    #[test]
    fn both_encodings_hold_the_same_numbers() {
        let vector = [0.6f32, -0.8];
        assert_eq!(Encoding::Float.write(&vector), json!([0.6f32, -0.8f32]));
        let text = Encoding::Base64.write(&vector);
        let bytes = BASE64_STANDARD.decode(text.as_str().unwrap()).unwrap();
        let read: Vec<f32> = bytes.chunks(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
        assert_eq!(read, vector);
    }
}
