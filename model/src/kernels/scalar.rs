//! The kernel that runs everywhere, and that the others are tested against.

use super::quant::{self, Cell, Format};
use super::{Kernel, LANES, Lanes, Stored, matmul, portable, sum_lanes};
use crate::config::Activation;

/// Plain Rust; fused multiply-add in hardware where the target has it, in software where not.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scalar;

impl Kernel for Scalar {
    fn dot_tile<E: Stored, const R: usize, const O: usize>(
        self,
        x: [&[f32]; R],
        w: [&[E]; O],
        _ask: bool,
        sums: &mut [Lanes],
        (first, stride): (usize, usize),
    ) {
        for (row, x) in x.iter().enumerate() {
            for (w, sums) in w.iter().zip(&mut sums[first + row * stride..][..O]) {
                dot(x, w, sums);
            }
        }
    }

    fn sum_all(self, lanes: &[Lanes], sums: &mut [f32]) {
        sums.iter_mut().zip(lanes).for_each(|(sum, lanes)| *sum = sum_lanes(lanes));
    }

    fn short_dots<E: Stored, const R: usize, const O: usize>(
        self,
        x: [&[f32]; R],
        w: (&[E], &[E]),
        y: &mut [f32],
        place: (usize, usize),
    ) {
        matmul::short_dots::<_, E, R, O>(self, x, w, y, place);
    }

    fn weighted_sums<E: Stored, const R: usize>(
        self,
        weights: [&[f32]; R],
        (values, _next): (&[E], &[E]),
        sums: &mut [f32],
    ) {
        let width = (sums.len() / R).max(1);
        for (weights, sum) in weights.into_iter().zip(sums.chunks_exact_mut(width)) {
            for (&weight, values) in weights.iter().zip(values.chunks_exact(width)) {
                for (sum, value) in sum.iter_mut().zip(values) {
                    *sum = weight.mul_add(value.widen(), *sum);
                }
            }
        }
    }

    fn largest(self, scores: &[f32]) -> f32 {
        portable::largest(scores)
    }

    fn soften(self, scores: &mut [f32], max: f32, scale: f32, sums: &mut Lanes) {
        portable::soften(scores, max, scale, sums);
    }

    fn activate(self, activation: Activation, gate: &mut [f32], up: &[f32]) {
        portable::activate(activation, gate, up);
    }

    fn cap(self, scores: &mut [f32], scale: f32, cap: f32) {
        portable::cap(scores, scale, cap);
    }

    fn quantise_row(self, x: &[f32], cells: &mut [Cell]) {
        quant::quantise_row(x, cells);
    }

    fn add_slabs<F: Format, const R: usize>(self, slabs: &[F::Slab], x: [&[Cell]; R], sums: &mut [Lanes; R]) {
        quant::add_slabs::<F, R>(slabs, x, sums);
    }
}

fn dot<E: Stored>(x: &[f32], w: &[E], sums: &mut Lanes) {
    for (x, w) in x.chunks(LANES).zip(w.chunks(LANES)) {
        for (lane, sum) in sums.iter_mut().enumerate() {
            let x = x.get(lane).copied().unwrap_or(0.0);
            let w = w.get(lane).map_or(0.0, |w| w.widen());
            *sum = w.mul_add(x, *sum);
        }
    }
}
