//! Every message of the info and session protocols, and the frame around them, byte by byte.

use swarm_protocol::block::BlockRange;
use swarm_protocol::model_id::{BlockDigest, ModelId, NumericClass};
use swarm_protocol::session::{SessionId, TokenCount};
use swarm_protocol::wire::{
    CloseReason, ElementType, InfoReply, InfoRequest, Input, Open, Output, OutputRows, Refusal, RowsHeader, ServerInfo,
    SessionReply, SessionRequest, Step, StepError, StepOutput, encode,
};

use crate::golden::{Part, assert_golden, assert_layout};
use crate::golden_records::{ANNOUNCEMENT, announcement};

const NONCE: Part = ("ac02", "nonce 300 (varint)");

fn class() -> NumericClass {
    NumericClass::new("bf16/fma/x86_64-linux").unwrap()
}

const CLASS: Part = ("15 626631362f666d612f7838365f36342d6c696e7578", "21 bytes, \"bf16/fma/x86_64-linux\"");

fn blocks() -> BlockRange {
    BlockRange::new(4, 12).unwrap()
}

#[test]
fn info_requests() {
    assert_golden(&InfoRequest::Describe, &[("00", "Describe")]);
    assert_golden(&InfoRequest::Ping { nonce: 300 }, &[("01", "Ping"), NONCE]);
}

#[test]
fn info_replies() {
    let info = ServerInfo {
        announcement: announcement(),
        digests: vec![BlockDigest([0xd1; 32]), BlockDigest([0xd2; 32])],
        max_positions: 2048,
        uptime_seconds: 300,
    };
    let mut layout = vec![("00", "Server")];
    layout.extend(ANNOUNCEMENT);
    layout.extend([
        ("02", "two digests"),
        ("d1*32", "of the first block"),
        ("d2*32", "of the second"),
        ("8010", "2048 positions"),
        ("ac02", "up for 300 s"),
    ]);
    assert_golden(&InfoReply::Server(Box::new(info)), &layout);
    assert_golden(
        &InfoReply::Bootstrap { version: "0.1.0".to_string() },
        &[("01", "Bootstrap"), ("05 302e312e30", "version \"0.1.0\"")],
    );
    assert_golden(&InfoReply::Pong { nonce: 300 }, &[("02", "Pong"), NONCE]);
}

#[test]
fn session_requests() {
    let open = Open {
        session: SessionId([0x51; 16]),
        model: ModelId([0x33; 32]),
        class: class(),
        blocks: blocks(),
        tokens: TokenCount(2048),
        input: Input::Owner,
        output: Output::Owner,
    };
    assert_golden(
        &SessionRequest::Open(open),
        &[
            ("00", "Open"),
            ("51*16", "session"),
            ("33*32", "model"),
            CLASS,
            ("04 0c", "blocks 4..12"),
            ("8010", "2048 tokens"),
            ("00", "Input::Owner"),
            ("00", "Output::Owner"),
        ],
    );
    assert_golden(&SessionRequest::Step(step()), &STEP);
    assert_golden(&SessionRequest::Ping { nonce: 300 }, &[("02", "Ping"), NONCE]);
    assert_golden(&SessionRequest::Close, &[("03", "Close")]);
}

fn step() -> Step {
    let rows = RowsHeader { rows: 2, hidden: 3, element: ElementType::Bf16 };
    Step { epoch: 5, position: 300, rows, output: OutputRows::Last }
}

const STEP: [Part; 7] = [
    ("01", "Step"),
    ("05", "epoch 5"),
    ("ac02", "position 300"),
    ("02", "2 rows"),
    ("03", "of 3 elements"),
    ("02", "Bf16"),
    ("01", "Last output row"),
];

#[test]
fn small_enums() {
    for (element, byte) in [(ElementType::F32, "00"), (ElementType::F16, "01"), (ElementType::Bf16, "02")] {
        assert_golden(&element, &[(byte, "element type")]);
    }
    for (rows, byte) in [(OutputRows::All, "00"), (OutputRows::Last, "01"), (OutputRows::None, "02")] {
        assert_golden(&rows, &[(byte, "output rows")]);
    }
}

#[test]
fn session_replies() {
    assert_golden(
        &SessionReply::Opened { max_step_rows: 512, idle_timeout_ms: 60_000 },
        &[("00", "Opened"), ("8004", "512 rows"), ("e0d403", "60000 ms")],
    );
    let output = StepOutput {
        epoch: 5,
        position: 300,
        rows: RowsHeader { rows: 1, hidden: 3, element: ElementType::Bf16 },
        queue_us: 5,
        compute_us: 900,
    };
    assert_golden(
        &SessionReply::Output(output),
        &[
            ("02", "Output"),
            ("05", "epoch 5"),
            ("ac02", "position 300"),
            ("01", "1 row"),
            ("03", "of 3 elements"),
            ("02", "Bf16"),
            ("05", "queued 5 µs"),
            ("8407", "computed 900 µs"),
        ],
    );
    assert_golden(&SessionReply::Pong { nonce: 300 }, &[("04", "Pong"), NONCE]);
    assert_golden(&SessionReply::Leaving { within_ms: 30_000 }, &[("05", "Leaving"), ("b0ea01", "30000 ms")]);
}

#[test]
fn refusals() {
    let refusals: [(Refusal, &[Part]); 8] = [
        (Refusal::WrongModel { serves: ModelId([0x33; 32]) }, &[("00", "WrongModel"), ("33*32", "serves")]),
        (Refusal::WrongClass { serves: class() }, &[("01", "WrongClass"), CLASS]),
        (Refusal::NotHosted { hosted: blocks() }, &[("02", "NotHosted"), ("04 0c", "blocks 4..12")]),
        (
            Refusal::NoRoom { free: TokenCount(100), retry_after_ms: 1500 },
            &[("03", "NoRoom"), ("64", "100 tokens"), ("dc0b", "1500 ms")],
        ),
        (Refusal::TooLong { most: TokenCount(2048) }, &[("04", "TooLong"), ("8010", "2048 tokens")]),
        (Refusal::TooManySessions { retry_after_ms: 1500 }, &[("05", "TooManySessions"), ("dc0b", "1500 ms")]),
        (Refusal::Leaving, &[("06", "Leaving")]),
        (Refusal::BadRequest("no".to_string()), &[("07", "BadRequest"), ("02 6e6f", "\"no\"")]),
    ];
    for (refusal, layout) in refusals {
        let layout: Vec<Part> = [("01", "Refused")].into_iter().chain(layout.iter().copied()).collect();
        assert_golden(&SessionReply::Refused(refusal), &layout);
    }
}

#[test]
fn failed_steps() {
    let errors: [(StepError, &[Part]); 4] = [
        (StepError::Gap { have: 7 }, &[("00", "Gap"), ("07", "7 positions are there")]),
        (StepError::PastReservation { reserved: TokenCount(2048) }, &[("01", "PastReservation"), ("8010", "of 2048")]),
        (StepError::BadRows("no".to_string()), &[("02", "BadRows"), ("02 6e6f", "\"no\"")]),
        (StepError::Compute("no".to_string()), &[("03", "Compute"), ("02 6e6f", "\"no\"")]),
    ];
    for (error, layout) in errors {
        let head = [("03", "Failed"), ("05", "epoch 5"), ("ac02", "position 300")];
        let layout: Vec<Part> = head.into_iter().chain(layout.iter().copied()).collect();
        assert_golden(&SessionReply::Failed { epoch: 5, position: 300, error }, &layout);
    }
}

#[test]
fn ends_of_sessions() {
    let reasons: [(CloseReason, &[Part]); 3] = [
        (CloseReason::Idle, &[("00", "Idle")]),
        (CloseReason::Left, &[("01", "Left")]),
        (CloseReason::Protocol("no".to_string()), &[("02", "Protocol"), ("02 6e6f", "\"no\"")]),
    ];
    for (reason, layout) in reasons {
        let layout: Vec<Part> = [("06", "Closed")].into_iter().chain(layout.iter().copied()).collect();
        assert_golden(&SessionReply::Closed(reason), &layout);
    }
}

#[test]
fn a_frame() {
    let payload: Vec<u8> = (0..12).collect();
    let frame = encode(&SessionRequest::Step(step()), &payload).unwrap();
    let mut layout = vec![("08000000", "8 bytes of header (u32, little-endian)")];
    layout.extend(STEP);
    layout.push(("000102030405 060708090a0b", "2 rows of 3 elements of 2 bytes, row by row, little-endian"));
    assert_layout(&frame, &layout);
    let bare = encode(&SessionRequest::Close, &[]).unwrap();
    assert_layout(&bare, &[("01000000", "1 byte of header"), ("03", "Close; no payload")]);
}
