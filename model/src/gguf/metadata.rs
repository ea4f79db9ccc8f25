//! A file's metadata by key.

use std::collections::BTreeMap;

use super::header::Arrays;
use super::value::Value;
use crate::error::ModelError;

/// The longest list read: one element for each token of the largest vocabularies, times sixteen.
const MOST_LISTED: u64 = 1 << 22;

/// The metadata of a model's first file, and the file to read arrays from.
pub(super) struct Metadata<'a> {
    pub(super) values: &'a BTreeMap<String, Value>,
    pub(super) arrays: Arrays<'a>,
}

impl Metadata<'_> {
    /// An error that speaks of a key.
    pub(super) fn bad(&self, key: &str, reason: impl std::fmt::Display) -> ModelError {
        ModelError::file(self.arrays.file, format!("its metadata's {key} {reason}"))
    }

    fn get<T>(&self, key: &str, kind: &str, read: impl Fn(&Value) -> Option<T>) -> Result<Option<T>, ModelError> {
        match self.values.get(key) {
            None => Ok(None),
            Some(value) => match read(value) {
                Some(value) => Ok(Some(value)),
                None => Err(self.bad(key, format!("is {value:?}; it should be {kind}"))),
            },
        }
    }

    pub(super) fn u64(&self, key: &str) -> Result<Option<u64>, ModelError> {
        self.get(key, "a whole number", Value::as_u64)
    }

    pub(super) fn f64(&self, key: &str) -> Result<Option<f64>, ModelError> {
        self.get(key, "a number", Value::as_f64)
    }

    pub(super) fn bool(&self, key: &str) -> Result<Option<bool>, ModelError> {
        self.get(key, "true or false", Value::as_bool)
    }

    pub(super) fn str(&self, key: &str) -> Result<Option<&str>, ModelError> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(value) => Err(self.bad(key, format!("is {value:?}; it should be a text"))),
        }
    }

    /// How many elements an array has; 0 if there is none.
    pub(super) fn count(&self, key: &str) -> u64 {
        match self.values.get(key) {
            Some(Value::Array(array)) => array.count,
            _ => 0,
        }
    }

    /// The elements of an array, each as `read` takes it.
    pub(super) fn list<T>(&self, key: &str, read: impl Fn(&Value) -> Option<T>) -> Result<Option<Vec<T>>, ModelError> {
        let array = match self.values.get(key) {
            None => return Ok(None),
            Some(Value::Array(array)) => array,
            Some(value) => return Err(self.bad(key, format!("is {value:?}; it should be a list"))),
        };
        if array.count > MOST_LISTED {
            return Err(self.bad(key, format!("has {} elements; the most is {MOST_LISTED}", array.count)));
        }
        let values = self.arrays.read(array)?;
        let read: Option<Vec<T>> = values.iter().map(read).collect();
        read.map(Some).ok_or_else(|| self.bad(key, "has an element of another type than it should"))
    }

    /// A number that some files give once for each block: only if all blocks agree.
    pub(super) fn one_u64(&self, key: &str) -> Result<Option<u64>, ModelError> {
        if !matches!(self.values.get(key), Some(Value::Array(_))) {
            return self.u64(key);
        }
        let each = self.list(key, Value::as_u64)?.unwrap_or_default();
        match each.first() {
            Some(first) if each.iter().all(|value| value == first) => Ok(Some(*first)),
            _ => Err(self.bad(key, "differs from block to block, which is not supported")),
        }
    }
}
