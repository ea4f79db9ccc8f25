//! Keys and values as bytes, so that one server can hand a sequence to another of the same numeric class.
//!
//! The bytes know nothing of pages: for each block in order, for each position in order, the keys
//! `(kv_heads, head_dim)`, then the values of the same shape, little-endian in the cache's type. In eight bits an f32 scale
//! follows each head's elements.

use std::ops::Range;

use super::{KvCache, KvShape, PAGE_POSITIONS, Side};
use crate::error::ModelError;

impl KvCache {
    /// Bytes of the keys and values of one position in all blocks, as exported.
    pub fn bytes_per_position(&self) -> usize {
        self.range.len() as usize * self.shape.position_bytes()
    }

    /// The keys and values of `positions`: for each block in order, for each position in order, the keys
    /// `(kv_heads, head_dim)`, then the values, little-endian; in eight bits an f32 scale follows each head's elements. An
    /// empty range has no bytes.
    ///
    /// # Errors
    /// [`ModelError::PositionsNotHeld`] if not all of `positions` are held, or they end before they start.
    pub fn export(&self, positions: Range<usize>) -> Result<Vec<u8>, ModelError> {
        if positions.start > positions.end || positions.end > self.len {
            return Err(ModelError::PositionsNotHeld { asked: positions, len: self.len });
        }
        let mut out = Vec::with_capacity(positions.len() * self.bytes_per_position());
        for block in 0..self.range.len() as usize {
            for position in positions.clone() {
                let page = &self.pages[position / PAGE_POSITIONS];
                gather(&self.shape, page.side_bytes(block, Side::Keys), position % PAGE_POSITIONS, &mut out);
                gather(&self.shape, page.side_bytes(block, Side::Values), position % PAGE_POSITIONS, &mut out);
            }
        }
        Ok(out)
    }

    /// Appends exported keys and values whose first position is `position`; returns how many positions were added.
    /// The bytes must come from a cache for the same blocks of the same model in the same numeric class: nothing in
    /// them could tell. On an error nothing has changed.
    ///
    /// # Errors
    /// - [`ModelError::WrongPosition`] if `position` is not where the cache ends;
    /// - [`ModelError::WrongKvBytes`] if the bytes are not one or more whole positions;
    /// - [`ModelError::CacheFull`] if they do not fit;
    /// - [`ModelError::KvBudget`] if the arena has no room for them.
    pub fn import(&mut self, position: usize, bytes: &[u8]) -> Result<usize, ModelError> {
        let rows = self.check_import(position, bytes)?;
        let growth = self.plan(rows)?;
        self.grow(growth);
        let shape = self.shape;
        let block_bytes = bytes.len() / self.range.len() as usize;
        for (block, bytes) in bytes.chunks_exact(block_bytes).enumerate() {
            for (position, bytes) in (position..).zip(bytes.chunks_exact(shape.position_bytes())) {
                let page = &mut self.pages[position / PAGE_POSITIONS];
                let (keys, values) = bytes.split_at(bytes.len() / 2);
                scatter(&shape, keys, page.side_bytes_mut(block, Side::Keys)?, position % PAGE_POSITIONS);
                scatter(&shape, values, page.side_bytes_mut(block, Side::Values)?, position % PAGE_POSITIONS);
            }
        }
        self.advance(rows);
        Ok(rows)
    }

    /// How many positions `bytes` are, if they can be appended at `position`.
    fn check_import(&self, position: usize, bytes: &[u8]) -> Result<usize, ModelError> {
        let rows = rows_after(self.len, position, bytes, self.bytes_per_position())?;
        self.check_room(rows).map(|()| rows)
    }
}

/// How many positions of `per_position` bytes each `bytes` are, if they follow the `len` that are held.
///
/// # Errors
/// [`ModelError::WrongPosition`] and [`ModelError::WrongKvBytes`], see [`crate::KvCache::import`].
pub(crate) fn rows_after(len: usize, position: usize, bytes: &[u8], per_position: usize) -> Result<usize, ModelError> {
    if position != len {
        return Err(ModelError::WrongPosition { position, len });
    }
    let found = bytes.len();
    if bytes.is_empty() || !found.is_multiple_of(per_position) {
        return Err(ModelError::WrongKvBytes { found, per_position });
    }
    Ok(found / per_position)
}

/// Appends what the heads of one side of a page hold in `slot`.
fn gather(shape: &KvShape, side: &[u8], slot: usize, out: &mut Vec<u8>) {
    for head in side.chunks_exact(shape.head_bytes()) {
        out.extend_from_slice(&head[shape.run(slot)]);
        out.extend_from_slice(&head[shape.scale(slot)]);
    }
}

/// Puts what [`gather`] has taken into `slot`.
fn scatter(shape: &KvShape, from: &[u8], side: &mut [u8], slot: usize) {
    let bytes = shape.run_bytes() + shape.scale_bytes();
    for (head, from) in side.chunks_exact_mut(shape.head_bytes()).zip(from.chunks_exact(bytes)) {
        let (run, scale) = from.split_at(shape.run_bytes());
        head[shape.run(slot)].copy_from_slice(run);
        head[shape.scale(slot)].copy_from_slice(scale);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use swarm_protocol::block::BlockRange;
    use swarm_protocol::wire::ElementType;

    use super::super::{KvArena, KvElement};
    use super::*;
    use crate::attention::store;

    const ELEMENTS: [KvElement; 4] = [F32, KvElement::Float(ElementType::F16), BF16, KvElement::Int8];
    const F32: KvElement = KvElement::Float(ElementType::F32);
    const BF16: KvElement = KvElement::Float(ElementType::Bf16);
    const BLOCKS: u32 = 3;

    fn cache(element: KvElement, max_tokens: usize) -> KvCache {
        let shape = KvShape { kv_heads: 3, head_dim: 5, element };
        KvCache::new(KvArena::unlimited(), BlockRange::new(2, 2 + BLOCKS).unwrap(), shape, max_tokens)
    }

    fn noise(count: usize, seed: u64) -> Vec<u8> {
        let mix = |i: u64| (i ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56;
        (0..count as u64).map(|i| mix(i) as u8).collect()
    }

    #[test]
    fn bytes_lie_by_block_then_position_with_keys_before_values() {
        let positions = PAGE_POSITIONS + 6;
        let mut cache = cache(F32, positions);
        let width = 15;
        let rows = |side: usize| -> Vec<f32> { (0..positions * width).map(|i| (side * 10_000 + i) as f32).collect() };
        let growth = cache.plan(positions).unwrap();
        cache.grow(growth);
        let mut expected: Vec<f32> = Vec::new();
        for block in 0..BLOCKS as usize {
            let (keys, values) = (rows(2 * block), rows(2 * block + 1));
            store(&mut cache, block, (&keys, &values)).unwrap();
            for (keys, values) in keys.chunks_exact(width).zip(values.chunks_exact(width)) {
                expected.extend(keys.iter().chain(values));
            }
        }
        cache.advance(positions);
        let expected: Vec<u8> = expected.iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(cache.export(0..positions).unwrap(), expected);
    }

    #[test]
    fn in_eight_bits_a_scale_follows_each_head() {
        let mut cache = cache(KvElement::Int8, 1);
        let growth = cache.plan(1).unwrap();
        cache.grow(growth);
        let (keys, values): (Vec<f32>, Vec<f32>) = (0..15).map(|i| (i as f32, -2.0 * i as f32)).unzip();
        for block in 0..BLOCKS as usize {
            store(&mut cache, block, (&keys, &values)).unwrap();
        }
        cache.advance(1);
        let bytes = cache.export(0..1).unwrap();
        assert_eq!(bytes.len(), BLOCKS as usize * 2 * 3 * (5 + 4));
        assert_eq!(bytes.len(), cache.bytes_per_position());
        for (head, bytes) in bytes.chunks_exact(9).enumerate() {
            let (side, head) = (head / 3 % 2, head % 3);
            let most = (5 * head + 4) as f32 * [1.0, 2.0][side];
            assert_eq!(bytes[5..], (most / 127.0).to_le_bytes());
            assert_eq!(bytes[4] as i8, [127, -127][side]);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_and_changes_nothing() {
        let mut cache = cache(BF16, 70);
        let one = cache.bytes_per_position();
        assert_eq!(one, 3 * 2 * 3 * 5 * 2);
        assert_eq!(cache.import(0, &noise(66 * one, 1)).unwrap(), 66);
        let before = (cache.export(0..66).unwrap(), cache.bytes());
        let mut refused = |position, count| {
            let error = cache.import(position, &noise(count, 2)).unwrap_err();
            assert_eq!((cache.len(), cache.bytes()), (66, before.1));
            assert_eq!(cache.export(0..66).unwrap(), before.0);
            error
        };
        for position in [0, 65, 67, usize::MAX] {
            let error = refused(position, one);
            assert!(matches!(error, ModelError::WrongPosition { len: 66, position: p } if p == position), "{error}");
        }
        for count in [0, 1, one - 1, one + 1, 3 * one - 2] {
            let error = refused(66, count);
            assert!(matches!(error, ModelError::WrongKvBytes { found, .. } if found == count), "{error}");
        }
        let error = refused(66, 5 * one);
        assert!(matches!(error, ModelError::CacheFull { needed: 71, max_tokens: 70 }), "{error}");
        assert_eq!(cache.import(66, &noise(4 * one, 3)).unwrap(), 4);
        assert!(matches!(cache.import(70, &noise(one, 4)), Err(ModelError::CacheFull { needed: 71, .. })));
    }

    #[test]
    fn only_positions_held_are_exported() {
        let mut cache = cache(KvElement::Float(ElementType::F16), 100);
        assert!(cache.export(0..0).unwrap().is_empty());
        cache.import(0, &noise(10 * cache.bytes_per_position(), 1)).unwrap();
        // Backwards on purpose: a peer may ask for that.
        let backwards = Range { start: 6, end: 5 };
        for asked in [0..11, 10..11, 200..201, 0..usize::MAX, backwards] {
            let error = cache.export(asked.clone()).unwrap_err();
            assert!(matches!(&error, ModelError::PositionsNotHeld { asked: a, len: 10 } if *a == asked), "{error}");
        }
        cache.truncate(4);
        assert!(cache.export(0..5).is_err());
        assert!(cache.export(4..4).unwrap().is_empty());
    }

    /// Hands everything `from` holds over in pieces of the sizes in `pieces`, over and over.
    fn hand_over(from: &KvCache, pieces: &[usize]) -> KvCache {
        let mut to = cache(from.shape().element, from.max_tokens());
        for piece in pieces.iter().cycle() {
            let end = from.len().min(to.len() + piece);
            if to.len() == end {
                break;
            }
            let bytes = from.export(to.len()..end).unwrap();
            assert_eq!(to.import(to.len(), &bytes).unwrap() * from.bytes_per_position(), bytes.len());
        }
        to
    }

    proptest! {
        #[test]
        fn where_it_is_cut_does_not_matter(
            positions in 1usize..200,
            element in prop::sample::select(&ELEMENTS),
            first in prop::collection::vec(1usize..90, 1..6),
            second in prop::collection::vec(1usize..90, 1..6),
            seed in any::<u64>(),
        ) {
            let mut original = cache(element, 200);
            let bytes = noise(positions * original.bytes_per_position(), seed);
            original.import(0, &bytes).unwrap();
            prop_assert!(original.export(0..positions).unwrap() == bytes);
            let copy = hand_over(&hand_over(&original, &first), &second);
            prop_assert_eq!((copy.len(), copy.bytes()), (positions, original.bytes()));
            prop_assert!(copy.export(0..positions).unwrap() == bytes);
        }
    }
}
