//! Keeps a text within its constraint.

use swarm_model::{Constraint, Grammars, ModelError, TextMatcher, TokenMask};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::session::SessionError;

/// Which tokens may come next: worked out on a thread of its own, while the step before is on its way around the chain. What is
/// known follows from the tokens, so a server that is lost takes nothing of it along.
pub(super) struct Guide {
    grammars: Grammars,
    /// Away while it is worked on; missing for good only after an error, or when a call was dropped.
    state: Option<State>,
}

enum State {
    /// Nothing has been done yet.
    Wanted(Constraint),
    /// It knows the text so far.
    Rests(Box<TextMatcher>),
    Works(JoinHandle<Result<Worked, ModelError>>),
}

type Worked = (Box<TextMatcher>, TokenMask);

impl Guide {
    pub(super) fn new(grammars: Grammars, constraint: Constraint) -> Self {
        Self { grammars, state: Some(State::Wanted(constraint)) }
    }

    /// Begins to work out what may come next.
    pub(super) fn begin(&mut self) {
        let masked = |mut matcher: Box<TextMatcher>| {
            let mask = matcher.mask()?;
            Ok((matcher, mask))
        };
        self.state = self.state.take().map(|state| match state {
            State::Wanted(constraint) => {
                let grammars = self.grammars.clone();
                State::Works(spawn_blocking(move || masked(Box::new(grammars.matcher(&constraint)?))))
            }
            State::Rests(matcher) => State::Works(spawn_blocking(move || masked(matcher))),
            works => works,
        });
    }

    /// What may come next.
    ///
    /// # Errors
    /// [`SessionError::Model`] if the constraint cannot be used, or has become too complex.
    pub(super) async fn mask(&mut self) -> Result<TokenMask, SessionError> {
        self.begin();
        let Some(State::Works(work)) = self.state.take() else { return Err(SessionError::Stopped) };
        let (matcher, mask) = work.await.map_err(|_| SessionError::Stopped)??;
        self.state = Some(State::Rests(matcher));
        Ok(mask)
    }

    /// A token was chosen; whether the text is complete with it.
    ///
    /// # Errors
    /// [`SessionError::Model`] if the token was not allowed.
    pub(super) fn accept(&mut self, id: u32) -> Result<bool, SessionError> {
        let Some(State::Rests(matcher)) = &mut self.state else { return Err(SessionError::Stopped) };
        matcher.accept(id)?;
        Ok(matcher.is_complete())
    }
}
