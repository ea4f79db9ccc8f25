//! The rows that crossed a boundary, kept so that a hop can be fed them again.

use super::work::Input;

/// Rows of activations: one per position.
pub trait Rows: Clone {
    /// How many rows.
    fn rows(&self) -> usize;
    /// A copy of the `count` rows from row `from` on; both lie within the rows.
    fn slice(&self, from: usize, count: usize) -> Self;
    /// Puts `more` after the rows.
    fn append(&mut self, more: Self);
    /// Forgets all but the first `rows` rows.
    fn truncate(&mut self, rows: usize);
}

/// The rows from position 0 on; no rows are no value, since only rows know their width.
#[derive(Debug, Clone)]
pub(super) struct History<R> {
    rows: Option<R>,
}

impl<R> Default for History<R> {
    fn default() -> Self {
        Self { rows: None }
    }
}

impl<R: Rows> History<R> {
    pub(super) fn len(&self) -> usize {
        self.rows.as_ref().map_or(0, Rows::rows)
    }

    pub(super) fn append(&mut self, more: R) {
        match &mut self.rows {
            Some(rows) => rows.append(more),
            None => self.rows = Some(more),
        }
    }

    pub(super) fn slice(&self, from: usize, count: usize) -> Option<R> {
        self.rows.as_ref().map(|rows| rows.slice(from, count))
    }

    pub(super) fn truncate(&mut self, length: usize) {
        match &mut self.rows {
            Some(_) if length == 0 => self.rows = None,
            Some(rows) if length < rows.rows() => rows.truncate(length),
            _ => {}
        }
    }
}

/// The first hop's input.
#[derive(Debug, Clone)]
pub(super) enum Source<R> {
    /// That many token ids, which the driver holds.
    Tokens(usize),
    /// Rows that nobody else could make again.
    Rows(History<R>),
}

impl<R: Rows> Source<R> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Tokens(length) => *length,
            Self::Rows(history) => history.len(),
        }
    }

    pub(super) fn kept_rows(&self) -> usize {
        match self {
            Self::Tokens(_) => 0,
            Self::Rows(history) => history.len(),
        }
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
