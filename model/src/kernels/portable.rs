//! What needs no intrinsics: written once, and compiled again inside the kernels' wider instruction sets. Rust neither
//! reorders nor fuses float operations by itself, so every compilation gives the same bits.

use std::f32::consts::LOG2_E;

use super::{LANES, Lanes};
use crate::config::Activation;

/// Adding and subtracting 1.5 * 2^23 rounds a small float to the nearest integer, kept in the sum's low bits.
const ROUND: f32 = 12_582_912.0;
/// ln 2 in two pieces, the first exact in few bits (Cody and Waite).
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;

/// e^x to about one unit in the last place; own code because libm's differs between systems and does not vectorise.
/// Infinite from 88.4, and stays at e^-87.3 below. Coefficients from Cephes `expf`.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    let x = if x < -87.3 { -87.3 } else { x };
    let x = if x > 89.0 { 89.0 } else { x };
    let shifted = x.mul_add(LOG2_E, ROUND);
    let power = shifted - ROUND;
    let rest = power.mul_add(-LN2_HIGH, x);
    let rest = power.mul_add(-LN2_LOW, rest);
    let mut sum = 1.987_569_1e-4_f32;
    sum = sum.mul_add(rest, 1.398_199_9e-3);
    sum = sum.mul_add(rest, 8.333_452e-3);
    sum = sum.mul_add(rest, 4.166_579_6e-2);
    sum = sum.mul_add(rest, 1.666_666_6e-1);
    sum = sum.mul_add(rest, 0.5);
    let mantissa = sum.mul_add(rest * rest, rest) + 1.0;
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    mantissa * f32::from_bits(exponent)
}

#[inline(always)]
pub(super) fn largest(scores: &[f32]) -> f32 {
    let mut max = [f32::NEG_INFINITY; LANES];
    let larger = |score: f32, max: f32| if score > max { score } else { max };
    let (whole, rest) = scores.as_chunks::<LANES>();
    for chunk in whole {
        for lane in 0..LANES {
            max[lane] = larger(chunk[lane], max[lane]);
        }
    }
    max.into_iter().chain(rest.iter().copied()).fold(f32::NEG_INFINITY, |a, b| larger(b, a))
}

#[inline(always)]
pub(super) fn soften(scores: &mut [f32], max: f32, scale: f32, sums: &mut Lanes) {
    let (whole, rest) = scores.as_chunks_mut::<LANES>();
    let mut lanes = *sums;
    for chunk in whole {
        for lane in 0..LANES {
            chunk[lane] = exp((chunk[lane] - max) * scale);
            lanes[lane] += chunk[lane];
        }
    }
    for (score, sum) in rest.iter_mut().zip(&mut lanes) {
        *score = exp((*score - max) * scale);
        *sum += *score;
    }
    *sums = lanes;
}

/// Twice the square root of 2 / pi, and the coefficient of the cube, of the tanh approximation of gelu (Hendrycks and Gimpel
/// 2016): half of 1 + tanh(x) is the sigmoid of 2x.
const GELU_SLOPE: f32 = 1.595_769;
const GELU_CUBE: f32 = 0.044_715;

#[inline(always)]
pub(super) fn activate(activation: Activation, gate: &mut [f32], up: &[f32]) {
    match activation {
        Activation::Silu => {
            for (gate, &up) in gate.iter_mut().zip(up) {
                *gate = *gate / (1.0 + exp(-*gate)) * up;
            }
        }
        Activation::GeluTanh => {
            for (gate, &up) in gate.iter_mut().zip(up) {
                let slope = GELU_SLOPE * (1.0 + GELU_CUBE * *gate * *gate);
                *gate = *gate / (1.0 + exp(-slope * *gate)) * up;
            }
        }
        Activation::ClampedSilu { alpha, limit } => {
            for (gate, &up) in gate.iter_mut().zip(up) {
                let up = if up > limit { limit } else { up };
                let up = if up < -limit { -limit } else { up };
                let low = if *gate > limit { limit } else { *gate };
                *gate = low / (1.0 + exp(-alpha * low)) * (up + 1.0);
            }
        }
    }
}

#[inline(always)]
pub(super) fn cap(scores: &mut [f32], scale: f32, cap: f32) {
    for score in scores {
        let ratio = *score * scale / cap;
        // tanh by an exponential that does not overflow.
        let small = exp(-2.0 * ratio.abs());
        *score = ((1.0 - small) / (1.0 + small)).copysign(ratio) * cap;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activations_and_caps_are_their_formulas() {
        let gates: Vec<f32> = (-90..90).map(|i| i as f32 / 7.0).collect();
        let near = |a: f32, b: f64| assert!((f64::from(a) - b).abs() < 2e-6 * b.abs().max(1.0), "{a} {b}");
        let with = |activation| {
            let mut out = gates.clone();
            activate(activation, &mut out, &vec![9.0; gates.len()]);
            gates.clone().into_iter().map(f64::from).zip(out)
        };
        for (x, y) in with(Activation::GeluTanh) {
            let tanh = ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh();
            near(y, 0.5 * x * (1.0 + tanh) * 9.0);
        }
        for (x, y) in with(Activation::ClampedSilu { alpha: 1.702, limit: 7.0 }) {
            let x = x.min(7.0);
            near(y, x / (1.0 + (-1.702 * x).exp()) * 8.0);
        }
        let mut capped = gates.clone();
        cap(&mut capped, 0.5, 3.0);
        gates.iter().zip(capped).for_each(|(x, y)| near(y, 3.0 * (f64::from(*x) / 6.0).tanh()));
    }

    #[test]
    fn exp_is_as_good_as_f32_allows() {
        // An interpreter takes its time.
        let step = if cfg!(miri) { 997 } else { 1 };
        let worst = (-87_000..88_300)
            .step_by(step)
            .map(|i| i as f32 / 1000.0)
            .map(|x| (f64::from(exp(x)) / f64::from(x).exp() - 1.0).abs())
            .fold(0.0, f64::max);
        assert!(worst < 2.5e-7, "{worst}");
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert!(exp(f32::NEG_INFINITY) < 1e-37);
        assert!(exp(f32::NAN).is_nan());
    }
}
