//! Traces made by hand.

use std::time::Duration;

use swarm_protocol::PeerId;
use swarm_protocol::block::BlockRange;

use super::record::TraceRecord;
use crate::session::HopInfo;

pub(super) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A hop over `start..end`; its peer id follows from `name`.
pub(super) fn hop(name: u8, start: u32, end: u32) -> HopInfo {
    let secret = swarm_protocol::Keypair::ed25519_from_bytes([name; 32]).unwrap();
    let blocks = BlockRange::new(start, end).unwrap();
    HopInfo { peer: PeerId::from(secret.public()), blocks, bytes_in: 256, bytes_out: 136 }
}

pub(super) fn route(hops: &[HopInfo], at: u64) -> TraceRecord {
    TraceRecord::Route { hops: hops.to_vec(), at: ms(at) }
}

pub(super) fn step((position, rows): (u32, u32), at: u64, embedding: u64) -> TraceRecord {
    TraceRecord::Step { position, rows, at: ms(at), embedding: ms(embedding) }
}

/// A hop's word that arrived at `acknowledged`.
pub(super) fn word(
    hop: &HopInfo,
    (position, rows): (u32, u32),
    (queue, compute): (u64, u64),
    (acknowledged, rtt): (u64, u64),
) -> TraceRecord {
    TraceRecord::Hop {
        peer: hop.peer,
        blocks: hop.blocks,
        position,
        rows,
        queue: ms(queue),
        compute: ms(compute),
        acknowledged: ms(acknowledged),
        rtt: ms(rtt),
    }
}

pub(super) fn output(position: u32, at: u64) -> TraceRecord {
    TraceRecord::Output { position, at: ms(at) }
}

pub(super) fn token(id: u32, at: u64, sampling: u64) -> TraceRecord {
    TraceRecord::Token { id, at: ms(at), sampling: ms(sampling) }
}

/// Two tokens over two hops; the prompt of five tokens goes in two chunks. A hop is 10 ms away, and computes a row in 4 ms
/// and a chunk in 20 ms.
pub(super) fn two_tokens() -> Vec<TraceRecord> {
    let (one, two) = (hop(1, 0, 6), hop(2, 6, 12));
    vec![
        route(&[one.clone(), two.clone()], 0),
        step((0, 4), 2, 2),
        step((4, 1), 3, 1),
        word(&one, (0, 4), (0, 20), (42, 20)),
        word(&one, (4, 1), (0, 4), (46, 20)),
        word(&two, (0, 4), (1, 20), (83, 20)),
        word(&two, (4, 1), (15, 4), (87, 20)),
        output(4, 87),
        token(7, 90, 3),
        step((5, 1), 91, 1),
        word(&one, (5, 1), (2, 4), (117, 20)),
        word(&two, (5, 1), (0, 4), (141, 20)),
        output(5, 141),
        token(8, 143, 2),
    ]
}
