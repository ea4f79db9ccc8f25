//! The feed-forward part of a block: one gated pair of matrices, or a mixture of many.
//!
//! A mixture computes each row by the experts that the router chose for it. Rows are gathered by expert, so that an expert's
//! weights are read once for all of its rows; a row's sum is in order of the experts' numbers. Neither depends on what shares the
//! call, since a row of a matrix product does not.

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use crate::config::{Activation, Experts, ModelConfig};
use crate::elementwise::gated;
use crate::error::ModelError;
use crate::linear::Linear;
use crate::routing::{Share, by_expert, choose};

/// Multiply-adds below which one thread goes through all experts: waking others would take longer.
const PARALLEL_WORK: usize = 1024 * 1024;

/// The weights of a feed-forward part.
#[derive(Debug, Clone)]
pub(crate) enum FeedForward<L = Linear> {
    Dense(Gated<L>),
    Experts(Mixture<L>),
}

/// `down(activation(gate(x), up(x)))`.
#[derive(Debug, Clone)]
pub(crate) struct Gated<L = Linear> {
    pub(crate) gate: L,
    pub(crate) up: L,
    pub(crate) down: L,
}

/// A router and its experts.
#[derive(Debug, Clone)]
pub(crate) struct Mixture<L = Linear> {
    /// `(experts, hidden)` in f32 in every format: it decides, and is small.
    pub(crate) router: L,
    pub(crate) experts: Vec<Gated<L>>,
}

impl FeedForward {
    /// `(rows, hidden)` f32 to the same.
    pub(crate) fn forward(&self, config: &ModelConfig, x: &Tensor) -> Result<Tensor, ModelError> {
        match (self, config.experts) {
            (Self::Dense(gated), _) => gated.forward(config.activation, x),
            (Self::Experts(mixture), Some(experts)) => mixture.forward(experts, config.activation, x),
            (Self::Experts(_), None) => Err(candle_core::Error::Msg("the model has no experts".into()).into()),
        }
    }
}

impl Gated {
    fn forward(&self, activation: Activation, x: &Tensor) -> Result<Tensor, ModelError> {
        let [gate, up] = Linear::forward_all([&self.gate, &self.up], x)?;
        self.down.forward(&gated(activation, &gate, &up)?)
    }
}

impl Mixture {
    fn forward(&self, experts: Experts, activation: Activation, x: &Tensor) -> Result<Tensor, ModelError> {
        let logits = self.router.forward(x)?.to_vec2::<f32>()?;
        let chosen: Vec<_> = logits.iter().map(|logits| choose(logits, experts)).collect();
        let shares = by_expert(&chosen, self.experts.len());
        let (rows, hidden) = x.dims2()?;
        let flat = x.flatten_all()?.to_vec1::<f32>()?;
        let compute = |(expert, shares): (&Gated, &Vec<Share>)| -> Result<Vec<f32>, ModelError> {
            if shares.is_empty() {
                return Ok(Vec::new());
            }
            let own = shares.iter().flat_map(|share| &flat[share.row * hidden..][..hidden]).copied();
            let own = Tensor::from_vec(own.collect::<Vec<f32>>(), (shares.len(), hidden), &Device::Cpu)?;
            Ok(expert.forward(activation, &own)?.flatten_all()?.to_vec1()?)
        };
        let work = rows * experts.chosen * 3 * hidden * experts.intermediate;
        let outputs: Result<Vec<_>, _> = match work < PARALLEL_WORK || rayon::current_num_threads() == 1 {
            true => self.experts.iter().zip(&shares).map(compute).collect(),
            // Experts beside one another, and each cut into panels: idle threads find work wherever it is.
            false => self.experts.par_iter().zip(&shares).map(compute).collect(),
        };
        let mut out = vec![0.0_f32; rows * hidden];
        for (output, shares) in outputs?.iter().zip(&shares) {
            for (output, share) in output.chunks_exact(hidden).zip(shares) {
                let sums = out[share.row * hidden..][..hidden].iter_mut().zip(output);
                sums.for_each(|(sum, value)| *sum += share.weight * value);
            }
        }
        Ok(Tensor::from_vec(out, (rows, hidden), &Device::Cpu)?)
    }
}
