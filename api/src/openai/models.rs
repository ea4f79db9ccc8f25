//! `/v1/models`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};
use swarm_client::Model;

use super::error::ApiError;
use crate::Host;

/// Who owns models: nobody knows better.
const OWNER: &str = "swarm";

/// All models.
pub(super) async fn list(State(host): State<Arc<Host>>) -> Json<Value> {
    let data: Vec<Value> = host.named_models().map(|(name, model)| object(&host, name, model)).collect();
    Json(json!({"object": "list", "data": data}))
}

/// One model.
pub(super) async fn one(State(host): State<Arc<Host>>, Path(name): Path<String>) -> Result<Json<Value>, ApiError> {
    let (name, model) = find(&host, Some(&name))?;
    Ok(Json(object(&host, &name, &model)))
}

fn object(host: &Host, name: &str, model: &Model) -> Value {
    json!({
        "id": name,
        "object": "model",
        "created": host.started(),
        "owned_by": OWNER,
        "context_length": model.max_positions(),
        "format": model.format().to_string(),
        "model_id": model.id().to_string(),
    })
}

/// The model that a request names; the first one if it names none.
///
/// # Errors
/// [`ApiError`] if there is no such model.
pub(super) fn find(host: &Host, name: Option<&str>) -> Result<(String, Arc<Model>), ApiError> {
    let named = name.map(str::trim).filter(|name| !name.is_empty());
    let mut models = host.named_models();
    let found = match named {
        None => models.next(),
        Some(name) => models.find(|(known, _)| *known == name),
    };
    let Some((name, model)) = found else {
        let known: Vec<&str> = host.named_models().map(|(name, _)| name).collect();
        return Err(ApiError::no_model(named.unwrap_or_default(), &known));
    };
    Ok((name.to_string(), model.clone()))
}
