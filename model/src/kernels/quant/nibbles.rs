//! Four bits an element, as Q4_0, Q4_K and Q6_K hold them.

use super::{Cell, GROUP, QUAD, QUADS};

/// One cell of eight outputs: byte `(pair, output, i)` holds element `i` of quad `2 * pair` in its low nibble and that of
/// quad `2 * pair + 1` in its high one.
pub(super) type Nibbles = [[[u8; QUAD]; GROUP]; QUADS / 2];

/// Puts an element's nibble where it belongs; the place must hold zero.
pub(super) fn pack_nibble(nibbles: &mut Nibbles, output: usize, element: usize, nibble: u8) {
    let quad = element / QUAD;
    nibbles[quad / 2][output][element % QUAD] |= nibble << (4 * (quad % 2));
}

/// An element's nibble.
pub(super) fn nibble(nibbles: &Nibbles, output: usize, element: usize) -> u8 {
    let quad = element / QUAD;
    (nibbles[quad / 2][output][element % QUAD] >> (4 * (quad % 2))) & 15
}

/// The sum of the products of one output's nibbles with `x`.
pub(super) fn dot_nibbles(nibbles: &Nibbles, output: usize, x: &Cell) -> i32 {
    let elements = x.quads.iter().flatten().enumerate();
    elements.map(|(element, x)| i32::from(nibble(nibbles, output, element)) * i32::from(*x)).sum()
}
