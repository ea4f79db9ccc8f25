//! Rows bit for bit in fewer bytes: exponents are much alike, signs and mantissas are noise.
//!
//! An element's bits are turned by one, so that its first byte is the exponent (of an f16: the exponent and three bits of the
//! mantissa). These bytes come first, compressed by zstd; the others follow as they are, the second byte of every element, and of
//! an f32 the third and the fourth. The rows' elements and how many they are stand in the header, so nothing else is written.

use std::cell::RefCell;
use std::time::Duration;

use zstd::bulk::{Compressor, Decompressor};

use crate::wire::ElementType;

/// The quickest level: what it finds is how often each exponent occurs, and higher ones find nothing else.
const LEVEL: i32 = 1;

thread_local! {
    /// What a thread packs and unpacks with: to make it anew for every token would take longer than to use it (2 KiB of
    /// exponents are compressed in 10 µs with one that is kept, in 28 with a new one; decompressed in 5, and in 21).
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = RefCell::new(Compressor::new(LEVEL).ok());
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = RefCell::new(Decompressor::new().ok());
}

/// Rows that go over a link at less than that rate, in bytes a second (100 Mbit/s), are worth packing. Packing and unpacking take a
/// tenth of the time that they save there; at ten times the rate they take as much.
const PAYS_BELOW: f64 = 12.5e6;

/// Links that bring rows over sooner than that have nothing to win, whatever the rate.
const PAYS_BEYOND: Duration = Duration::from_millis(2);

/// Whether rows are worth packing on a link over which `bytes` went in `took`, the answer included.
pub fn packing_pays(bytes: usize, took: Duration) -> bool {
    took >= PAYS_BEYOND && bytes as f64 / took.as_secs_f64() < PAYS_BELOW
}

/// The elements of `rows` packed; `None` if that takes no fewer bytes.
pub(super) fn pack(element: ElementType, rows: &[u8]) -> Option<Vec<u8>> {
    let turned = match element {
        ElementType::F32 => planes(rows, |bytes| u32::from_le_bytes(bytes).rotate_left(1).to_be_bytes()),
        ElementType::F16 | ElementType::Bf16 => {
            planes(rows, |bytes| u16::from_le_bytes(bytes).rotate_left(1).to_be_bytes())
        }
    };
    let (exponents, rest) = turned.split_at_checked(rows.len() / element.bytes())?;
    let mut packed = COMPRESSOR.with_borrow_mut(|zstd| zstd.as_mut()?.compress(exponents).ok())?;
    packed.extend_from_slice(rest);
    (packed.len() < rows.len()).then_some(packed)
}

/// `elements` elements of what [`pack`] has made; `None` if the bytes are not that.
pub(super) fn unpack(element: ElementType, elements: usize, packed: &[u8]) -> Option<Vec<u8>> {
    let rest = elements.checked_mul(element.bytes() - 1)?;
    let (exponents, rest) = packed.split_at_checked(packed.len().checked_sub(rest)?)?;
    // No more is ever written than the rows that were announced have.
    let mut turned = DECOMPRESSOR.with_borrow_mut(|zstd| zstd.as_mut()?.decompress(exponents, elements).ok())?;
    if turned.len() != elements {
        return None;
    }
    turned.extend_from_slice(rest);
    match element {
        ElementType::F32 => elements_of(&turned, |bytes| u32::from_be_bytes(bytes).rotate_right(1).to_le_bytes()),
        ElementType::F16 | ElementType::Bf16 => {
            elements_of(&turned, |bytes| u16::from_be_bytes(bytes).rotate_right(1).to_le_bytes())
        }
    }
}

/// The first bytes of all turned elements, then all second ones, and so on.
fn planes<const N: usize>(rows: &[u8], turn: impl Fn([u8; N]) -> [u8; N]) -> Vec<u8> {
    let (elements, _) = rows.as_chunks::<N>();
    let mut planes = vec![0; elements.len() * N];
    let mut parts: Vec<_> = planes.chunks_exact_mut(elements.len().max(1)).map(|plane| plane.iter_mut()).collect();
    for element in elements {
        for (part, byte) in parts.iter_mut().zip(turn(*element)) {
            part.next().into_iter().for_each(|place| *place = byte);
        }
    }
    planes
}

/// What [`planes`] has taken apart.
fn elements_of<const N: usize>(planes: &[u8], turn: impl Fn([u8; N]) -> [u8; N]) -> Option<Vec<u8>> {
    let count = planes.len() / N;
    let mut rows = Vec::with_capacity(planes.len());
    let mut parts: Vec<_> = planes.chunks_exact(count.max(1)).map(|plane| plane.iter()).collect();
    for _ in 0..count {
        let mut element = [0; N];
        for (byte, part) in element.iter_mut().zip(&mut parts) {
            *byte = *part.next()?;
        }
        rows.extend_from_slice(&turn(element));
    }
    Some(rows)
}

#[cfg(test)]
mod tests {
    use half::bf16;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const ELEMENTS: [ElementType; 3] = [ElementType::F32, ElementType::F16, ElementType::Bf16];

    /// Values as hidden states have them: around zero, some far out.
    fn states(count: u32) -> Vec<u8> {
        let value = |i: u32| {
            let noise = (i.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 24) as f32 - 0.5;
            let sum = noise + ((i.wrapping_mul(40_503) >> 4) % 1000) as f32 / 1000.0 - 0.5;
            if i.is_multiple_of(97) { sum * 40.0 } else { sum }
        };
        (0..count).flat_map(|i| bf16::from_f32(value(i)).to_le_bytes()).collect()
    }

    #[test]
    fn hidden_states_take_three_quarters_of_their_bytes() {
        for width in [1024, 4096] {
            let rows = states(width);
            let packed = pack(ElementType::Bf16, &rows).unwrap();
            assert!(packed.len() * 4 < rows.len() * 3, "{} of {}", packed.len(), rows.len());
            assert_eq!(unpack(ElementType::Bf16, width as usize, &packed).unwrap(), rows);
        }
    }

    #[test]
    fn what_does_not_get_smaller_is_left_as_it_is() {
        let noise: Vec<u8> = blake3::Hasher::new().update(b"noise").finalize_xof().take_bytes(4096);
        assert!(pack(ElementType::Bf16, &noise).is_none());
        assert!(pack(ElementType::Bf16, &[]).is_none());
        assert!(pack(ElementType::F32, &[1, 2, 3, 4]).is_none());
    }

    trait TakeBytes {
        fn take_bytes(self, count: usize) -> Vec<u8>;
    }

    impl TakeBytes for blake3::OutputReader {
        fn take_bytes(mut self, count: usize) -> Vec<u8> {
            let mut bytes = vec![0; count];
            self.fill(&mut bytes);
            bytes
        }
    }

    #[test]
    fn lies_about_the_number_of_elements_are_found() {
        let rows = states(1024);
        let packed = pack(ElementType::Bf16, &rows).unwrap();
        for elements in [0, 1, 1023, 1025, 4096, usize::MAX] {
            assert!(unpack(ElementType::Bf16, elements, &packed).is_none(), "{elements}");
        }
        // A frame that would unpack to much more than was announced.
        let bomb = zstd::bulk::compress(&vec![0; 1 << 20], LEVEL).unwrap();
        assert!(unpack(ElementType::Bf16, 8, &[&bomb[..], &[0; 8]].concat()).is_none());
    }

    #[test]
    fn packing_pays_on_slow_links_only() {
        let ms = Duration::from_millis;
        assert!(packing_pays(8192, ms(25)) && packing_pays(1 << 19, ms(400)));
        assert!(!packing_pays(8192, Duration::from_micros(300)) && !packing_pays(1 << 19, ms(5)));
        assert!(!packing_pays(64, ms(1)), "there is nothing to win");
    }

    proptest! {
        #[test]
        fn every_bit_comes_back(words in vec(any::<u32>(), 0..600), shift in 0u32..24) {
            // With fewer bits, so that packing is worth it.
            let rows: Vec<u8> = words.iter().flat_map(|word| (word >> shift).to_le_bytes()).collect();
            for element in ELEMENTS {
                if let Some(packed) = pack(element, &rows) {
                    prop_assert_eq!(unpack(element, rows.len() / element.bytes(), &packed), Some(rows.clone()));
                }
            }
        }

        #[test]
        fn whatever_comes_is_rows_or_nothing(bytes in vec(any::<u8>(), 0..400), elements in 0usize..300) {
            for element in ELEMENTS {
                if let Some(rows) = unpack(element, elements, &bytes) {
                    prop_assert_eq!(rows.len(), elements * element.bytes());
                }
            }
        }
    }
}
