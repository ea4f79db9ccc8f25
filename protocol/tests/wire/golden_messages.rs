//! Every message of the info and session protocols, and the frame around them, byte by byte.

use swarm_protocol::activations::ActivationRows;
use swarm_protocol::block::{BlockIndex, BlockRange};
use swarm_protocol::model_id::{BlockDigest, ModelId, NumericClass, WeightFormat};
use swarm_protocol::session::{SessionId, TokenCount};
use swarm_protocol::trace_context::TraceContext;
use swarm_protocol::wire::{
    ChooseToken, ChooseWith, ChosenToken, CloseReason, Connect, EdgesOffer, EdgesRefusal, EdgesReply, EdgesRequest,
    ElementType, HandOver, Incoming, InfoReply, InfoRequest, Input, Keep, KvHeader, Lane, LinkFormat, LinkFormats,
    Next, Open, OpenEdges, Output, PageKey, PageScope, Recall, Refusal, RowEncoding, RowsHeader, ServerInfo,
    SessionReply, SessionRequest, Step, StepDone, StepError, StepOutput, encode,
};

use crate::golden::{EIGHT, Part, SEVEN, assert_golden, assert_layout, keys};
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
        edges: Some(EdgesOffer { class: class(), digest: BlockDigest([0xed; 32]), choose_us: 900 }),
    };
    let mut layout = vec![("00", "Server")];
    layout.extend(ANNOUNCEMENT);
    layout.extend([
        ("02", "two digests"),
        ("d1*32", "of the first block"),
        ("d2*32", "of the second"),
        ("8010", "2048 positions"),
        ("ac02", "up for 300 s"),
        ("01", "Some edges"),
        CLASS,
        ("ed*32", "their digest"),
        ("8407", "900 µs a token"),
    ]);
    assert_golden(&InfoReply::Server(Box::new(info)), &layout);
    assert_golden(
        &InfoReply::Bootstrap { version: "0.1.0".to_string() },
        &[("01", "Bootstrap"), ("05 302e312e30", "version \"0.1.0\"")],
    );
    assert_golden(&InfoReply::Pong { nonce: 300 }, &[("02", "Pong"), NONCE]);
}

#[test]
fn edges() {
    let open = OpenEdges { model: ModelId([0x33; 32]), class: class(), digest: BlockDigest([0xed; 32]) };
    assert_golden(
        &EdgesRequest::Open(open),
        &[("00", "Open"), ("33*32", "model"), CLASS, ("ed*32", "digest of the weights")],
    );
    assert_golden(
        &EdgesRequest::Embed(vec![5, 300]),
        &[("01", "Embed"), ("02", "two ids"), ("05", "5"), ("ac02", "300")],
    );
    let choose = ChooseToken {
        row: rows(1),
        temperature: Some(0.5),
        top_k: Some(300),
        top_p: None,
        repetition_penalty: Some(1.5),
        seed: 7,
        drawn: 300,
        seen: 2,
        top: 20,
    };
    let layout = [
        ("02", "Choose"),
        ("01", "1 row"),
        ("03", "of 3 elements"),
        ("02", "Bf16"),
        ("01 000000000000e03f", "temperature Some(0.5), 8 bytes in little-endian order"),
        ("01 ac02", "top_k Some(300)"),
        ("00", "no top_p"),
        ("01 0000c03f", "repetition_penalty Some(1.5), 4 bytes in little-endian order"),
        ("07", "seed 7"),
        ("ac02", "300 tokens drawn"),
        ("02", "2 ids seen"),
        ("14", "20 likeliest tokens"),
    ];
    assert_golden(&EdgesRequest::Choose(choose), &layout);
    // Behind it come the row and the ids.
    let frame = encode(&EdgesRequest::Choose(choose), &[9; 3 * 2 + 2 * 4]).unwrap();
    let mut framed: Vec<Part> = vec![("1b000000", "a header of 27 bytes")];
    framed.extend(layout);
    framed.extend([("09*6", "the row"), ("09*8", "the ids")]);
    assert_layout(&frame, &framed);
    assert!(encode(&EdgesRequest::Choose(ChooseToken { seen: 1 << 21, ..choose }), &[]).is_err());
    let with = ChooseWith { choose, min_p: Some(0.5), presence_penalty: 1.5, frequency_penalty: -0.5, generated: 3 };
    let mut longer: Vec<Part> = vec![("03", "ChooseWith")];
    longer.extend(&layout[1..]);
    longer.extend([
        ("01 000000000000e03f", "min_p Some(0.5)"),
        ("0000c03f", "presence_penalty 1.5"),
        ("000000bf", "frequency_penalty -0.5"),
        ("03", "3 ids generated"),
    ]);
    assert_golden(&EdgesRequest::ChooseWith(with), &longer);
    // Behind the ids come those with their counts.
    assert!(encode(&EdgesRequest::ChooseWith(with), &[9; 3 * 2 + 2 * 4 + 3 * 8]).is_ok());
    assert!(encode(&EdgesRequest::ChooseWith(ChooseWith { generated: 1 << 21, ..with }), &[]).is_err());
}

#[test]
fn edges_replies() {
    assert_golden(&EdgesReply::Opened, &[("00", "Opened")]);
    assert_golden(
        &EdgesReply::Embedded(rows(2)),
        &[("01", "Embedded"), ("02", "2 rows"), ("03", "of 3 elements"), ("02", "Bf16")],
    );
    let chosen = ChosenToken { id: 300, log_probability: -1.5, top: vec![(5, -0.5)], embedding: rows(1) };
    assert_golden(
        &EdgesReply::Chosen(chosen),
        &[
            ("02", "Chosen"),
            ("ac02", "token 300"),
            ("0000c0bf", "log-probability -1.5"),
            ("01", "one of the likeliest"),
            ("05", "token 5"),
            ("000000bf", "log-probability -0.5"),
            ("01", "1 row"),
            ("03", "of 3 elements"),
            ("02", "Bf16"),
        ],
    );
    let refusals: [(EdgesRefusal, &[Part]); 4] = [
        (EdgesRefusal::Other, &[("03", "Refused"), ("00", "Other")]),
        (EdgesRefusal::Leaving, &[("03", "Refused"), ("01", "Leaving")]),
        (EdgesRefusal::BadRequest("no".to_string()), &[("03", "Refused"), ("02", "BadRequest"), ("02 6e6f", "\"no\"")]),
        (EdgesRefusal::Compute("no".to_string()), &[("03", "Refused"), ("03", "Compute"), ("02 6e6f", "\"no\"")]),
    ];
    for (refusal, layout) in refusals {
        assert_golden(&EdgesReply::Refused(refusal), layout);
    }
}

#[test]
fn opening() {
    let open = Open {
        session: SessionId([0x51; 16]),
        model: ModelId([0x33; 32]),
        class: class(),
        blocks: blocks(),
        tokens: TokenCount(2048),
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
        ],
    );
    assert_golden(
        &SessionReply::Opened { max_step_rows: 512, max_steps: 4, idle_timeout_ms: 60_000 },
        &[("00", "Opened"), ("8004", "512 rows a step"), ("04", "4 steps"), ("e0d403", "60000 ms")],
    );
}

fn rows(rows: u32) -> RowsHeader {
    RowsHeader { rows, hidden: 3, element: RowEncoding::Bf16 }
}

fn step() -> Step {
    Step { epoch: 5, position: 300, rows: rows(2), wanted_from: 301 }
}

const STEP: [Part; 7] = [
    ("01", "Step"),
    ("05", "epoch 5"),
    ("ac02", "position 300"),
    ("02", "2 rows"),
    ("03", "of 3 elements"),
    ("02", "Bf16"),
    ("ad02", "output is wanted from position 301 on"),
];

#[test]
fn steps() {
    assert_golden(&SessionRequest::Step(step()), &STEP);
    let output = StepOutput { link: 9, epoch: 5, position: 300, rows: rows(1) };
    assert_golden(
        &SessionReply::Output(output),
        &[
            ("02", "Output"),
            ("09", "link 9"),
            ("05", "epoch 5"),
            ("ac02", "position 300"),
            ("01", "1 row"),
            ("03", "of 3 elements"),
            ("02", "Bf16"),
        ],
    );
    let done = StepDone { epoch: 5, position: 300, rows: 2, queue_us: 5, compute_us: 900 };
    assert_golden(
        &SessionReply::Done(done),
        &[
            ("07", "Done"),
            ("05", "epoch 5"),
            ("ac02", "position 300"),
            ("02", "2 rows"),
            ("05", "queued 5 µs"),
            ("8407", "computed 900 µs"),
        ],
    );
    for (element, byte) in
        [(RowEncoding::F32, "00"), (RowEncoding::F16, "01"), (RowEncoding::Bf16, "02"), (RowEncoding::Int8, "03")]
    {
        assert_golden(&element, &[(byte, "how elements are written")]);
    }
}

#[test]
fn formats_of_links() {
    let formats = LinkFormats { input: LinkFormat::Int8, output: LinkFormat::Exact };
    assert_golden(&SessionRequest::Links(formats), &[("0d", "Links"), ("01", "input Int8"), ("00", "output Exact")]);
    assert_golden(&SessionReply::Agreed, &[("0e", "Agreed")]);
    let packed = RowEncoding::Packed { element: ElementType::Bf16, bytes: 300 };
    assert_golden(&LinkFormat::Packed, &[("02", "Packed")]);
    assert_golden(&packed, &[("04", "Packed"), ("02", "of bf16"), ("ac02", "300 bytes")]);
}

#[test]
fn trace_contexts() {
    let context = TraceContext::new([0x7a; 16], [0x5b; 8], 1);
    let layout = [("01", "Some"), ("7a*16", "the trace"), ("5b*8", "the span"), ("01", "flags: it is recorded")];
    let of = |variant: Part| std::iter::once(variant).chain(layout).collect::<Vec<Part>>();
    assert_golden(&SessionRequest::Trace(context), &of(("0e", "Trace")));
    assert_golden(&SessionRequest::Trace(None), &[("0e", "Trace"), ("00", "None")]);
    assert_golden(&EdgesRequest::Trace(context), &of(("04", "Trace")));
}

#[test]
fn words_without_more() {
    assert_golden(&SessionRequest::Ping { nonce: 300 }, &[("02", "Ping"), NONCE]);
    assert_golden(&SessionReply::Pong { nonce: 300 }, &[("04", "Pong"), NONCE]);
    assert_golden(&SessionRequest::Close, &[("03", "Close")]);
    assert_golden(&SessionReply::Leaving { within_ms: 30_000 }, &[("05", "Leaving"), ("b0ea01", "30000 ms")]);
}

fn next() -> Next {
    Next {
        peer: keys(7).public().to_peer_id(),
        addresses: vec!["/ip4/127.0.0.1/tcp/4001".parse().unwrap()],
        session: SessionId([0x52; 16]),
        max_rows: 300,
    }
}

const NEXT: [Part; 6] = [
    SEVEN,
    ("01", "one address"),
    ("08", "of 8 bytes"),
    ("04 7f000001 06 0fa1", "/ip4/127.0.0.1/tcp/4001"),
    ("52*16", "its session"),
    ("ac02", "300 rows a step"),
];

#[test]
fn where_rows_come_from() {
    let peer = keys(8).public().to_peer_id();
    let inputs: [(Input, &[Part]); 3] = [
        (Input::Owner, &[("00", "Owner")]),
        (Input::Upstream { peer, link: 300 }, &[("01", "Upstream"), EIGHT, LINK]),
        (Input::Import { peer, link: 300 }, &[("02", "Import"), EIGHT, LINK]),
    ];
    for (input, layout) in inputs {
        let layout: Vec<Part> = [("04", "Accept")].into_iter().chain(layout.iter().copied()).collect();
        assert_golden(&SessionRequest::Accept(input), &layout);
    }
}

const LINK: Part = ("ac02", "link 300");

#[test]
fn where_output_goes() {
    let to_next: Vec<Part> = [("03", "Next")].into_iter().chain(NEXT).collect();
    let outputs: [(Output, &[Part]); 4] = [
        (Output::Nobody, &[("00", "Nobody")]),
        (Output::Owner, &[("01", "Owner")]),
        (Output::Relay, &[("02", "Relay")]),
        (Output::Next(next()), &to_next),
    ];
    let lanes = [(Lane::Main, ("00", "main lane")), (Lane::Mirror, ("01", "mirror lane"))];
    for (output, to) in outputs {
        for (lane, named) in lanes {
            let mut layout = vec![("05", "Connect"), named, LINK];
            layout.extend(to);
            layout.push(("ad02", "from position 301 on"));
            assert_golden(
                &SessionRequest::Connect(Connect { lane, link: 300, output: output.clone(), position: 301 }),
                &layout,
            );
        }
    }
    assert_golden(
        &SessionReply::Unlinked { link: 300, reason: "no".to_string() },
        &[("08", "Unlinked"), LINK, ("02 6e6f", "\"no\"")],
    );
}

#[test]
fn a_server_comes_to_another() {
    let incoming = Incoming { session: SessionId([0x52; 16]), link: 300 };
    let who = [("52*16", "session"), LINK];
    let layout = |head| [head].into_iter().chain(who).collect::<Vec<Part>>();
    assert_golden(&SessionRequest::Feed(incoming), &layout(("07", "Feed")));
    assert_golden(&SessionRequest::Import(incoming), &layout(("08", "Import")));
    assert_golden(&SessionReply::Expected, &[("09", "Expected")]);
    assert_golden(&SessionReply::Received { position: 300 }, &[("0a", "Received"), ("ac02", "up to position 300")]);
    assert_golden(
        &SessionRequest::Warm(rows(2)),
        &[("0a", "Warm"), ("02", "2 rows"), ("03", "of 3 elements"), ("02", "Bf16")],
    );
}

#[test]
fn pages_that_were_computed_before() {
    let keys = vec![PageKey([0xa1; 32]), PageKey([0xa2; 32])];
    let two = [("02", "two keys"), ("a1*32", "of the first page"), ("a2*32", "of the page behind it")];
    let recall = Recall { epoch: 5, scope: PageScope::Owner, keys: keys.clone() };
    let mut layout = vec![("0b", "Recall"), ("05", "epoch 5"), ("00", "Owner")];
    layout.extend(two);
    assert_golden(&SessionRequest::Recall(recall), &layout);
    let keep = Keep { epoch: 5, scope: PageScope::Shared, first: 300, keys };
    let mut layout = vec![("0c", "Keep"), ("05", "epoch 5"), ("01", "Shared"), ("ac02", "from page 300 on")];
    layout.extend(two);
    assert_golden(&SessionRequest::Keep(keep), &layout);
    assert_golden(&SessionReply::Recalled { position: 300 }, &[("0d", "Recalled"), ("ac02", "up to position 300")]);
    // Fixed for ever: servers keep pages under these names.
    let key = PageKey::root(b"").next(&[1, 2, 300]);
    assert_eq!(format!("{key:?}"), "PageKey(b91f511a69fb)");
    let rounded = key.rounded(LinkFormat::Int8, [0, 4, 300].map(BlockIndex));
    assert_eq!(format!("{rounded:?}"), "PageKey(27c44cb660b9)");
}

fn piece() -> KvHeader {
    KvHeader { epoch: 5, position: 300, positions: 2, kv_bytes: 4, outputs: rows(2) }
}

const PIECE: [Part; 8] = [
    ("09", "Kv"),
    ("05", "epoch 5"),
    ("ac02", "position 300"),
    ("02", "2 positions"),
    ("04", "4 bytes of keys and values"),
    ("02", "2 rows of outputs"),
    ("03", "of 3 elements"),
    ("02", "Bf16"),
];

#[test]
fn a_hand_over() {
    let mut layout = vec![("06", "HandOver"), LINK];
    layout.extend(NEXT);
    assert_golden(&SessionRequest::HandOver(HandOver { link: 300, to: next() }), &layout);
    assert_golden(&SessionRequest::Kv(piece()), &PIECE);
    assert_golden(&SessionReply::Linked { link: 300 }, &[("0c", "Linked"), ("ac02", "link 300")]);
    assert_golden(
        &SessionReply::HandedOver { link: 300, failure: None },
        &[("0b", "HandedOver"), LINK, ("00", "no failure")],
    );
    assert_golden(
        &SessionReply::HandedOver { link: 300, failure: Some("no".to_string()) },
        &[("0b", "HandedOver"), LINK, ("01", "a failure"), ("02 6e6f", "\"no\"")],
    );
}

#[test]
fn refusals() {
    let refusals: [(Refusal, &[Part]); 9] = [
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
        (Refusal::NotExpected, &[("08", "NotExpected")]),
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
fn rounded_rows_in_a_frame() {
    // Two cells a row; 127 and its half, whose nearest even step is 64, then 2.
    let elements: Vec<f32> = [127.0, 63.5].into_iter().chain([0.0; 30]).chain([2.0]).collect();
    let bytes = elements.iter().flat_map(|element| element.to_le_bytes()).collect();
    let rows = ActivationRows::new(WeightFormat::F32, 33, bytes).unwrap().on_link(LinkFormat::Int8);
    let step = Step { rows: rows.header(), ..step() };
    let frame = encode(&SessionRequest::Step(step), rows.bytes()).unwrap();
    let layout = [
        ("09000000", "9 bytes of header"),
        ("01", "Step"),
        ("05", "epoch 5"),
        ("ac02", "position 300"),
        ("01", "1 row"),
        ("21", "of 33 elements"),
        ("03", "Int8"),
        ("ad02", "output is wanted from position 301 on"),
        ("803f", "a cell of 32 elements: its scale, 1 in bfloat16, little-endian"),
        ("7f 40 00*30", "127, 64 and 0 times that"),
        ("823c 7e", "a cell of what is left: its scale, 2 / 127 rounded up, and 126 times that"),
    ];
    assert_layout(&frame, &layout);
}

#[test]
fn a_frame() {
    let payload: Vec<u8> = (0..12).collect();
    let frame = encode(&SessionRequest::Step(step()), &payload).unwrap();
    let mut layout = vec![("09000000", "9 bytes of header (u32, little-endian)")];
    layout.extend(STEP);
    layout.push(("000102030405 060708090a0b", "2 rows of 3 elements of 2 bytes, row by row, little-endian"));
    assert_layout(&frame, &layout);
    let payload: Vec<u8> = (0..16).collect();
    let frame = encode(&SessionRequest::Kv(piece()), &payload).unwrap();
    let mut layout = vec![("09000000", "9 bytes of header")];
    layout.extend(PIECE);
    layout.push(("00010203", "keys and values"));
    layout.push(("040506070809 0a0b0c0d0e0f", "2 rows of outputs behind them"));
    assert_layout(&frame, &layout);
    let bare = encode(&SessionRequest::Close, &[]).unwrap();
    assert_layout(&bare, &[("01000000", "1 byte of header"), ("03", "Close; no payload")]);
}
