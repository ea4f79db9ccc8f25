//! Rows in eight bits: each cell of [`INT8_CELL`] elements by a scale of its own, written as `scale (bf16), elements (i8)`.
//!
//! A cell's bytes follow from its elements and from nothing else, and every operation is exactly rounded: so the same row
//! gives the same bytes on every machine, alone or among others, at its first sending and at a replay. An element is off by
//! little more than half a scale, which is 1/127 of the largest one of its cell. What is not finite stays so: the whole cell
//! is NaN.

use half::{bf16, f16};

use crate::wire::{ElementType, INT8_CELL, INT8_SCALE_BYTES, RowEncoding};

/// The largest element of a cell is that many scales.
const LARGEST: f32 = 127.0;

/// Added to a number of less than 2²² it leaves the nearest integer (ties to even) in the lowest bits: as exact as the
/// processor's own rounding, and available in vectors on all of them.
const MAGIC: f32 = 12_582_912.0;

/// Exact rows of `hidden` elements of `element` to rounded ones.
pub(super) fn rounded(element: ElementType, hidden: usize, rows: &[u8]) -> Vec<u8> {
    match element {
        ElementType::F32 => round_all(rows, hidden, f32::from_le_bytes),
        ElementType::F16 => round_all(rows, hidden, |bytes| f16::from_le_bytes(bytes).to_f32()),
        ElementType::Bf16 => round_all(rows, hidden, |bytes| bf16::from_le_bytes(bytes).to_f32()),
    }
}

/// Rounded rows of `hidden` elements to elements of `element`. What was finite stays so.
pub(super) fn restored(element: ElementType, hidden: usize, rows: &[u8]) -> Vec<u8> {
    let within = |value: f32, most: f32| value.clamp(-most, most);
    match element {
        ElementType::F32 => restore_all(rows, hidden, |value| within(value, f32::MAX).to_le_bytes()),
        ElementType::F16 => {
            let most = f16::MAX.to_f32();
            restore_all(rows, hidden, |value| f16::from_f32(within(value, most)).to_le_bytes())
        }
        ElementType::Bf16 => {
            let most = bf16::MAX.to_f32();
            restore_all(rows, hidden, |value| bf16::from_f32(within(value, most)).to_le_bytes())
        }
    }
}

fn round_all<const N: usize>(rows: &[u8], hidden: usize, read: impl Fn([u8; N]) -> f32) -> Vec<u8> {
    let (row, written) = ((hidden * N).max(1), RowEncoding::Int8.row_bytes(hidden));
    let mut out = Vec::with_capacity(rows.len() / row * written);
    for row in rows.chunks_exact(row) {
        for cell in row.chunks(INT8_CELL * N) {
            let mut values = [0.0; INT8_CELL];
            let (elements, _) = cell.as_chunks::<N>();
            values.iter_mut().zip(elements).for_each(|(value, bytes)| *value = read(*bytes));
            round_cell(&values, elements.len(), &mut out);
        }
    }
    out
}

/// Writes a cell of `count` elements; the values behind them are zero.
fn round_cell(values: &[f32; INT8_CELL], count: usize, out: &mut Vec<u8>) {
    // In the order of their bits NaN is larger than everything.
    let largest = values.iter().fold(0u32, |most, value| most.max(value.abs().to_bits()));
    let scale = scale_of(f32::from_bits(largest));
    let mut cell = [0u8; INT8_CELL];
    if scale.is_normal() {
        let factor = 1.0 / scale.to_f32();
        for (byte, value) in cell.iter_mut().zip(values) {
            let steps = (value * factor).clamp(-LARGEST, LARGEST);
            *byte = (steps + MAGIC).to_bits() as u8;
        }
    }
    out.extend_from_slice(&scale.to_le_bytes());
    out.extend_from_slice(&cell[..count]);
}

/// The scale of a cell whose largest element is that: rounded up, so that no element is more than [`LARGEST`] scales; zero
/// where it would have fewer bits than others.
fn scale_of(largest: f32) -> bf16 {
    if !largest.is_finite() {
        return bf16::NAN;
    }
    let scale = largest / LARGEST;
    let near = bf16::from_f32(scale);
    let up = if near.to_f32() < scale { bf16::from_bits(near.to_bits() + 1) } else { near };
    if up.is_normal() { up } else { bf16::ZERO }
}

fn restore_all<const N: usize>(rows: &[u8], hidden: usize, write: impl Fn(f32) -> [u8; N]) -> Vec<u8> {
    let row = RowEncoding::Int8.row_bytes(hidden).max(1);
    let mut out = Vec::with_capacity(rows.len() / row * hidden * N);
    for row in rows.chunks_exact(row) {
        for cell in row.chunks(INT8_SCALE_BYTES + INT8_CELL) {
            let Some((scale, elements)) = cell.split_first_chunk::<INT8_SCALE_BYTES>() else { continue };
            let scale = bf16::from_le_bytes(*scale).to_f32();
            out.extend(elements.iter().flat_map(|byte| write(f32::from(*byte as i8) * scale)));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn bytes(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    fn there_and_back(values: &[f32]) -> Vec<f32> {
        let wire = rounded(ElementType::F32, values.len(), &bytes(values));
        assert_eq!(wire.len(), RowEncoding::Int8.row_bytes(values.len()));
        let back = restored(ElementType::F32, values.len(), &wire);
        back.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    #[test]
    fn a_cell_has_these_bytes() {
        // The scale of 254 is 2, ties go to the even one; a second cell of one element begins at byte 34.
        let mut values = [0.0; 33];
        values[..6].copy_from_slice(&[254.0, -254.0, 3.0, 1.0, 2.2, -5.1]);
        values[32] = 127.0;
        let wire = rounded(ElementType::F32, 33, &bytes(&values));
        assert_eq!(&wire[..8], [0x00, 0x40, 127, 129, 2, 0, 1, 253]);
        assert_eq!(&wire[34..], [0x80, 0x3f, 127], "the scale of 127 is 1");
        assert_eq!(restored(ElementType::Bf16, 33, &wire)[..4], [0x7e, 0x43, 0x7e, 0xc3], "254 and -254");
    }

    #[test]
    fn what_is_not_finite_or_next_to_nothing() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let back = there_and_back(&[1.0, bad, 2.0]);
            assert!(back.iter().all(|value| value.is_nan()), "{back:?}");
        }
        assert_eq!(there_and_back(&[0.0, 1e-40, -f32::MIN_POSITIVE]), [0.0; 3]);
        for most in [f32::MAX, f16::MAX.to_f32(), bf16::MAX.to_f32()] {
            let wire = rounded(ElementType::F32, 2, &bytes(&[most, -most]));
            for element in [ElementType::F16, ElementType::Bf16, ElementType::F32] {
                let again = rounded(element, 2, &restored(element, 2, &wire));
                assert!(!restored(ElementType::F32, 2, &again).ends_with(&f32::NAN.to_le_bytes()[2..]), "{most}");
            }
        }
        assert!(rounded(ElementType::F16, 7, &[]).is_empty() && restored(ElementType::F16, 7, &[]).is_empty());
    }

    proptest! {
        #[test]
        fn no_element_is_off_by_more_than_half_a_scale(values in vec(-1e6f32..1e6, 1..200)) {
            for (cell, back) in values.chunks(INT8_CELL).zip(there_and_back(&values).chunks(INT8_CELL)) {
                let largest = cell.iter().fold(0.0f32, |most, value| most.max(value.abs()));
                // The scale is rounded up by a 128th at most.
                let most = largest / LARGEST * (0.5 + 1.0 / 200.0);
                let near = cell.iter().zip(back).all(|(value, back)| (value - back).abs() <= most);
                prop_assert!(near, "{:?} {:?}", cell, back);
            }
        }

        /// Whatever bytes came, their rows have the length that was promised.
        #[test]
        fn any_bytes_are_rows(hidden in 1usize..100, rows in 0usize..4, byte in any::<u8>()) {
            let wire = vec![byte; rows * RowEncoding::Int8.row_bytes(hidden)];
            for element in [ElementType::F32, ElementType::F16, ElementType::Bf16] {
                let back = restored(element, hidden, &wire);
                prop_assert_eq!(back.len(), rows * hidden * element.bytes());
                prop_assert_eq!(rounded(element, hidden, &back).len(), wire.len());
            }
        }
    }
}
