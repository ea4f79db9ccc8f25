//! Arbitrary messages within their bounds.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use swarm_protocol::announcement::{
    Announcement, DirectoryEntry, Load, MAX_ADDRESSES, MAX_NEIGHBOURS, MAX_SHARD_BITS, Rates, ServerState, Statement,
};
use swarm_protocol::block::{BlockRange, MAX_BLOCKS};
use swarm_protocol::model_id::{BlockDigest, ModelId, NumericClass};
use swarm_protocol::session::{SessionId, TokenCount};
use swarm_protocol::trace_context::TraceContext;
use swarm_protocol::wire::{
    ChooseToken, ChooseWith, ChosenToken, CloseReason, Connect, EdgesOffer, EdgesRefusal, EdgesReply, EdgesRequest,
    ElementType, HandOver, Incoming, InfoReply, InfoRequest, Input, Keep, KvHeader, Lane, LinkFormat, LinkFormats,
    MAX_NEXT_ADDRESSES, Next, Open, OpenEdges, Output, PageKey, PageScope, Recall, Refusal, RowEncoding, RowsHeader,
    ServerInfo, SessionReply, SessionRequest, Step, StepDone, StepError, StepOutput,
};
use swarm_protocol::{Keypair, Multiaddr, PeerId};

use crate::golden::keys;

/// Wide enough to be more than one row, narrow enough for thousands of cases.
const MAX_TEST_ROWS: u32 = 9;
const MAX_TEST_HIDDEN: u32 = 17;
const MAX_TEST_KV_BYTES: u32 = 100;

pub(crate) fn keypair() -> impl Strategy<Value = Keypair> {
    any::<u8>().prop_map(keys)
}

fn peer() -> impl Strategy<Value = PeerId> {
    keypair().prop_map(|keys| keys.public().to_peer_id())
}

fn address() -> impl Strategy<Value = Multiaddr> {
    (any::<[u8; 4]>(), any::<u16>(), any::<bool>()).prop_map(|([a, b, c, d], port, quic)| {
        let transport = if quic { format!("udp/{port}/quic-v1") } else { format!("tcp/{port}") };
        format!("/ip4/{a}.{b}.{c}.{d}/{transport}").parse().unwrap()
    })
}

fn model() -> impl Strategy<Value = ModelId> {
    any::<[u8; 32]>().prop_map(ModelId)
}

fn blocks() -> impl Strategy<Value = BlockRange> {
    (0..MAX_BLOCKS)
        .prop_flat_map(|start| (Just(start), start + 1..=MAX_BLOCKS))
        .prop_map(|(start, end)| BlockRange::new(start, end).unwrap())
}

fn class() -> impl Strategy<Value = NumericClass> {
    "[!-~]{1,64}".prop_map(|name| NumericClass::new(name).unwrap())
}

fn tokens() -> impl Strategy<Value = TokenCount> {
    any::<u32>().prop_map(TokenCount)
}

fn state() -> impl Strategy<Value = ServerState> {
    prop_oneof![Just(ServerState::Joining), Just(ServerState::Serving), Just(ServerState::Leaving)]
}

fn rates() -> impl Strategy<Value = Rates> {
    (any::<u32>(), any::<u32>())
        .prop_map(|(decode, prefill)| Rates { decode_us_per_block: decode, prefill_ns_per_token_block: prefill })
}

fn load() -> impl Strategy<Value = Load> {
    (any::<u32>(), any::<u32>(), tokens(), tokens()).prop_map(|(queue_us, sessions, free_tokens, total_tokens)| Load {
        queue_us,
        sessions,
        free_tokens,
        total_tokens,
    })
}

/// An announcement that `keys` may sign.
pub(crate) fn announcement_of(keys: &Keypair) -> impl Strategy<Value = Announcement> + use<> {
    let peer_id = keys.public().to_peer_id();
    let who = (any::<u64>(), any::<u64>(), state(), vec(address(), 0..=MAX_ADDRESSES));
    let what = (model(), blocks(), class(), rates(), load());
    let rest = (
        vec((peer(), any::<u32>()), 0..=MAX_NEIGHBOURS),
        any::<u32>(),
        option::of("[a-zäöü ]{0,20}"),
        "[0-9.]{0,12}",
        any::<bool>(),
    );
    (who, what, rest).prop_map(move |(who, what, rest)| {
        let (instance, sequence, state, addresses) = who;
        let (model, blocks, class, rates, load) = what;
        let (neighbours, ttl_seconds, name, version, edges) = rest;
        Announcement {
            peer: peer_id,
            instance,
            sequence,
            state,
            addresses,
            model,
            blocks,
            class,
            rates,
            load,
            neighbours,
            ttl_seconds,
            name,
            version,
            edges,
        }
    })
}

fn directory_of(keys: &Keypair) -> impl Strategy<Value = DirectoryEntry> + use<> {
    let peer = keys.public().to_peer_id();
    let parts = (any::<u64>(), model(), "[a-z/-]{0,40}", 1..=MAX_BLOCKS, 0..=MAX_SHARD_BITS, any::<u32>());
    parts.prop_map(move |(sequence, model, name, blocks, shard_bits, ttl_seconds)| DirectoryEntry {
        peer,
        sequence,
        model,
        name,
        blocks,
        shard_bits,
        ttl_seconds,
    })
}

/// A statement with the keys of its author.
pub(crate) fn statement() -> impl Strategy<Value = (Keypair, Statement)> {
    keypair().prop_flat_map(|keys| {
        let statement = prop_oneof![
            announcement_of(&keys).prop_map(Statement::Announcement),
            directory_of(&keys).prop_map(Statement::Directory),
        ];
        (Just(keys), statement)
    })
}

pub(crate) fn info_request() -> impl Strategy<Value = InfoRequest> {
    prop_oneof![Just(InfoRequest::Describe), any::<u64>().prop_map(|nonce| InfoRequest::Ping { nonce })]
}

fn digest() -> impl Strategy<Value = BlockDigest> {
    any::<[u8; 32]>().prop_map(BlockDigest)
}

fn edges_offer() -> impl Strategy<Value = EdgesOffer> {
    (class(), digest(), any::<u32>()).prop_map(|(class, digest, choose_us)| EdgesOffer { class, digest, choose_us })
}

fn choose_token() -> impl Strategy<Value = ChooseToken> {
    let how = (option::of(0.0..9.0f64), option::of(any::<u32>()), option::of(0.0..9.0f64), option::of(0.0..9.0f32));
    (rows(), how, any::<u64>(), any::<u64>(), 0..MAX_TEST_ROWS, any::<u32>()).prop_map(
        |(row, (temperature, top_k, top_p, repetition_penalty), seed, drawn, seen, top)| ChooseToken {
            row,
            temperature,
            top_k,
            top_p,
            repetition_penalty,
            seed,
            drawn,
            seen,
            top,
        },
    )
}

fn choose_with() -> impl Strategy<Value = ChooseWith> {
    let penalties = (-2.0..2.0f32, -2.0..2.0f32);
    (choose_token(), option::of(0.0..1.0f64), penalties, 0..MAX_TEST_ROWS).prop_map(
        |(choose, min_p, (presence_penalty, frequency_penalty), generated)| ChooseWith {
            choose,
            min_p,
            presence_penalty,
            frequency_penalty,
            generated,
        },
    )
}

pub(crate) fn edges_request() -> impl Strategy<Value = EdgesRequest> {
    let open = (model(), class(), digest()).prop_map(|(model, class, digest)| OpenEdges { model, class, digest });
    prop_oneof![
        open.prop_map(EdgesRequest::Open),
        vec(any::<u32>(), 0..20).prop_map(EdgesRequest::Embed),
        choose_token().prop_map(EdgesRequest::Choose),
        choose_with().prop_map(EdgesRequest::ChooseWith),
        option::of(trace_context()).prop_map(EdgesRequest::Trace),
    ]
}

pub(crate) fn edges_reply() -> impl Strategy<Value = EdgesReply> {
    let refusal = prop_oneof![
        Just(EdgesRefusal::Other),
        Just(EdgesRefusal::Leaving),
        ".{0,40}".prop_map(EdgesRefusal::BadRequest),
        ".{0,40}".prop_map(EdgesRefusal::Compute),
    ];
    let chosen = (any::<u32>(), -99.0..0.0f32, vec((any::<u32>(), -99.0..0.0f32), 0..20), rows())
        .prop_map(|(id, log_probability, top, embedding)| ChosenToken { id, log_probability, top, embedding });
    prop_oneof![
        Just(EdgesReply::Opened),
        rows().prop_map(EdgesReply::Embedded),
        chosen.prop_map(EdgesReply::Chosen),
        refusal.prop_map(EdgesReply::Refused),
    ]
}

fn server_info() -> impl Strategy<Value = ServerInfo> {
    let digests = vec(any::<[u8; 32]>().prop_map(BlockDigest), 0..20);
    (announcement_of(&keys(7)), digests, any::<u32>(), any::<u64>(), option::of(edges_offer())).prop_map(
        |(announcement, digests, max_positions, uptime_seconds, edges)| ServerInfo {
            announcement,
            digests,
            max_positions,
            uptime_seconds,
            edges,
        },
    )
}

pub(crate) fn info_reply() -> impl Strategy<Value = InfoReply> {
    prop_oneof![
        server_info().prop_map(|info| InfoReply::Server(Box::new(info))),
        ".{0,20}".prop_map(|version| InfoReply::Bootstrap { version }),
        any::<u64>().prop_map(|nonce| InfoReply::Pong { nonce }),
    ]
}

fn rows() -> impl Strategy<Value = RowsHeader> {
    let element = prop_oneof![
        Just(RowEncoding::F32),
        Just(RowEncoding::F16),
        Just(RowEncoding::Bf16),
        Just(RowEncoding::Int8),
        Just(RowEncoding::Packed { element: ElementType::F16, bytes: 1 }),
    ];
    // Packed rows of nothing do not exist.
    (1..MAX_TEST_ROWS, 1..MAX_TEST_HIDDEN, element).prop_map(|(rows, hidden, element)| RowsHeader {
        rows,
        hidden,
        element,
    })
}

fn session_id() -> impl Strategy<Value = SessionId> {
    any::<[u8; 16]>().prop_map(SessionId)
}

fn open() -> impl Strategy<Value = Open> {
    (session_id(), model(), class(), blocks(), tokens()).prop_map(|(session, model, class, blocks, tokens)| Open {
        session,
        model,
        class,
        blocks,
        tokens,
    })
}

fn step() -> impl Strategy<Value = Step> {
    (any::<u32>(), any::<u32>(), rows(), any::<u32>()).prop_map(|(epoch, position, rows, wanted_from)| Step {
        epoch,
        position,
        rows,
        wanted_from,
    })
}

fn input() -> impl Strategy<Value = Input> {
    prop_oneof![
        Just(Input::Owner),
        (peer(), any::<u32>()).prop_map(|(peer, link)| Input::Upstream { peer, link }),
        (peer(), any::<u32>()).prop_map(|(peer, link)| Input::Import { peer, link }),
    ]
}

fn next() -> impl Strategy<Value = Next> {
    (peer(), vec(address(), 0..=MAX_NEXT_ADDRESSES), session_id(), any::<u32>())
        .prop_map(|(peer, addresses, session, max_rows)| Next { peer, addresses, session, max_rows })
}

fn connect() -> impl Strategy<Value = Connect> {
    let lane = prop_oneof![Just(Lane::Main), Just(Lane::Mirror)];
    let output =
        prop_oneof![Just(Output::Nobody), Just(Output::Owner), Just(Output::Relay), next().prop_map(Output::Next)];
    (lane, any::<u32>(), output, any::<u32>()).prop_map(|(lane, link, output, position)| Connect {
        lane,
        link,
        output,
        position,
    })
}

fn incoming() -> impl Strategy<Value = Incoming> {
    (session_id(), any::<u32>()).prop_map(|(session, link)| Incoming { session, link })
}

fn piece() -> impl Strategy<Value = KvHeader> {
    (any::<u32>(), any::<u32>(), any::<u32>(), 0..MAX_TEST_KV_BYTES, rows()).prop_map(
        |(epoch, position, positions, kv_bytes, outputs)| KvHeader { epoch, position, positions, kv_bytes, outputs },
    )
}

fn link_format() -> impl Strategy<Value = LinkFormat> {
    prop_oneof![Just(LinkFormat::Exact), Just(LinkFormat::Int8), Just(LinkFormat::Packed)]
}

fn page_scope() -> impl Strategy<Value = PageScope> {
    prop_oneof![Just(PageScope::Owner), Just(PageScope::Shared)]
}

fn page_keys() -> impl Strategy<Value = Vec<PageKey>> {
    vec(any::<[u8; 32]>().prop_map(PageKey), 0..=3)
}

fn trace_context() -> impl Strategy<Value = TraceContext> {
    let ids = (any::<[u8; 16]>(), any::<[u8; 8]>(), any::<u8>());
    ids.prop_filter_map("ids of zeros", |(trace, span, flags)| TraceContext::new(trace, span, flags))
}

pub(crate) fn session_request() -> impl Strategy<Value = SessionRequest> {
    prop_oneof![
        open().prop_map(SessionRequest::Open),
        step().prop_map(SessionRequest::Step),
        any::<u64>().prop_map(|nonce| SessionRequest::Ping { nonce }),
        Just(SessionRequest::Close),
        input().prop_map(SessionRequest::Accept),
        connect().prop_map(SessionRequest::Connect),
        (any::<u32>(), next()).prop_map(|(link, to)| SessionRequest::HandOver(HandOver { link, to })),
        incoming().prop_map(SessionRequest::Feed),
        incoming().prop_map(SessionRequest::Import),
        piece().prop_map(SessionRequest::Kv),
        rows().prop_map(SessionRequest::Warm),
        (any::<u32>(), page_scope(), page_keys())
            .prop_map(|(epoch, scope, keys)| { SessionRequest::Recall(Recall { epoch, scope, keys }) }),
        (any::<u32>(), page_scope(), any::<u32>(), page_keys())
            .prop_map(|(epoch, scope, first, keys)| { SessionRequest::Keep(Keep { epoch, scope, first, keys }) }),
        (link_format(), link_format()).prop_map(|(input, output)| SessionRequest::Links(LinkFormats { input, output })),
        option::of(trace_context()).prop_map(SessionRequest::Trace),
    ]
}

fn refusal() -> impl Strategy<Value = Refusal> {
    prop_oneof![
        model().prop_map(|serves| Refusal::WrongModel { serves }),
        class().prop_map(|serves| Refusal::WrongClass { serves }),
        blocks().prop_map(|hosted| Refusal::NotHosted { hosted }),
        (tokens(), any::<u64>()).prop_map(|(free, retry_after_ms)| Refusal::NoRoom { free, retry_after_ms }),
        tokens().prop_map(|most| Refusal::TooLong { most }),
        any::<u64>().prop_map(|retry_after_ms| Refusal::TooManySessions { retry_after_ms }),
        Just(Refusal::Leaving),
        ".{0,40}".prop_map(Refusal::BadRequest),
        Just(Refusal::NotExpected),
    ]
}

fn step_error() -> impl Strategy<Value = StepError> {
    prop_oneof![
        any::<u32>().prop_map(|have| StepError::Gap { have }),
        tokens().prop_map(|reserved| StepError::PastReservation { reserved }),
        ".{0,40}".prop_map(StepError::BadRows),
        ".{0,40}".prop_map(StepError::Compute),
    ]
}

fn step_output() -> impl Strategy<Value = StepOutput> {
    (any::<u32>(), any::<u32>(), any::<u32>(), rows()).prop_map(|(link, epoch, position, rows)| StepOutput {
        link,
        epoch,
        position,
        rows,
    })
}

fn step_done() -> impl Strategy<Value = StepDone> {
    any::<[u32; 5]>().prop_map(|[epoch, position, rows, queue_us, compute_us]| StepDone {
        epoch,
        position,
        rows,
        queue_us,
        compute_us,
    })
}

pub(crate) fn session_reply() -> impl Strategy<Value = SessionReply> {
    let closed =
        prop_oneof![Just(CloseReason::Idle), Just(CloseReason::Left), ".{0,40}".prop_map(CloseReason::Protocol),];
    let opened = (any::<u32>(), any::<u32>(), any::<u64>()).prop_map(|(max_step_rows, max_steps, idle_timeout_ms)| {
        SessionReply::Opened { max_step_rows, max_steps, idle_timeout_ms }
    });
    let failed = (any::<u32>(), any::<u32>(), step_error()).prop_map(|(epoch, position, error)| SessionReply::Failed {
        epoch,
        position,
        error,
    });
    prop_oneof![
        opened,
        refusal().prop_map(SessionReply::Refused),
        step_output().prop_map(SessionReply::Output),
        failed,
        any::<u64>().prop_map(|nonce| SessionReply::Pong { nonce }),
        any::<u64>().prop_map(|within_ms| SessionReply::Leaving { within_ms }),
        closed.prop_map(SessionReply::Closed),
        step_done().prop_map(SessionReply::Done),
        (any::<u32>(), ".{0,40}").prop_map(|(link, reason)| SessionReply::Unlinked { link, reason }),
        Just(SessionReply::Expected),
        Just(SessionReply::Agreed),
        any::<u32>().prop_map(|position| SessionReply::Received { position }),
        any::<u32>().prop_map(|link| SessionReply::Linked { link }),
        any::<u32>().prop_map(|position| SessionReply::Recalled { position }),
        (any::<u32>(), option::of(".{0,40}")).prop_map(|(link, failure)| SessionReply::HandedOver { link, failure }),
    ]
}
