//! Five bits an element, as Q5_0, Q5_1 and Q5_K hold them: nibbles, and a bit more of each.

use bytemuck::{Pod, Zeroable};

use super::nibbles::nibble;
use super::{Cell, GROUP, Nibbles, QUAD, pack_nibble};

/// One cell of eight outputs.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Fives {
    /// The low four bits.
    pub(super) nibbles: Nibbles,
    /// The high ones: bit `q` of byte `(output, i)` is that of element `i` of quad `q`.
    pub(super) high: [[u8; QUAD]; GROUP],
}

impl Fives {
    /// Puts an element's bits where they belong; the places must hold zero.
    pub(super) fn pack(&mut self, output: usize, element: usize, bits: u8) {
        pack_nibble(&mut self.nibbles, output, element, bits & 15);
        self.high[output][element % QUAD] |= (bits >> 4) << (element / QUAD);
    }

    /// The sum of the products of one output's elements, as unsigned, with `x`.
    pub(super) fn dot(&self, output: usize, x: &Cell) -> i32 {
        let product = |(element, x): (usize, &i8)| {
            let high = (self.high[output][element % QUAD] >> (element / QUAD)) & 1;
            i32::from(nibble(&self.nibbles, output, element) | high << 4) * i32::from(*x)
        };
        x.quads.iter().flatten().enumerate().map(product).sum()
    }
}

/// The 32 elements of a block with their high bits in four bytes and their low ones in sixteen: those of the first half in the
/// low nibbles.
pub(super) fn elements(high: [u8; 4], low: &[u8]) -> impl Iterator<Item = (usize, u8)> {
    let high = u32::from_le_bytes(high);
    let bits = move |element: usize| (high >> element & 1) as u8;
    let half = low.len();
    low.iter().enumerate().flat_map(move |(element, byte)| {
        let second = element + half;
        [(element, byte & 15 | bits(element) << 4), (second, byte >> 4 | bits(second) << 4)]
    })
}
