//! MXFP4 (OCP microscaling formats 1.0): 32 elements of four bits, floats of two bits of exponent and one of mantissa, under one
//! power of two.
//!
//! An element is a signed whole number of halves, so what is multiplied are these, and the scale is half of what stands in the
//! file. It is kept in a bfloat16, which has every power of two that a block can have.

use bytemuck::{Pod, Zeroable};
use half::bf16;

use super::nibbles::nibble;
use super::{CELL, Cell, Format, GROUP, Nibbles, QuantType, pack_nibble};

/// Cells in a slab: with four of them, slabs are a whole number of cache lines.
const CELLS: usize = 4;

/// What a nibble's halves are: the sign in its highest bit, then 0, 1/2, 1, 3/2, 2, 3, 4, 6. Zero has two signs.
const HALVES: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// Bytes of a block: the scale, and two elements in each of the others.
pub(super) const BLOCK_BYTES: usize = 1 + CELL / 2;

/// Stands for 2^0 in a scale.
const EXPONENT_BIAS: i32 = 127;
/// The scale of blocks that hold something that is no number.
const NOT_A_NUMBER: u8 = 255;
/// The exponent of the largest element, 6.
const LARGEST_EXPONENT: i32 = 2;
/// Halves beyond which the next larger magnitude is nearer, in order; at the border itself the even mantissa is taken.
const BORDERS: [(f32, bool); 7] =
    [(0.5, false), (1.5, true), (2.5, false), (3.5, true), (5.0, false), (7.0, true), (10.0, false)];

/// The format.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mxfp4;

/// Four cells of eight outputs.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Slab {
    /// Half of each block's scale.
    scales: [[bf16; GROUP]; CELLS],
    nibbles: [Nibbles; CELLS],
}

/// Half of the scale that a block's first byte stands for.
fn half_scale(byte: u8) -> bf16 {
    bf16::from_bits(match byte {
        // Subnormal: 2^-128 and 2^-127.
        0 => 0x0020,
        1 => 0x0040,
        NOT_A_NUMBER => 0x7fc0,
        byte => (u16::from(byte) - 1) << 7,
    })
}

/// A block from its scale and its elements' nibbles, in ggml's order: elements 0 to 15 in the low nibbles, 16 to 31 in the high
/// ones.
fn block_of(scale: u8, nibbles: &[u8; CELL]) -> [u8; BLOCK_BYTES] {
    let mut block = [scale; BLOCK_BYTES];
    for (element, byte) in block[1..].iter_mut().enumerate() {
        *byte = nibbles[element] | nibbles[element + CELL / 2] << 4;
    }
    block
}

/// A block from its scale and its elements as they lie in safetensors files: each byte holds an even element, and in its high
/// nibble the odd one behind it.
pub(crate) fn block_of_pairs(scale: u8, pairs: &[u8; CELL / 2]) -> [u8; BLOCK_BYTES] {
    let mut nibbles = [0; CELL];
    for (two, byte) in nibbles.chunks_exact_mut(2).zip(pairs) {
        two.copy_from_slice(&[byte & 15, byte >> 4]);
    }
    block_of(scale, &nibbles)
}

/// Rounds whole blocks of values, as the standard says: the scale fits the largest of them, what is beyond becomes 6 of it.
pub(super) fn quantise(values: &[f32]) -> Vec<u8> {
    let (blocks, _) = values.as_chunks::<CELL>();
    blocks.iter().flat_map(quantise_block).collect()
}

fn quantise_block(values: &[f32; CELL]) -> [u8; BLOCK_BYTES] {
    let largest = values.iter().fold(0.0f32, |largest, value| match value.is_finite() {
        true => largest.max(value.abs()),
        false => f32::INFINITY,
    });
    if largest == 0.0 || largest.is_infinite() {
        return block_of(if largest == 0.0 { 0 } else { NOT_A_NUMBER }, &[0; CELL]);
    }
    // In double precision every f32 is normal: its exponent stands in its bits.
    let exponent = (f64::from(largest).to_bits() >> 52) as i32 - 1023;
    let scale = (exponent - LARGEST_EXPONENT + EXPONENT_BIAS).clamp(0, i32::from(NOT_A_NUMBER) - 1) as u8;
    let halves = f64::from(half_scale(scale).to_f32());
    block_of(scale, &values.map(|value| nearest((f64::from(value) / halves) as f32)))
}

/// The nibble of the element nearest to so many halves.
fn nearest(halves: f32) -> u8 {
    let size = halves.abs();
    let beyond = |(border, up): &&(f32, bool)| size > *border || (*up && size == *border);
    let magnitude = BORDERS.iter().take_while(beyond).count() as u8;
    magnitude | u8::from(halves.is_sign_negative()) << 3
}

/// What whole blocks stand for.
pub(super) fn dequantise(bytes: &[u8]) -> Vec<f32> {
    let (blocks, _) = bytes.as_chunks::<BLOCK_BYTES>();
    let values = blocks.iter().flat_map(|block| {
        let scale = half_scale(block[0]).to_f32();
        let value = move |nibble: u8| f32::from(HALVES[usize::from(nibble)]) * scale;
        let low = block[1..].iter().map(move |byte| value(byte & 15));
        low.chain(block[1..].iter().map(move |byte| value(byte >> 4)))
    });
    values.collect()
}

impl Format for Mxfp4 {
    type Slab = Slab;
    const CELLS: usize = CELLS;
    const KIND: QuantType = QuantType::Mxfp4;

    fn pack(slab: &mut Slab, cell: usize, output: usize, block: &[u8]) {
        slab.scales[cell][output] = half_scale(block[0]);
        for (element, byte) in block[1..].iter().enumerate() {
            pack_nibble(&mut slab.nibbles[cell], output, element, byte & 15);
            pack_nibble(&mut slab.nibbles[cell], output, element + CELL / 2, byte >> 4);
        }
    }

    fn add_cell(slab: &Slab, cell: usize, output: usize, x: &Cell, sum: f32) -> f32 {
        let product = |(element, x): (usize, &i8)| {
            i32::from(HALVES[usize::from(nibble(&slab.nibbles[cell], output, element))]) * i32::from(*x)
        };
        let dot: i32 = x.quads.iter().flatten().enumerate().map(product).sum();
        (slab.scales[cell][output].to_f32() * x.scale).mul_add(dot as f32, sum)
    }

    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code)]
    #[inline(always)]
    unsafe fn add_avx2<const VNNI: bool, const R: usize>(
        slab: &Slab,
        index: usize,
        x: &[&[Cell]; R],
        sums: &mut [std::arch::x86_64::__m256; R],
    ) {
        use super::avx2::{add_dots, ask_ahead, bf16_scales, cells_of, table_dots};
        // SAFETY: the caller has promised the features, and this is inlined where the compiler knows of them.
        unsafe {
            let x = cells_of::<CELLS, R>(x, index);
            for cell in 0..CELLS {
                ask_ahead::<_, CELLS>(slab, cell);
                let dots = table_dots::<VNNI, CELLS, R>(&HALVES, &slab.nibbles[cell], &x, cell);
                add_dots(bf16_scales(&slab.scales[cell]), &dots, &x, cell, sums);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the standard's words: sign, exponent of bias 1, mantissa; subnormal where the exponent is 0.
    fn element(nibble: u8) -> f32 {
        let (sign, exponent, mantissa) = (nibble >> 3, (nibble >> 1) & 3, f32::from(nibble & 1));
        let size = match exponent {
            0 => mantissa * 0.5,
            exponent => (1.0 + mantissa * 0.5) * 2.0f32.powi(i32::from(exponent) - 1),
        };
        if sign == 1 { -size } else { size }
    }

    #[test]
    fn blocks_stand_for_what_the_standard_says() {
        for scale in 0..=252u8 {
            let pairs: [u8; 16] = std::array::from_fn(|i| (i as u8).wrapping_mul(37) ^ scale);
            let found = dequantise(&block_of_pairs(scale, &pairs));
            let nibbles = pairs.iter().flat_map(|byte| [byte & 15, byte >> 4]);
            for (found, nibble) in found.iter().zip(nibbles) {
                let expected = f64::from(element(nibble)) * 2.0f64.powi(i32::from(scale) - 127);
                assert_eq!(f64::from(*found), expected, "{nibble} under {scale}");
            }
        }
        assert!(dequantise(&block_of_pairs(255, &[1; 16])).iter().all(|value| value.is_nan()));
    }

    #[test]
    fn what_a_block_can_hold_comes_back() {
        for scale in [0, 1, 2, 60, 127, 200, 252] {
            // 6 is among them, so the scale is found again.
            let pairs: [u8; 16] = std::array::from_fn(|i| (2 * i % 16) as u8 | (((2 * i + 1) % 16) as u8) << 4);
            let values = dequantise(&block_of_pairs(scale, &pairs));
            assert_eq!(dequantise(&quantise(&values)), values, "{scale}");
        }
    }

    #[test]
    fn values_become_the_nearest_ones() {
        let mut values = [0.0f32; 32];
        // Scale 1: 7 is beyond 6; ties go to even mantissas.
        values[..10].copy_from_slice(&[7.0, 0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, -5.1, -0.1]);
        let found = dequantise(&quantise(&values));
        assert_eq!(found[..10], [6.0, 0.0, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0, -6.0, -0.0]);
        values[3] = f32::INFINITY;
        assert!(dequantise(&quantise(&values)).iter().all(|value| value.is_nan()));
    }
}
