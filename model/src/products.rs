//! Rows times several matrices at once, shared among threads. How the work is cut decides which products are computed
//! together, never the order in which the products of one output are added.

use std::ops::Range;

use rayon::prelude::*;

use crate::kernels::Columns;
use crate::weights::{Input, Matrix};

/// Multiply-adds below which splitting over threads costs more than it saves (about 10 µs of work).
const PARALLEL_WORK: usize = 256 * 1024;

/// Some outputs of one matrix, and where they go.
struct Panel<'a> {
    matrix: &'a Matrix,
    outputs: Range<usize>,
    y: Columns<'a>,
}

/// `y = x * w^T` for each matrix: x is `(rows, inner)`; the result is one `(rows, outputs)` after the other.
pub(crate) fn products(x: &[f32], rows: usize, matrices: &[&Matrix]) -> Vec<f32> {
    let outputs: usize = matrices.iter().map(|matrix| matrix.outputs).sum();
    let mut y = vec![0.0; rows * outputs];
    if x.is_empty() || y.is_empty() {
        return y;
    }
    let input = Input::new(x, rows, matrices);
    let panels = panels(matrices, rows, &mut y);
    let one = |panel: Panel<'_>| panel.matrix.panel(&input, panel.outputs, panel.y);
    // Each panel can be taken by itself: none waits behind one whose thread has lost its core.
    match x.len() * outputs >= PARALLEL_WORK && rayon::current_num_threads() > 1 {
        true => panels.into_par_iter().with_max_len(1).for_each(one),
        false => panels.into_iter().for_each(one),
    }
    y
}

/// All panels of all matrices; `y` has room for `(rows, outputs)` of each.
fn panels<'a>(matrices: &[&'a Matrix], rows: usize, mut y: &'a mut [f32]) -> Vec<Panel<'a>> {
    let mut panels = Vec::new();
    for matrix in matrices {
        let (mine, others) = std::mem::take(&mut y).split_at_mut(rows * matrix.outputs);
        y = others;
        let (mut mine, wide) = (Columns::new(mine, rows), matrix.panel_outputs());
        for start in (0..matrix.outputs).step_by(wide) {
            let outputs = start..matrix.outputs.min(start + wide);
            let (panel, rest) = mine.split_at(outputs.len());
            panels.push(Panel { matrix, outputs, y: panel });
            mine = rest;
        }
    }
    panels
}
