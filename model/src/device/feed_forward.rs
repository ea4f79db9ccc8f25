//! The feed-forward part of a block on a device.

use candle_core::Tensor;
use candle_nn::ops::sigmoid;

use super::DeviceLinear;
use crate::config::{Activation, Experts, ModelConfig};
use crate::error::ModelError;
use crate::feed_forward::{FeedForward, Gated, Mixture};
use crate::routing::{by_expert, choose};

impl FeedForward<DeviceLinear> {
    /// `(rows, hidden)` f32 to the same.
    pub(super) fn forward_on_device(&self, config: &ModelConfig, x: &Tensor) -> Result<Tensor, ModelError> {
        match (self, config.experts) {
            (Self::Dense(gated), _) => gated.forward(config.activation, x),
            (Self::Experts(mixture), Some(experts)) => mixture.forward(experts, config.activation, x),
            (Self::Experts(_), None) => Err(candle_core::Error::Msg("the model has no experts".into()).into()),
        }
    }
}

impl Gated<DeviceLinear> {
    fn forward(&self, activation: Activation, x: &Tensor) -> Result<Tensor, ModelError> {
        let rounded = self.gate.rounded(x)?;
        let (gate, up) = (self.gate.forward(&rounded)?, self.up.forward(&rounded)?);
        let gated = match activation {
            Activation::Silu => (gate.silu()? * up)?,
            Activation::GeluTanh => (gate.gelu()? * up)?,
            Activation::ClampedSilu { alpha, limit } => {
                let gate = gate.minimum(limit)?;
                let up = up.clamp(-limit, limit)?;
                ((&gate * sigmoid(&(&gate * f64::from(alpha))?)?)? * (up + 1.0)?)?
            }
        };
        self.down.forward(&self.down.rounded(&gated)?)
    }
}

impl Mixture<DeviceLinear> {
    /// The router's logits come to the host, which chooses as it does for our kernels; each expert gets its rows.
    fn forward(&self, experts: Experts, activation: Activation, x: &Tensor) -> Result<Tensor, ModelError> {
        let logits = self.router.forward(&self.router.rounded(x)?)?.to_vec2::<f32>()?;
        let chosen: Vec<_> = logits.iter().map(|logits| choose(logits, experts)).collect();
        let mut out = x.zeros_like()?;
        for (expert, shares) in self.experts.iter().zip(by_expert(&chosen, self.experts.len())) {
            if shares.is_empty() {
                continue;
            }
            let rows: Vec<u32> = shares.iter().map(|share| share.row as u32).collect();
            let weights: Vec<f32> = shares.iter().map(|share| share.weight).collect();
            let rows = Tensor::new(rows, x.device())?;
            let weights = Tensor::new(weights, x.device())?.unsqueeze(1)?;
            let computed = expert.forward(activation, &x.index_select(&rows, 0)?)?;
            out = out.index_add(&rows, &computed.broadcast_mul(&weights)?, 0)?;
        }
        Ok(out)
    }
}
