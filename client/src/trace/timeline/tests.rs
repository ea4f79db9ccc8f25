use proptest::prelude::*;

use super::super::log::TraceLog;
use super::super::testing::{hop, ms, output, route, step, token, two_tokens, word};
use super::*;

fn log(records: Vec<TraceRecord>) -> TraceLog {
    TraceLog::from_records(records)
}

/// `(start, end)` in milliseconds of each span of that stage, and of which token.
fn spans(log: &TraceLog, place: Place, stage: Stage) -> Vec<(u64, u64, u32)> {
    let of = |span: &&Span| (span.place, span.stage) == (place, stage);
    let times = |span: &Span| (span.start.as_millis() as u64, span.end.as_millis() as u64, span.token);
    log.spans.iter().filter(of).map(times).collect()
}

/// Spans of one row follow one another, and none ends before it begins.
fn assert_rows_are_drawable(log: &TraceLog) {
    for hop in (0..log.hops.len()).map(Place::Hop).chain([Place::Client]) {
        for stage in Stage::ALL {
            let row: Vec<&Span> = log.spans.iter().filter(|s| (s.place, s.stage) == (hop, stage)).collect();
            assert!(row.iter().all(|span| span.start <= span.end), "{row:?}");
            assert!(row.windows(2).all(|pair| pair[0].end <= pair[1].start), "{hop:?} {stage:?}: {row:?}");
        }
    }
}

#[test]
fn a_hops_word_tells_when_it_worked() {
    let log = log(two_tokens());
    let (one, two) = (Place::Hop(0), Place::Hop(1));
    assert_eq!(spans(&log, one, Stage::Compute), [(12, 32, 1), (32, 36, 1), (103, 107, 2)]);
    assert_eq!(spans(&log, two, Stage::Compute), [(53, 73, 1), (73, 77, 1), (127, 131, 2)]);
    assert_eq!(spans(&log, one, Stage::Queue), [(101, 103, 2)]);
    assert_eq!(spans(&log, two, Stage::Queue), [(52, 53, 1), (58, 73, 1)]);
    assert_eq!(spans(&log, one, Stage::Transfer), [(2, 12, 1), (12, 32, 1), (91, 101, 2)]);
    assert_eq!(spans(&log, two, Stage::Transfer), [(32, 52, 1), (52, 58, 1), (107, 127, 2)]);
    assert_eq!(spans(&log, one, Stage::Wait), [(36, 101, 2)]);
    assert_eq!(spans(&log, two, Stage::Wait), [(77, 127, 2)]);
    let client = Place::Client;
    assert_eq!(spans(&log, client, Stage::Embedding), [(0, 2, 1), (2, 3, 1), (90, 91, 2)]);
    assert_eq!(spans(&log, client, Stage::Return), [(77, 87, 1), (131, 141, 2)]);
    assert_eq!(spans(&log, client, Stage::Sampling), [(87, 90, 1), (141, 143, 2)]);
    assert_eq!(
        log.tokens.iter().map(|token| (token.number, token.id, token.end)).collect::<Vec<_>>(),
        [(1, 7, ms(90)), (2, 8, ms(143))]
    );
    assert_rows_are_drawable(&log);
}

#[test]
fn a_word_may_come_out_of_turn_and_after_the_token() {
    let (one, two) = (hop(1, 0, 6), hop(2, 6, 12));
    let log = log(vec![
        route(&[one.clone(), two.clone()], 0),
        step((0, 1), 1, 0),
        output(0, 30),
        word(&two, (0, 1), (0, 5), (31, 10)),
        token(7, 32, 0),
        step((1, 1), 33, 0),
        // The first hop is far away from the client, and near the second.
        word(&one, (0, 1), (0, 5), (60, 90)),
        word(&two, (1, 1), (0, 5), (62, 10)),
        output(1, 61),
        token(8, 62, 0),
        word(&one, (1, 1), (0, 5), (92, 90)),
    ]);
    assert_eq!(spans(&log, Place::Hop(0), Stage::Compute), [(10, 15, 1), (42, 47, 2)]);
    assert_eq!(spans(&log, Place::Hop(1), Stage::Transfer), [(15, 21, 1), (47, 52, 2)]);
    assert_eq!(spans(&log, Place::Client, Stage::Return), [(26, 30, 1), (57, 61, 2)]);
    assert_rows_are_drawable(&log);
}

#[test]
fn a_late_word_takes_no_time_from_the_hops_behind() {
    let (one, two) = (hop(1, 0, 6), hop(2, 6, 12));
    let log = log(vec![
        route(&[one.clone(), two.clone()], 0),
        step((0, 1), 1, 0),
        word(&two, (0, 1), (0, 4), (12, 0)),
        output(0, 13),
        word(&one, (0, 1), (0, 3), (40, 0)),
        token(7, 41, 0),
    ]);
    assert_eq!(spans(&log, Place::Hop(0), Stage::Compute), [(5, 8, 1)]);
    assert_eq!(spans(&log, Place::Hop(1), Stage::Compute), [(8, 12, 1)]);
    assert_rows_are_drawable(&log);
}

#[test]
fn a_replay_is_told_without_a_way_that_nobody_saw() {
    let (one, two, spare) = (hop(1, 0, 6), hop(2, 6, 12), hop(3, 6, 12));
    let mut records = two_tokens();
    records.extend([
        step((6, 1), 144, 1),
        word(&one, (6, 1), (0, 4), (168, 20)),
        TraceRecord::Reroute { lost: two.peer, reason: "gone".to_string(), at: ms(200), took: ms(30) },
        route(&[one, spare.clone()], 200),
        word(&spare, (0, 6), (0, 24), (245, 20)),
        word(&spare, (6, 1), (0, 4), (250, 20)),
        output(6, 250),
        token(9, 251, 1),
    ]);
    let log = log(records);
    assert_eq!(log.hops.len(), 3);
    assert_eq!((log.reroutes[0].reason.as_str(), log.reroutes[0].took), ("gone", ms(30)));
    assert_eq!(spans(&log, Place::Hop(0), Stage::Compute).last(), Some(&(154, 158, 3)));
    assert_eq!(spans(&log, Place::Hop(2), Stage::Compute), [(211, 235, 3), (236, 240, 3)]);
    assert_eq!(spans(&log, Place::Hop(2), Stage::Transfer), []);
    assert_eq!(spans(&log, Place::Client, Stage::Return).last(), Some(&(240, 250, 3)));
    assert_rows_are_drawable(&log);
}

#[test]
fn what_is_on_its_way_is_bounded() {
    let mut timeline = Timeline::default();
    timeline.push(route(&[hop(1, 0, 6)], 0));
    for position in 0..10_000 {
        timeline.push(step((position, 1), 1, 0));
        assert!(timeline.open.len() <= MOST_OPEN);
    }
}

fn records() -> impl Strategy<Value = TraceRecord> {
    let time = || 0..200u64;
    let at = || (0..6u32, 0..3u32);
    prop_oneof![
        (at(), time(), time()).prop_map(|(at, sent, embedding)| step(at, sent, embedding)),
        (1..4u8, at(), (time(), time()), (time(), time())).prop_map(|(name, at, worked, heard)| word(
            &hop(name, 0, 6),
            at,
            worked,
            heard
        )),
        (0..6u32, time()).prop_map(|(position, at)| output(position, at)),
        (time(), time()).prop_map(|(at, sampling)| token(1, at, sampling)),
        time().prop_map(|at| route(&[hop(1, 0, 6), hop(2, 6, 12)], at)),
    ]
}

proptest! {
    #[test]
    fn whatever_is_seen_can_be_drawn(records in proptest::collection::vec(records(), 0..60)) {
        assert_rows_are_drawable(&log(records));
    }
}
