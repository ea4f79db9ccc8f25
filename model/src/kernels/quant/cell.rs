//! Activations in eight bits.

use super::{CELL, QUAD, QUADS, Quad};

/// The largest magnitude of a quantised activation.
const MOST: f32 = 127.0;
/// Adding 1.5 * 2^23 to a small float rounds it to the nearest integer, ties to even, kept in the sum's low bits.
const ROUND: f32 = 12_582_912.0;

/// 32 neighbouring elements of a row of activations: `quads * scale`.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Cell {
    pub(crate) quads: [Quad; QUADS],
    /// The largest magnitude by 127; NaN if any element is NaN or infinite, so that no such row looks sound.
    pub(crate) scale: f32,
    /// The sum of all quads' elements, which formats with an offset need: a whole number.
    pub(crate) sum: f32,
}

/// Quantises a row, cell by cell; what the row lacks of `cells` is zero.
#[inline(always)]
pub(crate) fn quantise_row(x: &[f32], cells: &mut [Cell]) {
    let (whole, rest) = x.as_chunks::<CELL>();
    let (filled, empty) = cells.split_at_mut(whole.len());
    for (x, cell) in whole.iter().zip(filled) {
        quantise(x, cell);
    }
    empty.fill(Cell::default());
    if let (Some(cell), false) = (empty.first_mut(), rest.is_empty()) {
        let mut last = [0.0; CELL];
        last[..rest.len()].copy_from_slice(rest);
        quantise(&last, cell);
    }
}

#[inline(always)]
fn quantise(x: &[f32; CELL], cell: &mut Cell) {
    let mut most = [0.0f32; 8];
    let mut poison = [0.0f32; 8];
    for chunk in x.as_chunks::<8>().0 {
        for lane in 0..8 {
            let magnitude = chunk[lane].abs();
            most[lane] = if magnitude > most[lane] { magnitude } else { most[lane] };
            // Zero, or NaN where the element is NaN or infinite.
            poison[lane] += chunk[lane] * 0.0;
        }
    }
    let most = most.into_iter().fold(0.0, |a, b| if b > a { b } else { a });
    let poison: f32 = poison.into_iter().sum();
    let scale = most / MOST;
    // Of magnitudes too small for a reciprocal nothing is left.
    let inverse = if scale >= f32::MIN_POSITIVE { 1.0 / scale } else { 0.0 };
    let mut rounded = [0i8; CELL];
    let mut sums = [0i32; 8];
    for (to, from) in rounded.as_chunks_mut::<8>().0.iter_mut().zip(x.as_chunks::<8>().0) {
        for lane in 0..8 {
            let value = from[lane] * inverse;
            let value = if value > MOST { MOST } else { value };
            let value = if value < -MOST { -MOST } else { value };
            let value = if value.is_nan() { 0.0 } else { value };
            let bits = (value + ROUND).to_bits().wrapping_sub(ROUND.to_bits()) as i32;
            to[lane] = bits as i8;
            sums[lane] += bits;
        }
    }
    cell.quads = bytemuck::cast::<[i8; CELL], [Quad; CELL / QUAD]>(rounded);
    cell.scale = scale + poison;
    cell.sum = sums.into_iter().sum::<i32>() as f32;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(x: &[f32]) -> Cell {
        let mut cells = [Cell::default(); 1];
        quantise_row(x, &mut cells);
        cells[0]
    }

    #[test]
    fn values_are_rounded_to_the_nearest_of_255() {
        let x: [f32; CELL] = std::array::from_fn(|i| (i as f32 - 15.0) * 0.37);
        let cell = one(&x);
        let quants: Vec<i8> = cell.quads.iter().flatten().copied().collect();
        for (quant, x) in quants.iter().zip(x) {
            assert!((f32::from(*quant) * cell.scale - x).abs() <= cell.scale * 0.5001, "{quant} {x}");
        }
        assert_eq!(cell.sum, quants.iter().map(|quant| f32::from(*quant)).sum::<f32>());
        assert_eq!(quants.iter().map(|quant| quant.unsigned_abs()).max(), Some(127));
    }

    #[test]
    fn extremes_are_tame_or_loud() {
        assert_eq!(one(&[]).scale, 0.0);
        assert_eq!(one(&[0.0, -0.0]).quads, [[0; QUAD]; QUADS]);
        assert_eq!(one(&[1e-44, -1e-44]).quads, [[0; QUAD]; QUADS]);
        assert_eq!(one(&[3e38, -3e38]).quads[0], [127, -127, 0, 0]);
        assert!(one(&[1.0, f32::NAN]).scale.is_nan());
        assert!(one(&[1.0, f32::NEG_INFINITY]).scale.is_nan());
    }
}
