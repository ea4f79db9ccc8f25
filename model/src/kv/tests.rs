//! Pages shared by several caches: nobody's keys and values change under them, and the arena knows every byte.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const RANGE: (u32, u32) = (2, 5);
const CACHES: usize = 4;
const MAX_TOKENS: usize = 5 * PAGE_POSITIONS;

fn shape() -> KvShape {
    KvShape { kv_heads: 3, head_dim: 5, element: KvElement::Int8 }
}

fn range() -> BlockRange {
    BlockRange::new(RANGE.0, RANGE.1).unwrap()
}

fn page_bytes() -> u64 {
    shape().page_bytes(range())
}

fn cache(arena: &KvArena) -> KvCache {
    KvCache::new(arena.clone(), range(), shape(), MAX_TOKENS)
}

fn rows(cache: &KvCache, count: usize, seed: u64) -> Vec<u8> {
    let mix = |i: u64| (i ^ (seed << 20)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56;
    (0..(count * cache.bytes_per_position()) as u64).map(|i| mix(i) as u8).collect()
}

fn append(cache: &mut KvCache, count: usize, seed: u64) -> Result<usize, ModelError> {
    let bytes = rows(cache, count, seed);
    cache.import(cache.len(), &bytes)
}

fn contents(cache: &KvCache) -> Vec<u8> {
    cache.export(0..cache.len()).unwrap()
}

/// The bytes of all pages that caches hold, each page once.
fn held<'a>(caches: impl IntoIterator<Item = &'a KvCache>) -> u64 {
    let pages = caches.into_iter().flat_map(|cache| cache.pages());
    pages.map(|page| (page.address(), page.bytes())).collect::<BTreeMap<_, _>>().values().sum()
}

#[test]
fn a_page_has_what_its_positions_need() {
    let arena = KvArena::unlimited();
    let mut cache = cache(&arena);
    append(&mut cache, PAGE_POSITIONS, 1).unwrap();
    assert_eq!(page_bytes(), (PAGE_POSITIONS * cache.bytes_per_position()) as u64);
    assert_eq!((arena.used_bytes(), cache.bytes()), (page_bytes(), page_bytes()));
    append(&mut cache, 1, 2).unwrap();
    assert_eq!(arena.used_bytes(), 2 * page_bytes());
}

#[test]
fn only_full_pages_are_given_away() {
    let mut cache = cache(&KvArena::unlimited());
    append(&mut cache, 2 * PAGE_POSITIONS - 1, 1).unwrap();
    assert!(cache.page(0).is_some() && cache.page(1).is_none());
    append(&mut cache, 1, 2).unwrap();
    assert!(cache.page(1).is_some() && cache.page(2).is_none() && cache.page(usize::MAX).is_none());
    cache.truncate(PAGE_POSITIONS + 1);
    assert!(cache.page(0).is_some() && cache.page(1).is_none());
}

#[test]
fn a_page_outlives_its_cache() {
    let arena = KvArena::new(page_bytes());
    let mut first = cache(&arena);
    append(&mut first, PAGE_POSITIONS, 1).unwrap();
    let (page, expected) = (first.page(0).unwrap(), contents(&first));
    drop(first);
    assert_eq!(arena.used_bytes(), page_bytes());
    let mut second = cache(&arena);
    assert_eq!(second.attach(&[page]).unwrap(), PAGE_POSITIONS);
    assert!(contents(&second) == expected);
    drop(second);
    assert_eq!(arena.used_bytes(), 0);
}

#[test]
fn whoever_writes_into_a_shared_page_gets_its_own() {
    let arena = KvArena::unlimited();
    let mut original = cache(&arena);
    append(&mut original, 2 * PAGE_POSITIONS, 1).unwrap();
    let expected = contents(&original);
    let pages: Vec<KvPage> = (0..2).filter_map(|index| original.page(index)).collect();
    let mut other = cache(&arena);
    other.attach(&pages).unwrap();
    drop(pages);
    assert_eq!(arena.used_bytes(), 2 * page_bytes());
    other.truncate(PAGE_POSITIONS + 9);
    append(&mut other, 3, 2).unwrap();
    assert_eq!(arena.used_bytes(), 3 * page_bytes(), "the second page is copied, the first is not");
    assert!(contents(&original) == expected);
    let (kept, new) = (original.export(0..PAGE_POSITIONS + 9).unwrap(), rows(&other, 3, 2));
    assert!(other.export(0..PAGE_POSITIONS + 9).unwrap() == kept);
    assert!(other.export(PAGE_POSITIONS + 9..PAGE_POSITIONS + 12).unwrap() == new);
    // Its own page is written into in place.
    append(&mut other, 3, 3).unwrap();
    assert_eq!(arena.used_bytes(), 3 * page_bytes());
}

#[test]
fn what_cannot_be_attached_is_refused_and_changes_nothing() {
    let arena = KvArena::unlimited();
    let mut giver = cache(&arena);
    append(&mut giver, 5 * PAGE_POSITIONS, 1).unwrap();
    let pages: Vec<KvPage> = (0..5).filter_map(|index| giver.page(index)).collect();
    let mut taker = cache(&arena);
    append(&mut taker, 7, 2).unwrap();
    let error = taker.attach(&pages[..1]).unwrap_err();
    assert!(matches!(error, ModelError::WrongPosition { position: 64, len: 7 }), "{error}");
    append(&mut taker, PAGE_POSITIONS - 7, 2).unwrap();
    let before = (contents(&taker), arena.used_bytes());
    let error = taker.attach(&pages).unwrap_err();
    assert!(matches!(error, ModelError::CacheFull { needed: 384, max_tokens: MAX_TOKENS }), "{error}");
    for (blocks, shape) in [(BlockRange::new(3, 6).unwrap(), shape()), (range(), KvShape { head_dim: 4, ..shape() })] {
        let mut stranger = KvCache::new(arena.clone(), blocks, shape, MAX_TOKENS);
        append(&mut stranger, PAGE_POSITIONS, 3).unwrap();
        let error = taker.attach(&[pages[1].clone(), stranger.page(0).unwrap()]).unwrap_err();
        assert!(matches!(error, ModelError::WrongCache { .. }), "{error}");
    }
    assert!((contents(&taker), arena.used_bytes()) == before);
    assert_eq!(taker.attach(&pages[1..]).unwrap(), 4 * PAGE_POSITIONS);
    assert!(taker.export(64..320).unwrap() == giver.export(64..320).unwrap());
}

/// What is done to some caches.
#[derive(Debug, Clone)]
enum Operation {
    Append { cache: usize, rows: usize },
    Truncate { cache: usize, len: usize },
    Attach { cache: usize, from: usize, pages: usize },
    Renew { cache: usize },
    Clone { cache: usize, from: usize },
    KeepPage { cache: usize, page: usize },
    DropPage { kept: usize },
}

fn operation() -> impl Strategy<Value = Operation> {
    let which = || 0..CACHES;
    prop_oneof![
        4 => (which(), 1usize..150).prop_map(|(cache, rows)| Operation::Append { cache, rows }),
        2 => (which(), 0usize..300).prop_map(|(cache, len)| Operation::Truncate { cache, len }),
        4 => (which(), which(), 1usize..5).prop_map(|(cache, from, pages)| Operation::Attach { cache, from, pages }),
        1 => which().prop_map(|cache| Operation::Renew { cache }),
        1 => (which(), which()).prop_map(|(cache, from)| Operation::Clone { cache, from }),
        1 => (which(), 0usize..4).prop_map(|(cache, page)| Operation::KeepPage { cache, page }),
        1 => (0usize..4).prop_map(|kept| Operation::DropPage { kept }),
    ]
}

/// Caches, what each of them must hold, and pages kept outside any of them.
struct World {
    arena: KvArena,
    caches: Vec<KvCache>,
    expected: Vec<Vec<u8>>,
    kept: Vec<KvPage>,
}

impl World {
    fn new(budget_pages: u64) -> Self {
        let arena = KvArena::new(budget_pages * page_bytes());
        let caches = (0..CACHES).map(|_| cache(&arena)).collect();
        Self { arena, caches, expected: vec![Vec::new(); CACHES], kept: Vec::new() }
    }

    fn apply(&mut self, operation: Operation, seed: u64) {
        match operation {
            Operation::Append { cache, rows: count } => self.append(cache, count, seed),
            Operation::Truncate { cache, len } => {
                self.caches[cache].truncate(len);
                let bytes = self.caches[cache].len() * self.caches[cache].bytes_per_position();
                self.refresh(cache, bytes);
            }
            Operation::Attach { cache, from, pages } => {
                let pages: Vec<KvPage> = (0..pages).filter_map(|index| self.caches[from].page(index)).collect();
                let before = self.caches[cache].len();
                if let Ok(added) = self.caches[cache].attach(&pages) {
                    let new = self.caches[from].export(0..added).unwrap();
                    assert!(self.caches[cache].export(before..before + added).unwrap() == new);
                    self.expected[cache] = contents(&self.caches[cache]);
                }
            }
            Operation::Renew { cache: index } => {
                self.caches[index] = cache(&self.arena);
                self.expected[index].clear();
            }
            Operation::Clone { cache, from } => {
                self.caches[cache] = self.caches[from].clone();
                self.expected[cache] = self.expected[from].clone();
            }
            Operation::KeepPage { cache, page } => self.kept.extend(self.caches[cache].page(page)),
            Operation::DropPage { kept } => drop((kept < self.kept.len()).then(|| self.kept.swap_remove(kept))),
        }
    }

    fn append(&mut self, index: usize, count: usize, seed: u64) {
        let cache = &mut self.caches[index];
        let before = cache.len();
        let used = self.arena.used_bytes();
        match append(cache, count, seed) {
            Ok(_) => {
                let old = before * cache.bytes_per_position();
                assert!(cache.export(before..before + count).unwrap() == rows(cache, count, seed));
                assert!(cache.export(0..before).unwrap() == self.expected[index], "{old}");
                self.expected[index] = contents(cache);
            }
            Err(ModelError::KvBudget { wanted, used: said, budget }) => {
                assert!(wanted == page_bytes() && said + wanted > budget && said >= used);
                assert_eq!((cache.len(), self.arena.used_bytes()), (before, used));
            }
            Err(error) => assert!(matches!(error, ModelError::CacheFull { .. }), "{error}"),
        }
    }

    /// The expected contents after a truncation: of each block, the positions that are left.
    fn refresh(&mut self, index: usize, bytes: usize) {
        let blocks = (RANGE.1 - RANGE.0) as usize;
        let old = self.expected[index].len() / blocks;
        let left = |block: &[u8]| block[..bytes / blocks].to_vec();
        self.expected[index] = self.expected[index].chunks_exact(old.max(1)).flat_map(left).collect();
    }

    fn check(&self) {
        for (cache, expected) in self.caches.iter().zip(&self.expected) {
            assert!(contents(cache) == *expected);
            assert_eq!(cache.bytes(), cache.len().div_ceil(PAGE_POSITIONS) as u64 * page_bytes());
        }
        let mut holder = cache(&self.arena);
        holder.pages = self.kept.clone();
        assert_eq!(self.arena.used_bytes(), held(self.caches.iter().chain([&holder])));
        assert!(self.arena.used_bytes() <= self.arena.budget_bytes());
    }
}

proptest! {
    #[test]
    fn every_byte_is_counted_and_nobody_sees_anothers_rows(
        operations in prop::collection::vec(operation(), 1..40),
        budget_pages in 1u64..16,
    ) {
        let mut world = World::new(budget_pages);
        for (seed, operation) in operations.into_iter().enumerate() {
            world.apply(operation, seed as u64);
            world.check();
        }
        let arena = world.arena.clone();
        drop(world);
        prop_assert_eq!(arena.used_bytes(), 0);
    }
}
