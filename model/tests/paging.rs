//! Sequences that share pages have the bits of those that computed everything themselves, within an exact budget.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::slice::from_mut;

use common::{Whole, bits};
use swarm_model::{KvArena, KvCache, KvPage, ModelError, PAGE_POSITIONS, Sequence};
use swarm_protocol::model_id::WeightFormat;

const FORMATS: [WeightFormat; 6] = WeightFormat::CONVERTED;

fn tokens(count: usize, seed: usize) -> Vec<u32> {
    (0..count).map(|i| ((i * 131 + seed * 977 + i * i * 7) % 1000) as u32).collect()
}

fn cache(whole: &Whole, arena: &KvArena) -> KvCache {
    whole.blocks.new_cache_in(arena, whole.blocks.range(), 512).unwrap()
}

fn step(whole: &Whole, cache: &mut KvCache, ids: &[u32]) -> Vec<u8> {
    bits(&whole.step(&[whole.blocks.range()], from_mut(cache), ids))
}

fn pages(cache: &KvCache, count: usize) -> Vec<KvPage> {
    (0..count).map(|index| cache.page(index).unwrap()).collect()
}

#[test]
fn a_shared_prefix_gives_the_bits_of_a_fresh_one() {
    for format in FORMATS {
        let (whole, arena) = (Whole::demo(format), KvArena::unlimited());
        let prefix = tokens(150, 1);
        let mut first = cache(&whole, &arena);
        step(&whole, &mut first, &prefix);
        for seed in [2, 3] {
            let ids: Vec<u32> = prefix[..2 * PAGE_POSITIONS].iter().copied().chain(tokens(90, seed)).collect();
            let mut fresh = cache(&whole, &arena);
            let expected = step(&whole, &mut fresh, &ids);
            let mut shared = cache(&whole, &arena);
            assert_eq!(shared.attach(&pages(&first, 2)).unwrap(), 2 * PAGE_POSITIONS);
            let mut found = step(&whole, &mut shared, &ids[128..200]);
            for id in &ids[200..] {
                found.extend(step(&whole, &mut shared, &[*id]));
            }
            assert!(expected.ends_with(&found) && !found.is_empty(), "{format}");
            assert!(fresh.export(0..fresh.len()).unwrap() == shared.export(0..shared.len()).unwrap());
        }
    }
}

/// Two that share a prefix and part within a page, computed in one call.
#[test]
fn those_who_part_within_a_page_leave_each_other_alone() {
    let (whole, arena) = (Whole::demo(WeightFormat::Bf16), KvArena::unlimited());
    let (ids, others) = (tokens(140, 1), tokens(40, 2));
    let mut first = cache(&whole, &arena);
    let expected = step(&whole, &mut first, &ids);
    let mut second = first.clone();
    second.truncate(100);
    let hidden = whole.edges.embed(&[&ids[..20], &others[..]].concat()).unwrap();
    let mut sequences = [Sequence { cache: &mut first, rows: 20 }, Sequence { cache: &mut second, rows: 40 }];
    let together = whole.blocks.forward(whole.blocks.range(), &hidden, &mut sequences).unwrap();
    let mut alone = cache(&whole, &arena);
    step(&whole, &mut alone, &ids[..100]);
    assert!(step(&whole, &mut alone, &others) == bits(&together.narrow(0, 20, 40).unwrap()));
    first.truncate(0);
    assert!(step(&whole, &mut first, &ids) == expected);
}

#[test]
fn what_the_budget_does_not_hold_is_refused_before_it_is_computed() {
    let whole = Whole::demo(WeightFormat::Bf16);
    let all = whole.blocks.range();
    let page = whole.blocks.page_bytes(all);
    let per_token = whole.edges.config().kv_bytes_per_token_block(WeightFormat::Bf16, whole.blocks.kv_format());
    assert_eq!(page, u64::from(all.len()) * PAGE_POSITIONS as u64 * per_token);
    let arena = KvArena::new(3 * page + page / 2);
    let (ids, others) = (tokens(200, 1), tokens(70, 2));
    let (mut first, mut second) = (cache(&whole, &arena), cache(&whole, &arena));
    let expected = step(&whole, &mut first, &ids[..128]);
    assert_eq!(arena.used_bytes(), 2 * page);
    // One of the two would still fit: neither is computed.
    let hidden = whole.edges.embed(&[&ids[128..130], &others[..]].concat()).unwrap();
    let mut sequences = [Sequence { cache: &mut first, rows: 2 }, Sequence { cache: &mut second, rows: 70 }];
    let error = whole.blocks.forward(all, &hidden, &mut sequences).unwrap_err();
    assert!(
        matches!(error, ModelError::KvBudget { used, wanted, .. } if (used, wanted) == (3 * page, page)),
        "{error}"
    );
    assert_eq!((first.len(), second.len(), arena.used_bytes()), (128, 0, 2 * page));
    step(&whole, &mut second, &others[..64]);
    assert_eq!(arena.used_bytes(), 3 * page);
    // A page that is shared cannot be copied either; once nobody else holds it, it is written into.
    let kept = first.page(1).unwrap();
    first.truncate(100);
    let forward = |cache: &mut KvCache| {
        let hidden = whole.edges.embed(&ids[100..128]).unwrap();
        whole.blocks.forward(all, &hidden, &mut [Sequence { cache, rows: 28 }])
    };
    assert!(matches!(forward(&mut first), Err(ModelError::KvBudget { .. })));
    assert_eq!((first.len(), arena.used_bytes()), (100, 3 * page));
    drop(kept);
    assert!(expected.ends_with(&bits(&forward(&mut first).unwrap())));
    drop((first, second));
    assert_eq!(arena.used_bytes(), 0);
}
