//! The first hop's input.

use swarm_protocol::activations::{History, Rows};

use super::order::Input;

#[derive(Debug, Clone)]
pub(super) enum Source<R> {
    /// That many token ids, which the driver holds.
    Tokens(usize),
    /// Rows that nobody else could make again.
    Rows(History<R>),
}

impl<R: Rows> Source<R> {
    pub(super) fn rows() -> Self {
        Self::Rows(History::default())
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Tokens(length) => *length,
            Self::Rows(history) => history.end(),
        }
    }

    pub(super) fn kept_rows(&self) -> usize {
        match self {
            Self::Tokens(_) => 0,
            Self::Rows(history) => history.kept(),
        }
    }

    /// `None` if the input is no token ids.
    pub(super) fn add_tokens(&mut self, count: usize) -> Option<()> {
        match self {
            Self::Tokens(length) => *length += count,
            Self::Rows(_) => return None,
        }
        Some(())
    }

    /// `None` if the input is no rows.
    pub(super) fn add_rows(&mut self, rows: R) -> Option<()> {
        match self {
            Self::Tokens(_) => return None,
            Self::Rows(history) => history.append(rows),
        }
        Some(())
    }

    pub(super) fn slice(&self, from: usize, count: usize) -> Option<Input<R>> {
        match self {
            Self::Tokens(_) => Some(Input::Tokens),
            Self::Rows(history) => history.slice(from, count).map(Input::Rows),
        }
    }

    pub(super) fn truncate(&mut self, length: usize) {
        match self {
            Self::Tokens(tokens) => *tokens = length.min(*tokens),
            Self::Rows(history) => history.truncate(length),
        }
    }
}
