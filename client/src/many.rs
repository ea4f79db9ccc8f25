//! Many texts at once: so many sessions side by side that every server of the route has something to compute. What one of
//! them waits for, the others' steps fill, and servers compute steps that wait at the same time together: texts go in
//! [convoys].

mod convoys;
mod departures;

use futures::stream::{self, Stream, StreamExt};
use swarm_protocol::trace_context::SPANS;
use tracing::{Instrument, info_span};

use self::departures::Departures;
use crate::generate::{GenerationConfig, GenerationEvent, Summary};
use crate::model::Model;
use crate::session::SessionError;

/// One text that is wanted.
#[derive(Debug, Clone)]
pub struct Prompt {
    /// The whole prompt, from its first token on.
    pub ids: Vec<u32>,
    /// How it is continued.
    pub config: GenerationConfig,
}

impl Model {
    /// Continues each of `prompts`, `parallel` (at least 1) at a time, each in a session of its own with no more room than
    /// it needs. Gives every text as soon as it is complete, with its place among the prompts; they are taken from the
    /// iterator only when their turn comes. A text is the one that it would be alone. Dropping the stream ends its sessions.
    ///
    /// # Errors
    /// A prompt whose session fails, or which does not fit the model's context, gives its [`SessionError`]; the others
    /// go on.
    pub fn generate_many<'a>(
        &'a self,
        prompts: impl IntoIterator<Item = Prompt> + 'a,
        parallel: usize,
    ) -> impl Stream<Item = (usize, Result<Summary, SessionError>)> + 'a {
        let departures = Departures::default();
        let texts = prompts.into_iter().enumerate().map(move |(place, prompt)| {
            let departures = departures.clone();
            let span = info_span!(target: SPANS, "text", line = place as i64);
            async move { (place, self.text(prompt, &departures).await) }.instrument(span)
        });
        stream::iter(texts).buffer_unordered(parallel.max(1))
    }

    /// One text, from a session of its own.
    async fn text(&self, Prompt { ids, config }: Prompt, departures: &Departures) -> Result<Summary, SessionError> {
        let room = self.max_positions().min(ids.len().saturating_add(config.max_tokens));
        let mut session = self.text_session_for(&ids, room).await?;
        let mut generation = session.generate(&ids, config)?;
        let seat = departures.join(&generation.route());
        loop {
            match generation.next().await? {
                Some(GenerationEvent::Done(summary)) => return Ok(summary),
                // Whoever has its last token goes no further.
                Some(GenerationEvent::Token { .. }) if !generation.is_over() => {
                    seat.wait_for_company(generation.route()).await
                }
                Some(_) => {}
                None => return Err(SessionError::Stopped),
            }
        }
    }
}
