//! Whatever is sent is what is received.

use std::fmt::Debug;
use std::time::Duration;

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::Serialize;
use serde::de::DeserializeOwned;
use swarm_protocol::announcement::{MergedStore, SegmentKey, Shard, Signed, Statement, segments};
use swarm_protocol::swarm_name::SwarmName;
use swarm_protocol::wire::{
    ElementType, KvHeader, MAX_HIDDEN, MAX_KV_BYTES, MAX_STEP_ROWS, PREFIX_BYTES, Payload, RowEncoding, RowsHeader,
    SessionReply, SessionRequest, Step, StepOutput, decode, encode,
};

use crate::strategies;

/// Through a whole frame, with a payload of the size that the message announces.
fn through_a_frame<M: Serialize + DeserializeOwned + Payload + PartialEq + Debug>(message: &M) {
    let payload_bytes = message.payload_bytes().unwrap();
    let payload: Vec<u8> = (0..payload_bytes).map(|at| at as u8).collect();
    let frame = encode(message, &payload).unwrap();
    let (prefix, rest) = frame.split_at(PREFIX_BYTES);
    let header_bytes = u32::from_le_bytes(prefix.try_into().unwrap()) as usize;
    let (header, body) = rest.split_at(header_bytes);
    let head = decode::<M>(header, payload_bytes).unwrap();
    assert_eq!(&head.message, message);
    assert_eq!(head.payload_bytes, payload_bytes);
    assert_eq!(body, payload);
    if payload_bytes > 0 {
        assert!(decode::<M>(header, payload_bytes - 1).is_err(), "a payload over the reader's limit");
        assert!(encode(message, &payload[1..]).is_err(), "a payload that is not what the message says");
    }
}

/// Every key that a statement belongs under.
pub(crate) fn keys_of(statement: &Statement) -> Vec<SegmentKey> {
    match statement {
        Statement::Directory(_) => vec![SegmentKey::directory()],
        Statement::Announcement(announcement) => segments(announcement.blocks)
            .map(|segment| SegmentKey::segment(announcement.model, segment, Shard::of(announcement.peer, 0)))
            .collect(),
    }
}

proptest! {
    #[test]
    fn info_requests(message in strategies::info_request()) { through_a_frame(&message); }

    #[test]
    fn info_replies(message in strategies::info_reply()) { through_a_frame(&message); }

    #[test]
    fn session_requests(message in strategies::session_request()) { through_a_frame(&message); }

    #[test]
    fn session_replies(message in strategies::session_reply()) { through_a_frame(&message); }

    #[test]
    fn edges_requests(message in strategies::edges_request()) { through_a_frame(&message); }

    #[test]
    fn edges_replies(message in strategies::edges_reply()) { through_a_frame(&message); }

    /// A statement comes out of a holder's store as it was put, from every key it belongs under.
    #[test]
    fn statements((keys, statement) in strategies::statement()) {
        let swarm = SwarmName::default();
        let value = postcard::to_allocvec(&Signed::new(&statement, &swarm, &keys).unwrap()).unwrap();
        let mut store = MergedStore::new(swarm.clone());
        for key in keys_of(&statement) {
            prop_assert!(key.admits(&statement));
            store.put(key, &value, Duration::ZERO).unwrap();
            let answer = store.get(key, Duration::ZERO, &mut StdRng::seed_from_u64(0));
            prop_assert_eq!(answer.is_some(), statement.ttl_seconds() > 0);
            if let Some(record) = answer {
                prop_assert_eq!(record.entries[0].signed.verify(&swarm).unwrap(), statement.clone());
                prop_assert_eq!(record.entries[0].seconds_left, statement.ttl_seconds());
            }
        }
    }
}

fn rows(rows: u32, hidden: u32) -> RowsHeader {
    RowsHeader { rows, hidden, element: RowEncoding::F32 }
}

/// The bounds of a shape hold at their edges.
#[test]
fn the_largest_rows_and_no_larger() {
    let bytes = |count, hidden| rows(count, hidden).payload_bytes();
    assert_eq!(bytes(MAX_STEP_ROWS, MAX_HIDDEN).unwrap(), 512 * 65_536 * 4);
    assert!(bytes(MAX_STEP_ROWS + 1, 1).is_err());
    assert!(bytes(1, MAX_HIDDEN + 1).is_err());
    assert!(bytes(u32::MAX, u32::MAX).is_err());
    let packed = |bytes| RowEncoding::Packed { element: ElementType::Bf16, bytes };
    let of = |bytes| RowsHeader { rows: 2, hidden: 8, element: packed(bytes) }.payload_bytes();
    assert_eq!(of(31), Ok(31));
    assert!(of(32).is_err() && of(u32::MAX).is_err(), "packed rows are never the longer ones");
}

/// So do those of every message with a payload, whatever the reader's own limit.
#[test]
fn no_message_announces_more() {
    let piece =
        |kv_bytes, outputs| SessionRequest::Kv(KvHeader { epoch: 0, position: 0, positions: 1, kv_bytes, outputs });
    let step = |rows| SessionRequest::Step(Step { epoch: 0, position: 0, rows, wanted_from: 0 });
    let output = |rows| SessionReply::Output(StepOutput { link: 0, epoch: 0, position: 0, rows });
    let largest = rows(MAX_STEP_ROWS, MAX_HIDDEN);
    let whole = largest.payload_bytes().unwrap();
    assert_eq!(step(largest).payload_bytes(), Ok(whole));
    assert_eq!(SessionRequest::Warm(largest).payload_bytes(), Ok(whole));
    assert_eq!(output(largest).payload_bytes(), Ok(whole));
    assert_eq!(piece(MAX_KV_BYTES, largest).payload_bytes(), Ok(MAX_KV_BYTES as usize + whole));
    assert_eq!(piece(0, rows(0, 0)).payload_bytes(), Ok(0));
    for larger in [rows(MAX_STEP_ROWS + 1, 1), rows(1, MAX_HIDDEN + 1), rows(u32::MAX, u32::MAX)] {
        for message in [step(larger), SessionRequest::Warm(larger), piece(0, larger)] {
            refused(&message);
        }
        refused(&output(larger));
    }
    refused(&piece(MAX_KV_BYTES + 1, rows(0, 1)));
    refused(&piece(u32::MAX, largest));
}

fn refused<M: Serialize + DeserializeOwned + Payload + Debug>(message: &M) {
    let header = postcard::to_allocvec(message).unwrap();
    assert!(decode::<M>(&header, usize::MAX).is_err(), "{message:?}");
    assert!(encode(message, &[]).is_err(), "{message:?}");
}
