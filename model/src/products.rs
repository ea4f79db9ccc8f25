//! Rows times several matrices at once, shared among threads. How the work is cut decides which products are computed
//! together, never the order in which the products of one output are added.

use std::ops::Range;

use rayon::prelude::*;

use crate::weights::{Input, Matrix};

/// Multiply-adds below which splitting over threads costs more than it saves (about 10 µs of work).
const PARALLEL_WORK: usize = 256 * 1024;
/// Outputs below which one thread gathers all panels.
const PARALLEL_OUTPUTS: usize = 128 * 1024;

/// Some outputs of one matrix, and where they go: `(rows, outputs)`.
struct Panel<'a> {
    matrix: &'a Matrix,
    outputs: Range<usize>,
    y: &'a mut [f32],
}

/// `y = x * w^T` for each matrix: x is `(rows, inner)`; the result is one `(rows, outputs)` after the other.
pub(crate) fn products(x: &[f32], rows: usize, matrices: &[&Matrix]) -> Vec<f32> {
    let outputs: usize = matrices.iter().map(|matrix| matrix.outputs).sum();
    let mut y = vec![0.0; rows * outputs];
    if x.is_empty() || y.is_empty() {
        return y;
    }
    let input = Input::new(x, rows, matrices);
    let threaded = x.len() * outputs >= PARALLEL_WORK && rayon::current_num_threads() > 1;
    if rows == 1 {
        // The panels of one row lie in order already.
        compute(&input, panels(matrices, rows, &mut y), threaded);
        return y;
    }
    let mut parts = vec![0.0; rows * outputs];
    compute(&input, panels(matrices, rows, &mut parts), threaded);
    let (mut parts, mut rest) = (&parts[..], &mut y[..]);
    for matrix in matrices {
        let (from, later) = parts.split_at(rows * matrix.outputs);
        let (to, after) = rest.split_at_mut(rows * matrix.outputs);
        gather(from, matrix.panel_outputs() * rows, rows, to);
        (parts, rest) = (later, after);
    }
    y
}

fn compute(input: &Input<'_>, panels: Vec<Panel<'_>>, threaded: bool) {
    let one = |panel: Panel<'_>| panel.matrix.panel(input, panel.outputs, panel.y);
    match threaded {
        true => panels.into_par_iter().for_each(one),
        false => panels.into_iter().for_each(one),
    }
}

/// All panels of all matrices; `y` has room for `(rows, outputs)` of each.
fn panels<'a>(matrices: &[&'a Matrix], rows: usize, mut y: &'a mut [f32]) -> Vec<Panel<'a>> {
    let mut panels = Vec::new();
    for matrix in matrices {
        let wide = matrix.panel_outputs();
        for start in (0..matrix.outputs).step_by(wide) {
            let outputs = start..matrix.outputs.min(start + wide);
            let (mine, rest) = std::mem::take(&mut y).split_at_mut(rows * outputs.len());
            panels.push(Panel { matrix, outputs, y: mine });
            y = rest;
        }
    }
    panels
}

/// From panels of `size` elements one after the other to one matrix `(rows, outputs)`.
fn gather(panels: &[f32], size: usize, rows: usize, y: &mut [f32]) {
    let outputs = y.len() / rows;
    let row = |(row, y): (usize, &mut [f32])| {
        let mut start = 0;
        for panel in panels.chunks(size) {
            let width = panel.len() / rows;
            y[start..start + width].copy_from_slice(&panel[row * width..][..width]);
            start += width;
        }
    };
    match y.len() < PARALLEL_OUTPUTS {
        true => y.chunks_exact_mut(outputs).enumerate().for_each(row),
        false => y.par_chunks_exact_mut(outputs).enumerate().for_each(row),
    }
}
