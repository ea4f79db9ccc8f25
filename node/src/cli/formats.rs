//! When nobody serves a model as it was asked for, it may be served in another format.

use anyhow::Result;
use swarm_client::{Model, SessionError, Swarm};
use swarm_protocol::model_id::WeightFormat;

use super::output::Hint;

/// `outcome`; if it failed for want of servers, with a hint at the formats in which the swarm does serve the model.
pub(crate) async fn or_other_formats<T>(swarm: &Swarm, model: &Model, outcome: Result<T>) -> Result<T> {
    let error = match outcome {
        Err(error) if matches!(error.downcast_ref(), Some(SessionError::NoPlan(_))) => error,
        other => return other,
    };
    let served = swarm.models().await;
    let others = WeightFormat::ALL.into_iter().filter(|format| *format != model.format());
    let others: Vec<String> = others
        .filter(|format| served.contains_key(&model.id_in(*format)))
        .map(|format| format!("`--format {format}`"))
        .collect();
    if others.is_empty() {
        return Err(error);
    }
    Err(error.context(Hint(format!("the swarm serves this model in another format: add {}", others.join(" or ")))))
}
