use super::super::record::TraceRecord;
use super::super::testing::{hop, ms, route, step, token, two_tokens, word};
use super::*;

#[test]
fn percentiles_take_the_nearest_rank() {
    let of = |times: &[u64], count| {
        let Percentiles { p50, p95 } = Percentiles::of(times.iter().map(|time| ms(*time)).collect(), count);
        (p50, p95)
    };
    assert_eq!(of(&[], 0), (ms(0), ms(0)));
    assert_eq!(of(&[3], 0), (ms(3), ms(3)));
    assert_eq!(of(&[4, 1, 3, 2], 0), (ms(2), ms(4)));
    let hundred: Vec<u64> = (1..=100).collect();
    assert_eq!(of(&hundred, 100), (ms(50), ms(95)));
    // Steps that did not wait are steps.
    assert_eq!(of(&[9], 3), (ms(0), ms(9)));
    assert_eq!(of(&[9, 8, 7], 4), (ms(7), ms(9)));
}

#[test]
fn each_hop_has_its_times() {
    let summary = TraceSummary::of(&TraceLog::from_records(two_tokens()));
    let [one, two] = &summary.hops[..] else { panic!("{:?}", summary.hops) };
    assert_eq!((one.blocks, two.blocks), (BlockRange::new(0, 6).unwrap(), BlockRange::new(6, 12).unwrap()));
    assert_eq!((one.steps, one.compute.p50, one.compute.p95), (2, ms(4), ms(4)));
    assert_eq!((two.bytes.incoming, two.bytes.outgoing), (256, 136));
    assert_eq!((one.queue.p50, one.queue.p95), (ms(0), ms(2)));
    assert_eq!((two.transfer.p50, two.transfer.p95), (ms(6), ms(20)));
    assert_eq!((one.prefilled_rows, one.prefill), (4, ms(20)));
    assert_eq!((summary.first(), summary.took, summary.token.p50), (ms(90), ms(143), ms(53)));
    assert!((summary.tokens_per_second - 1000.0 / 53.0).abs() < 1e-9);
    assert!(summary.complete);
}

#[test]
fn each_token_names_what_it_waited_for() {
    let summary = TraceSummary::of(&TraceLog::from_records(two_tokens()));
    let slowest: Vec<_> = summary.tokens.iter().map(|token| token.slowest.unwrap()).collect();
    let stage = |hop, stage| Slowest::Stage(Place::Hop(hop), stage);
    assert_eq!(slowest, [(stage(0, Stage::Transfer), ms(30)), (stage(1, Stage::Transfer), ms(20))]);
    assert_eq!(summary.slowest.iter().map(|(_, tokens, _)| tokens).sum::<usize>(), 2);
}

#[test]
fn a_token_that_waited_for_a_replacement_says_so() {
    let one = hop(1, 0, 12);
    let records = [
        route(std::slice::from_ref(&one), 0),
        step((0, 1), 1, 1),
        word(&one, (0, 1), (0, 4), (7, 2)),
        token(1, 8, 1),
        TraceRecord::Reroute { lost: one.peer, reason: "gone".to_string(), at: ms(40), took: ms(30) },
        token(2, 60, 1),
    ];
    let summary = TraceSummary::of(&TraceLog::from_records(records));
    assert_eq!(summary.tokens[1].slowest, Some((Slowest::Reroute, ms(30))));
    assert_eq!(summary.tokens[0].slowest, Some((Slowest::Stage(Place::Hop(0), Stage::Compute), ms(4))));
}
