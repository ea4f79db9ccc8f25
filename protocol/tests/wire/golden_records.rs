//! Statements, their signatures, the record that merges them, the keys they stand under, and the protocol names.

use swarm_protocol::announcement::{
    Announcement, DirectoryEntry, Entry, Load, MergedRecord, Rates, SegmentKey, ServerState, Shard, Signed, Statement,
};
use swarm_protocol::block::BlockRange;
use swarm_protocol::model_id::{ModelId, NumericClass};
use swarm_protocol::session::TokenCount;
use swarm_protocol::swarm_name::SwarmName;
use swarm_protocol::wire::{EDGES_VERSION, INFO_VERSION, KAD_VERSION, SESSION_VERSION};

use crate::golden::{EIGHT, Part, SEVEN, assert_golden, assert_layout, bytes, keys};

pub(crate) fn announcement() -> Announcement {
    Announcement {
        peer: keys(7).public().to_peer_id(),
        instance: u64::MAX,
        sequence: 300,
        state: ServerState::Serving,
        addresses: vec!["/ip4/127.0.0.1/tcp/4001".parse().unwrap()],
        model: ModelId([0x33; 32]),
        blocks: BlockRange::new(4, 12).unwrap(),
        class: NumericClass::new("bf16/fma/x86_64-linux").unwrap(),
        rates: Rates { decode_us_per_block: 900, prefill_ns_per_token_block: 70_000 },
        load: Load { queue_us: 5, sessions: 1, free_tokens: TokenCount(100), total_tokens: TokenCount(200) },
        neighbours: vec![(keys(8).public().to_peer_id(), 25_000)],
        ttl_seconds: 240,
        name: Some("attic".to_string()),
        version: "0.1.0".to_string(),
        edges: true,
    }
}

pub(crate) const ANNOUNCEMENT: [Part; 25] = [
    SEVEN,
    ("ff*9 01", "instance 2^64-1"),
    ("ac02", "sequence 300"),
    ("01", "Serving"),
    ("01", "one address"),
    ("08", "of 8 bytes"),
    ("04 7f000001 06 0fa1", "/ip4/127.0.0.1/tcp/4001"),
    ("33*32", "model"),
    ("04 0c", "blocks 4..12"),
    ("15 626631362f666d612f7838365f36342d6c696e7578", "21 bytes, \"bf16/fma/x86_64-linux\""),
    ("8407", "900 µs a decode step and block"),
    ("f0a204", "70000 ns a prefill token and block"),
    ("05", "queued 5 µs"),
    ("01", "1 session"),
    ("64", "100 tokens free"),
    ("c801", "of 200"),
    ("01", "one neighbour"),
    EIGHT,
    ("a8c301", "25000 µs away"),
    ("f001", "ttl 240 s"),
    ("01", "Some name"),
    ("05 6174746963", "\"attic\""),
    ("05", "5 bytes"),
    ("302e312e30", "version \"0.1.0\""),
    ("01", "embedding and head are offered"),
];

fn directory() -> DirectoryEntry {
    DirectoryEntry {
        peer: keys(7).public().to_peer_id(),
        sequence: 300,
        model: ModelId([0x33; 32]),
        name: "demo".to_string(),
        blocks: 12,
        shard_bits: 3,
        ttl_seconds: 600,
    }
}

const DIRECTORY: [Part; 8] = [
    ("01", "Directory"),
    SEVEN,
    ("ac02", "sequence 300"),
    ("33*32", "model"),
    ("04 64656d6f", "\"demo\""),
    ("0c", "12 blocks"),
    ("03", "3 shard bits"),
    ("d804", "ttl 600 s"),
];

#[test]
fn statements() {
    let layout: Vec<Part> = [("00", "Announcement")].into_iter().chain(ANNOUNCEMENT).collect();
    assert_golden(&Statement::Announcement(announcement()), &layout);
    assert_golden(&Statement::Directory(directory()), &DIRECTORY);
    for (state, byte) in [(ServerState::Joining, "00"), (ServerState::Serving, "01"), (ServerState::Leaving, "02")] {
        assert_golden(&state, &[(byte, "state")]);
    }
}

fn signed() -> Signed {
    Signed::new(&Statement::Directory(directory()), &SwarmName::default(), &keys(7)).unwrap()
}

fn signed_layout() -> Vec<Part> {
    let mut layout = vec![("53", "83 bytes of statement")];
    layout.extend(DIRECTORY);
    layout.extend([("40", "64 bytes of signature"), (SIGNATURE, "ed25519 (RFC 8032)")]);
    layout
}

const SIGNATURE: &str = "3445454c1d8d19486cd8034e1dace0e7b2440a499ab02c4efc730b8fb1918d4a\
    beb6c45b40a4fa37ace9c8e4bdbbd157b09a04b0fdfd72393eb990cdd5a98102";

/// What is signed is written out here once more, by itself.
#[test]
fn a_signed_statement() {
    assert_golden(&signed(), &signed_layout());
    let mut message = b"/swarm-node/public/statement/1\0".to_vec();
    message.extend(DIRECTORY.iter().flat_map(|(hex, _)| bytes(hex)));
    assert!(keys(7).public().verify(&message, &bytes(SIGNATURE)));
    assert_eq!(signed().verify(&SwarmName::default()).unwrap(), Statement::Directory(directory()));
}

#[test]
fn a_merged_record() {
    let record = MergedRecord { total: 1500, entries: vec![Entry { seconds_left: 239, signed: signed() }] };
    let mut layout = vec![("dc0b", "drawn from 1500"), ("01", "one entry"), ("ef01", "239 s left")];
    layout.extend(signed_layout());
    assert_layout(&record.encode().unwrap(), &layout);
    assert_eq!(MergedRecord::decode(&record.encode().unwrap()).unwrap(), record);
}

#[test]
fn keys_of_records() {
    let peer = keys(7).public().to_peer_id();
    let segment = |segment, bits| SegmentKey::segment(ModelId([0x33; 32]), segment, Shard::of(peer, bits)).0;
    let found = [SegmentKey::directory().0, segment(0, 0), segment(1, 0), segment(0, 3)].concat();
    let layout = [
        ("ea5791572586d9494bfac33076796e1d3245bdaf125f49ac24d9fc67051d32e5", "directory"),
        ("6ca0769504535b4810e7b05e929aaafc34fcbd24a00fe395dd4b95821952e1c1", "first segment, unsharded"),
        ("9d34c06ea61d96df84e09a3823a021a057e32304c47dba5e17e165e60e46fe10", "second segment, unsharded"),
        ("b5a769cce5a95c9dfd76ab98f3aed44b592b2a012a2d22539b7e3931bcbb3df6", "first segment, peer 7's of 8 shards"),
    ];
    assert_layout(&found, &layout);
}

#[test]
fn protocol_names() {
    let swarm: SwarmName = "my-lab".parse().unwrap();
    assert_eq!(SwarmName::default().as_str(), "public");
    assert_eq!(swarm.protocol("info", INFO_VERSION), "/swarm-node/my-lab/info/2");
    assert_eq!(swarm.protocol("session", SESSION_VERSION), "/swarm-node/my-lab/session/6");
    assert_eq!(swarm.protocol("edges", EDGES_VERSION), "/swarm-node/my-lab/edges/3");
    assert_eq!(swarm.protocol("kad", KAD_VERSION), "/swarm-node/my-lab/kad/2");
}
