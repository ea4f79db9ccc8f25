//! How likely a token was among all others.

use std::cmp::Reverse;

use candle_core::{DType, Tensor};

use crate::error::ModelError;

/// Natural logarithms of probabilities as the model gives them: before penalties, temperature and cuts.
#[derive(Debug, Clone, PartialEq)]
pub struct LogProbabilities {
    /// The token's that was chosen.
    pub chosen: f32,
    /// The likeliest tokens with theirs, the likeliest first; of equal ones the lower id.
    pub top: Vec<(u32, f32)>,
}

impl LogProbabilities {
    /// Those of the token `chosen` and of the `top` likeliest, from logits `(vocab)`.
    ///
    /// # Errors
    /// [`ModelError::TokenOutOfRange`] if there is no such token.
    pub fn of(logits: &Tensor, chosen: u32, top: usize) -> Result<Self, ModelError> {
        let logits = logits.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
        let vocab = logits.len();
        let own = *logits.get(chosen as usize).ok_or(ModelError::TokenOutOfRange { id: chosen, vocab })?;
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        // Hundreds of thousands of small terms: their sum needs more than 24 bits.
        let sum: f64 = logits.iter().map(|logit| f64::from(logit - largest).exp()).sum();
        let log = |logit: f32| (f64::from(logit - largest) - sum.ln()) as f32;
        let likeliest = likeliest(&logits, top).into_iter();
        let top = likeliest.map(|id| (id, log(logits[id as usize]))).collect();
        Ok(Self { chosen: log(own), top })
    }
}

fn likeliest(logits: &[f32], count: usize) -> Vec<u32> {
    let count = count.min(logits.len());
    let order = |id: &u32| (Reverse(Ordered(logits[*id as usize])), *id);
    let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
    if count < ids.len() {
        ids.select_nth_unstable_by_key(count, order);
        ids.truncate(count);
    }
    ids.sort_unstable_by_key(order);
    ids
}

/// Floats in their total order.
#[derive(PartialEq)]
struct Ordered(f32);

impl Eq for Ordered {}

impl PartialOrd for Ordered {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ordered {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn of(logits: &[f32], chosen: u32, top: usize) -> Result<LogProbabilities, ModelError> {
        LogProbabilities::of(&Tensor::new(logits, &Device::Cpu).unwrap(), chosen, top)
    }

    #[test]
    fn probabilities_are_those_of_a_softmax() {
        let logits = [1.0f32, 3.0, -2.0, 3.0, 500.0 - 499.5];
        let sum: f32 = logits.iter().map(|logit| logit.exp()).sum();
        let log = |id: usize| (logits[id].exp() / sum).ln();
        let found = of(&logits, 2, 3).unwrap();
        assert!((found.chosen - log(2)).abs() < 1e-6);
        let ids: Vec<u32> = found.top.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids, [1, 3, 0], "equal ones in the order of their ids");
        assert!(found.top.iter().all(|(id, found)| (found - log(*id as usize)).abs() < 1e-6));
        let whole: f32 = of(&logits, 0, 99).unwrap().top.iter().map(|(_, log)| log.exp()).sum();
        assert!((whole - 1.0).abs() < 1e-6);
        // Exponentials of these alone are infinite.
        assert_eq!(of(&[1000.0, 0.0], 0, 0).unwrap(), LogProbabilities { chosen: 0.0, top: vec![] });
        assert!(of(&logits, 5, 1).is_err());
    }
}
