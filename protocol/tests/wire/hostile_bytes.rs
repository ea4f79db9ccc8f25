//! No bytes from the network panic, and none make a reader allocate beyond its limits.
// The counting allocator passes every call on to the system's.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use swarm_protocol::announcement::{Entry, MAX_RECORD_BYTES, MergedRecord, MergedStore, SegmentKey, Signed};
use swarm_protocol::swarm_name::SwarmName;
use swarm_protocol::wire::{
    EdgesReply, EdgesRequest, FrameError, InfoReply, InfoRequest, MAX_HEADER_BYTES, PREFIX_BYTES, SessionReply,
    SessionRequest, decode, encode,
};

use crate::golden::{SEVEN, bytes};
use crate::round_trips::keys_of;
use crate::strategies;

/// serde sets aside at most 1 MiB for a list before its elements have come; a hostile list may hold another.
const MOST_BYTES: isize = 5 * 1024 * 1024 / 2;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// Counts what each thread holds.
struct Counting;

fn count(bytes: isize) {
    // A thread that is ending counts no more.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        PEAK.with(|peak| peak.set(peak.get().max(held.get())));
    });
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most bytes held at once while `work` ran, beyond those held before.
fn peak_of(work: impl FnOnce()) -> isize {
    let before = HELD.with(Cell::get);
    PEAK.with(|peak| peak.set(before));
    work();
    PEAK.with(Cell::get) - before
}

/// Everything that reads bytes of a peer. Whether it likes them is not asked.
fn read_in_every_way(bytes: &[u8]) {
    let peak = peak_of(|| {
        let _ = decode::<InfoRequest>(bytes, usize::MAX);
        let _ = decode::<InfoReply>(bytes, usize::MAX);
        let _ = decode::<SessionRequest>(bytes, usize::MAX);
        let _ = decode::<SessionReply>(bytes, usize::MAX);
        let _ = decode::<EdgesRequest>(bytes, usize::MAX);
        let _ = decode::<EdgesReply>(bytes, usize::MAX);
        if let Ok(record) = MergedRecord::decode(bytes) {
            for entry in record.entries {
                let _ = entry.signed.verify(&SwarmName::default());
            }
        }
        if let Ok(signed) = postcard::from_bytes::<Signed>(bytes) {
            let _ = signed.verify(&SwarmName::default());
        }
        let mut store = MergedStore::new(SwarmName::default());
        let _ = store.put(SegmentKey::directory(), bytes, Duration::ZERO);
    });
    assert!(peak <= MOST_BYTES, "{peak} bytes were held for {} from the network", bytes.len());
}

#[derive(Debug, Clone)]
enum Mutation {
    Flip(Index, u8),
    Cut(Index),
    Insert(Index, Vec<u8>),
    Overwrite(Index, Vec<u8>),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    // A varint that says four billion is the bytes most worth inserting.
    let bytes = prop_oneof![Just(vec![0xff, 0xff, 0xff, 0xff, 0x0f]), vec(any::<u8>(), 1..12)];
    prop_oneof![
        (any::<Index>(), 1..=u8::MAX).prop_map(|(at, bits)| Mutation::Flip(at, bits)),
        any::<Index>().prop_map(Mutation::Cut),
        (any::<Index>(), bytes.clone()).prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        (any::<Index>(), bytes).prop_map(|(at, bytes)| Mutation::Overwrite(at, bytes)),
    ]
}

fn mutated(mut bytes: Vec<u8>, mutations: Vec<Mutation>) -> Vec<u8> {
    for mutation in mutations {
        if bytes.is_empty() {
            break;
        }
        let len = bytes.len();
        match mutation {
            Mutation::Flip(at, bits) => bytes[at.index(len)] ^= bits,
            Mutation::Cut(at) => bytes.truncate(at.index(len)),
            Mutation::Insert(at, new) => drop(bytes.splice(at.index(len)..at.index(len), new)),
            Mutation::Overwrite(at, new) => {
                let start = at.index(len);
                drop(bytes.splice(start..(start + new.len()).min(len), new));
            }
        }
    }
    bytes
}

fn valid() -> impl Strategy<Value = Vec<u8>> {
    let header = |frame: Vec<u8>| frame[PREFIX_BYTES..].to_vec();
    let plain = |message: &_| postcard::to_allocvec(message).unwrap();
    let record = strategies::statement().prop_map(|(keys, statement)| {
        let signed = Signed::new(&statement, &SwarmName::default(), &keys).unwrap();
        MergedRecord { total: 2, entries: vec![Entry { seconds_left: 9, signed }; 2] }.encode().unwrap()
    });
    let signed = strategies::statement().prop_map(|(keys, statement)| {
        postcard::to_allocvec(&Signed::new(&statement, &SwarmName::default(), &keys).unwrap()).unwrap()
    });
    prop_oneof![
        strategies::info_request().prop_map(move |message| header(encode(&message, &[]).unwrap())),
        strategies::info_reply().prop_map(move |message| header(encode(&message, &[]).unwrap())),
        strategies::session_request().prop_map(|message| postcard::to_allocvec(&message).unwrap()),
        strategies::session_reply().prop_map(move |message| plain(&message)),
        strategies::edges_request().prop_map(|message| postcard::to_allocvec(&message).unwrap()),
        strategies::edges_reply().prop_map(|message| postcard::to_allocvec(&message).unwrap()),
        record,
        signed,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn random_bytes(bytes in vec(any::<u8>(), 0..600)) { read_in_every_way(&bytes); }

    #[test]
    fn mutated_bytes(bytes in valid(), mutations in vec(mutation(), 1..4)) {
        read_in_every_way(&mutated(bytes, mutations));
    }

    /// No change to a signed statement's bytes makes a holder keep something its author did not say.
    #[test]
    fn mutated_statements(
        (keys, statement) in strategies::statement(),
        mutations in vec(mutation(), 1..4),
    ) {
        let value = postcard::to_allocvec(&Signed::new(&statement, &SwarmName::default(), &keys).unwrap()).unwrap();
        let changed = mutated(value, mutations);
        let mut store = MergedStore::new(SwarmName::default());
        let key = keys_of(&statement)[0];
        if store.put(key, &changed, Duration::ZERO).is_ok() {
            let kept: Signed = postcard::from_bytes(&changed).unwrap();
            prop_assert_eq!(kept.verify(&SwarmName::default()).unwrap(), statement);
        }
    }
}

/// Lists that claim as many elements as there are bytes, nested as deep as the messages go, at the largest size allowed.
#[test]
fn the_worst_lists() {
    let claims = |start: &[u8], len: usize| {
        let mut bytes = start.to_vec();
        while bytes.len() + 3 <= len {
            bytes.extend([0xff, 0xff, 0x01]);
        }
        bytes
    };
    // Connect and HandOver, up to the list of the next hop's addresses.
    let peer = bytes(SEVEN.0);
    let (connect, hand_over) = ([&[5, 0, 0, 3], &peer[..]].concat(), [&[6, 0], &peer[..]].concat());
    for len in [MAX_RECORD_BYTES, MAX_HEADER_BYTES] {
        for start in [&[][..], &[0], &[1], &[0, 0], &[1, 1], &[2, 0x80, 0x40], &connect, &hand_over] {
            read_in_every_way(&claims(start, len));
            read_in_every_way(&[start, &vec![0; len - start.len()]].concat());
            read_in_every_way(&[start, &vec![0xff; len - start.len()]].concat());
        }
    }
    // As many empty entries as fit: each costs two bytes there and some sixty here.
    let entries = MAX_RECORD_BYTES - 8;
    read_in_every_way(&[vec![1, (entries & 0x7f) as u8 | 0x80, (entries >> 7) as u8], vec![0; entries]].concat());
}

#[test]
fn what_is_too_long_is_refused_before_it_is_read() {
    let long = vec![0; MAX_HEADER_BYTES + 1];
    assert!(matches!(decode::<InfoRequest>(&long, 0), Err(FrameError::HeaderTooLong(_))));
    assert!(MergedRecord::decode(&long[..MAX_RECORD_BYTES + 1]).is_err());
    assert!(matches!(decode::<InfoRequest>(&[0, 0], 0), Err(FrameError::Trailing(1))));
}

/// Variants that a later release may append are refused, not misread.
#[test]
fn unknown_variants_are_refused() {
    // The first that is not there, of each.
    let malformed = |error| matches!(error, FrameError::Malformed(_));
    for variant in [2u8, 99] {
        assert!(malformed(decode::<InfoRequest>(&[variant, 0], 0).unwrap_err()));
    }
    for variant in [3u8, 99] {
        assert!(malformed(decode::<InfoReply>(&[variant, 0], 0).unwrap_err()));
    }
    for variant in [15u8, 99] {
        assert!(malformed(decode::<SessionRequest>(&[&[variant][..], &[0; 64]].concat(), 0).unwrap_err()));
    }
    for variant in [15u8, 99] {
        assert!(malformed(decode::<SessionReply>(&[&[variant][..], &[0; 64]].concat(), 0).unwrap_err()));
    }
    for variant in [5u8, 99] {
        assert!(malformed(decode::<EdgesRequest>(&[&[variant][..], &[0; 64]].concat(), 0).unwrap_err()));
    }
    for variant in [4u8, 99] {
        assert!(malformed(decode::<EdgesReply>(&[&[variant][..], &[0; 64]].concat(), 0).unwrap_err()));
    }
    // A format of links, and a way to write elements.
    assert!(malformed(decode::<SessionRequest>(&[13, 3, 0], 0).unwrap_err()));
    assert!(malformed(decode::<SessionRequest>(&[10, 1, 1, 5, 0, 1], 0).unwrap_err()));
}
