mod shadows;

use super::*;

/// Rows that are numbers, as good as any.
type Numbers = Vec<u64>;

/// An order, without what does not matter: the link, the lane, from whom, to whom (none: the client), whether through the
/// client, and from which position; or who is fed which positions, and from where on outputs are wanted.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Join(u32, Lane, u64, Option<u64>, bool, u32),
    Feed(u64, std::ops::Range<u32>, u32),
}

use Asked::{Feed, Join};
use Lane::{Main, Mirror};

const CONFIG: ChainConfig = ChainConfig { chunk: TokenCount(4), least: TokenCount(4), window: 1 };

fn range(start: u32, end: u32) -> BlockRange {
    BlockRange::new(start, end).unwrap()
}

fn chain(cuts: &[u32], config: ChainConfig) -> Chain<Numbers> {
    let hops: Vec<BlockRange> = cuts.windows(2).map(|pair| range(pair[0], pair[1])).collect();
    Chain::of_tokens(range(cuts[0], cuts[cuts.len() - 1]), &hops, config).unwrap()
}

/// Everything that is to be done now.
fn orders(chain: &mut Chain<Numbers>) -> Vec<Asked> {
    let asked = std::iter::from_fn(|| chain.next_order()).map(|order| match order {
        Order::Join { link, lane, from, to: Target::Owner, position } => {
            Join(link, lane, from.0, None, false, position.0)
        }
        Order::Join { link, lane, from, to: Target::Hop { id, relayed }, position } => {
            Join(link, lane, from.0, Some(id.0), relayed, position.0)
        }
        Order::Feed(work) => Feed(work.hop.0, work.from.0..work.from.0 + work.rows.0, work.wanted_from.0),
    });
    asked.collect()
}

fn done(chain: &mut Chain<Numbers>, hop: u64, positions: std::ops::Range<u32>) -> Result<Came<Numbers>, ChainError> {
    let (epoch, position, rows) = (chain.epoch(), positions.start, positions.end - positions.start);
    chain.done(HopId(hop), &StepDone { epoch, position, rows, queue_us: 0, compute_us: 0 })
}

/// Rows whose numbers are their positions.
fn output(
    chain: &mut Chain<Numbers>,
    hop: u64,
    link: u32,
    positions: std::ops::Range<u32>,
) -> Result<Came<Numbers>, ChainError> {
    let rows = swarm_protocol::wire::RowsHeader {
        rows: positions.end - positions.start,
        hidden: 1,
        element: swarm_protocol::wire::RowEncoding::F32,
    };
    let output = StepOutput { link, epoch: chain.epoch(), position: positions.start, rows };
    chain.output(HopId(hop), &output, positions.map(u64::from).collect())
}

fn came(positions: std::ops::Range<u32>) -> Result<Came<Numbers>, ChainError> {
    Ok(Came::Output { from: TokenCount(positions.start), rows: positions.map(u64::from).collect() })
}

/// A chain of hops 1, 2, ... that has computed six positions and handed out the newest output; link n leads from hop n on.
fn settled(cuts: &[u32]) -> Chain<Numbers> {
    let mut chain = chain(cuts, ChainConfig { chunk: TokenCount(8), least: TokenCount(8), window: 1 });
    chain.extend_tokens(TokenCount(6), Outputs::Last).unwrap();
    orders(&mut chain);
    let last = cuts.len() as u64 - 1;
    for hop in 1..=last {
        done(&mut chain, hop, 0..6).unwrap();
    }
    assert_eq!(output(&mut chain, last, last as u32, 5..6), came(5..6));
    assert!(chain.is_settled() && orders(&mut chain).is_empty());
    chain
}

/// Hop 2 is lost, and replaced by one over the same blocks.
fn replace(chain: &mut Chain<Numbers>, hop: u64, blocks: &[BlockRange]) -> Vec<u64> {
    assert!(chain.fail(HopId(hop)) && !chain.fail(HopId(hop)));
    let span = chain.lost().remove(0);
    assert!(orders(chain).is_empty(), "nobody is told anything of a hop that is not there");
    chain.replace(&span, blocks).unwrap().into_iter().map(|hop| hop.0).collect()
}

#[test]
fn hops_are_joined_once_and_the_first_one_is_fed_in_chunks() {
    let mut chain = chain(&[0, 3, 6], CONFIG);
    chain.extend_tokens(TokenCount(6), Outputs::Last).unwrap();
    let first = [Join(1, Main, 1, Some(2), false, 0), Join(2, Main, 2, None, false, 5), Feed(1, 0..4, 5)];
    assert_eq!(orders(&mut chain), first);
    assert_eq!((chain.unanswered_rows(HopId(1)), chain.waited_for()), (4, Some(HopId(1))));
    done(&mut chain, 1, 0..4).unwrap();
    assert_eq!(orders(&mut chain), [Feed(1, 4..6, 5)]);
    done(&mut chain, 1, 4..6).unwrap();
    assert_eq!(chain.waited_for(), Some(HopId(2)));
    done(&mut chain, 2, 0..6).unwrap();
    assert!(!chain.is_settled());
    assert_eq!(output(&mut chain, 2, 2, 5..6), came(5..6));
    assert!(chain.is_settled());
    assert_eq!((chain.kept_rows(), chain.waited_for()), (0, None), "token ids cost nothing");
}

#[test]
fn the_next_chunk_is_there_before_the_first_is_computed() {
    let mut chain = chain(&[0, 3], ChainConfig { window: 2, ..CONFIG });
    chain.narrow(TokenCount(3), 5);
    chain.extend_tokens(TokenCount(12), Outputs::All).unwrap();
    let first = [Join(1, Main, 1, None, false, 0), Feed(1, 0..3, 0), Feed(1, 3..6, 0)];
    assert_eq!(orders(&mut chain), first);
    done(&mut chain, 1, 0..3).unwrap();
    assert_eq!(orders(&mut chain), [Feed(1, 6..9, 0)]);
    assert_eq!(output(&mut chain, 1, 1, 0..6), came(0..6));
    assert_eq!(output(&mut chain, 1, 1, 2..8), came(6..8), "each output once");
}

#[test]
fn a_long_input_begins_and_ends_with_small_chunks_if_there_are_several_hops() {
    let config = ChainConfig { chunk: TokenCount(8), least: TokenCount(2), window: 9 };
    let cuts = |cuts: &[u32], rows| {
        let mut chain = chain(cuts, config);
        chain.extend_tokens(TokenCount(rows), Outputs::Last).unwrap();
        let fed = orders(&mut chain).into_iter().filter_map(|order| match order {
            Feed(_, positions, _) => Some(positions.end - positions.start),
            Join(..) => None,
        });
        fed.collect::<Vec<u32>>()
    };
    assert_eq!(cuts(&[0, 2, 4], 32), [2, 2, 4, 8, 8, 4, 2, 2]);
    assert_eq!(cuts(&[0, 2, 4], 3), [2, 1]);
    assert_eq!(cuts(&[0, 4], 20), [8, 8, 4], "a single hop has nobody to wait for");
}

#[test]
fn a_new_hop_is_fed_by_the_one_before_from_the_beginning() {
    let mut chain = settled(&[0, 2, 4, 6]);
    assert_eq!(replace(&mut chain, 2, &[range(2, 4)]), [4]);
    let joins = [Join(4, Main, 1, Some(4), false, 0), Join(5, Main, 4, Some(3), false, 6)];
    assert_eq!(orders(&mut chain), joins, "hop 3 lacks nothing");
    assert_eq!(chain.held_by(HopId(2)), None);
}

#[test]
fn hops_that_have_computed_a_beginning_before_are_fed_from_there() {
    let mut chain = chain(&[0, 2, 4, 6], CONFIG);
    chain.extend_tokens(TokenCount(8), Outputs::None).unwrap();
    // The second has forgotten it, the third says more than there is.
    chain.recalled(HopId(1), TokenCount(8), chain.epoch());
    chain.recalled(HopId(3), TokenCount(12), chain.epoch());
    assert_eq!(
        orders(&mut chain),
        [Join(1, Main, 1, Some(2), false, 0), Join(2, Main, 2, Some(3), false, 8), Join(3, Main, 3, None, false, 8),]
    );
    chain.extend_tokens(TokenCount(1), Outputs::Last).unwrap();
    assert_eq!(orders(&mut chain), [Feed(1, 8..9, 8)]);
    assert_eq!(chain.waited_for(), Some(HopId(1)));
    done(&mut chain, 2, 0..8).unwrap();
    done(&mut chain, 1, 8..9).unwrap();
    done(&mut chain, 2, 8..9).unwrap();
    done(&mut chain, 3, 8..9).unwrap();
    // A replacement that knows a part is sent the rest; one at work has its own word for what it holds.
    assert_eq!(replace(&mut chain, 2, &[range(2, 4)]), [4]);
    chain.recalled(HopId(4), TokenCount(4), chain.epoch());
    chain.recalled(HopId(1), TokenCount(4), chain.epoch());
    assert_eq!(orders(&mut chain), [Join(4, Main, 1, Some(4), false, 4), Join(5, Main, 4, Some(3), false, 9)]);
    assert_eq!([1, 3, 4].map(|hop| chain.held_by(HopId(hop))), [9, 9, 4].map(|held| Some(TokenCount(held))));
}

#[test]
fn a_new_first_hop_is_fed_by_the_client() {
    let mut chain = settled(&[0, 2, 4]);
    assert_eq!(replace(&mut chain, 1, &[range(0, 2)]), [3]);
    assert_eq!(orders(&mut chain), [Join(3, Main, 3, Some(2), false, 6), Feed(3, 0..6, 5)]);
}

#[test]
fn neighbours_are_one_span_and_may_become_several_hops() {
    let mut chain = settled(&[0, 2, 4, 6, 8]);
    assert!(chain.fail(HopId(2)) && chain.fail(HopId(3)));
    let span = chain.lost().remove(0);
    assert_eq!(span, LostSpan { range: range(2, 6), hops: vec![HopId(2), HopId(3)] });
    assert!(matches!(chain.replace(&span, &[range(2, 5)]), Err(StaleSpan::BadHops(_))));
    chain.replace(&span, &[range(2, 3), range(3, 5), range(5, 6)]).unwrap();
    assert_eq!(chain.replace(&span, &[range(2, 6)]), Err(StaleSpan::NotLost(range(2, 6))));
    let joins = [
        Join(5, Main, 1, Some(5), false, 0),
        Join(6, Main, 5, Some(6), false, 0),
        Join(7, Main, 6, Some(7), false, 0),
        Join(8, Main, 7, Some(4), false, 6),
    ];
    assert_eq!(orders(&mut chain), joins);
}

#[test]
fn a_span_whose_neighbour_died_meanwhile_is_still_replaced() {
    let mut chain = settled(&[0, 2, 4, 6]);
    chain.fail(HopId(2));
    let span = chain.lost().remove(0);
    chain.fail(HopId(3));
    chain.replace(&span, &[range(2, 4)]).unwrap();
    assert_eq!(chain.lost(), [LostSpan { range: range(4, 6), hops: vec![HopId(3)] }]);
}

#[test]
fn a_new_last_hop_sends_only_what_has_not_come() {
    for answered in [0, 2] {
        let mut chain = settled(&[0, 2, 4]);
        chain.extend_tokens(TokenCount(3), Outputs::All).unwrap();
        assert_eq!(orders(&mut chain), [Feed(1, 6..9, 6)]);
        if answered > 0 {
            assert_eq!(output(&mut chain, 2, 2, 6..8), came(6..8));
        }
        assert_eq!(replace(&mut chain, 2, &[range(2, 4)]), [3]);
        let joins = [Join(3, Main, 1, Some(3), false, 0), Join(4, Main, 3, None, false, 6 + answered)];
        assert_eq!(orders(&mut chain), joins);
        assert_eq!(output(&mut chain, 2, 2, 8..9), Ok(Came::Stale), "its hop is gone");
        assert_eq!(output(&mut chain, 3, 4, 6..9), came(6 + answered..9));
        assert!(chain.is_settled());
    }
}

#[test]
fn a_way_that_broke_twice_leads_through_the_client_and_four_times_is_enough() {
    let mut chain = settled(&[0, 2, 4]);
    assert_eq!(chain.unlinked(HopId(1), 9), Unlinked::Stale);
    assert_eq!(chain.unlinked(HopId(1), 1), Unlinked::Again);
    assert_eq!(chain.unlinked(HopId(1), 1), Unlinked::Stale, "that one is gone already");
    assert_eq!(orders(&mut chain), [Join(3, Main, 1, Some(2), false, 6)]);
    assert_eq!(chain.unlinked(HopId(1), 3), Unlinked::Again);
    assert_eq!(orders(&mut chain), [Join(4, Main, 1, Some(2), true, 6)]);
    chain.extend_tokens(TokenCount(1), Outputs::Last).unwrap();
    assert_eq!(orders(&mut chain), [Feed(1, 6..7, 6)]);
    assert_eq!(output(&mut chain, 1, 4, 6..7), Ok(Came::Advanced));
    let Some(Order::Feed(work)) = chain.next_order() else { panic!("it is handed on") };
    assert_eq!((work.hop, work.from, work.input), (HopId(2), TokenCount(6), Input::Rows(vec![6])));
    assert_eq!(output(&mut chain, 1, 3, 6..7), Ok(Came::Stale), "a former link");
    assert_eq!(chain.unlinked(HopId(1), 4), Unlinked::Again);
    assert_eq!(orders(&mut chain), [Join(5, Main, 1, Some(2), true, 6)]);
    assert_eq!(chain.unlinked(HopId(1), 5), Unlinked::GiveUp(HopId(1)));
    assert_eq!(chain.unlinked(HopId(2), 2), Unlinked::GiveUp(HopId(2)), "there is no other way to the client");
}

#[test]
fn rows_that_arrive_make_up_for_a_broken_way_but_one_through_the_client_stays() {
    let mut chain = settled(&[0, 2, 4]);
    for link in [1, 3] {
        assert_eq!(chain.unlinked(HopId(1), link), Unlinked::Again);
        assert_eq!(orders(&mut chain), [Join(link.max(2) + 1, Main, 1, Some(2), false, 6)]);
        done(&mut chain, 2, 5..6).unwrap();
    }
    assert_eq!(chain.unlinked(HopId(1), 4), Unlinked::Again);
    orders(&mut chain);
    assert_eq!(chain.unlinked(HopId(1), 5), Unlinked::Again);
    assert_eq!(orders(&mut chain), [Join(6, Main, 1, Some(2), true, 6)]);
    done(&mut chain, 2, 5..6).unwrap();
    chain.truncate(TokenCount(4));
    assert_eq!(orders(&mut chain), [], "a truncation mends no connection");
    assert_eq!(chain.unlinked(HopId(1), 6), Unlinked::Again);
    assert_eq!(orders(&mut chain), [Join(7, Main, 1, Some(2), true, 4)]);
}

/// Hops 1, 2 and 3, of which the first sends its output through the client, as link 5.
fn relayed() -> Chain<Numbers> {
    let mut chain = settled(&[0, 2, 4, 6]);
    for link in [1, 4] {
        assert_eq!(chain.unlinked(HopId(1), link), Unlinked::Again);
        orders(&mut chain);
    }
    assert_eq!(chain.detour_of(HopId(1)), Some(HopId(2)));
    chain
}

#[test]
fn rows_are_handed_on_as_far_as_the_next_hop_takes_them() {
    let mut chain = relayed();
    chain.extend_tokens(TokenCount(6), Outputs::Last).unwrap();
    assert_eq!(orders(&mut chain), [Feed(1, 6..12, 11)]);
    assert_eq!(output(&mut chain, 1, 5, 6..8), Ok(Came::Advanced));
    assert_eq!(output(&mut chain, 1, 5, 8..11), Ok(Came::Advanced));
    assert_eq!(output(&mut chain, 1, 5, 10..12), Ok(Came::Advanced), "it has computed position 10 anew");
    assert_eq!(orders(&mut chain), [Feed(2, 6..8, 11)]);
    assert_eq!(chain.unanswered_rows(HopId(2)), 2);
    done(&mut chain, 2, 6..8).unwrap();
    assert_eq!(orders(&mut chain), [Feed(2, 8..10, 11)]);
    done(&mut chain, 2, 8..10).unwrap();
    assert_eq!(orders(&mut chain), [Feed(2, 10..12, 11)]);
    let wrong = Err(ChainError::WrongRows { hop: HopId(1) });
    assert_eq!(output(&mut chain.clone(), 1, 5, 13..14), wrong, "positions that there are not");
    chain.extend_tokens(TokenCount(2), Outputs::Last).unwrap();
    assert_eq!(output(&mut chain, 1, 5, 13..14), Ok(Came::Skipped), "12 has not come");
    assert_eq!(orders(&mut chain), [Join(6, Main, 1, Some(2), true, 10)]);
}

#[test]
fn what_waits_to_be_handed_on_is_void_after_a_truncation() {
    let mut chain = relayed();
    chain.extend_tokens(TokenCount(2), Outputs::Last).unwrap();
    orders(&mut chain);
    output(&mut chain, 1, 5, 6..8).unwrap();
    chain.truncate(TokenCount(7));
    assert_eq!(orders(&mut chain), [Feed(1, 6..7, 7)], "and so is all that was computed of it");
    output(&mut chain, 1, 5, 6..7).unwrap();
    assert_eq!(orders(&mut chain), [Feed(2, 6..7, 7)]);
}

/// Hop 1 has computed one position more, and hop 2 has not.
fn swallowed(chain: &mut Chain<Numbers>) {
    chain.extend_tokens(TokenCount(1), Outputs::Last).unwrap();
    orders(chain);
    done(chain, 1, 6..7).unwrap();
    assert_eq!(chain.waited_for(), Some(HopId(2)));
}

#[test]
fn a_hop_that_gets_on_with_nothing_is_fed_through_the_client_before_anybody_is_blamed() {
    let mut chain = settled(&[0, 2, 4]);
    swallowed(&mut chain);
    assert_eq!(chain.late(HopId(1)), Late::Stale, "nobody waits for it");
    assert_eq!(chain.late(HopId(2)), Late::Detour);
    assert_eq!(orders(&mut chain), [Join(3, Main, 1, Some(2), true, 6)]);
    let mut swallows = chain.clone();
    assert_eq!(swallows.late(HopId(2)), Late::GiveUp(HopId(1)), "it sends nothing to the client either");
    assert_eq!((chain.awaited_rows(HopId(1)), chain.awaited_rows(HopId(2))), (0, 1));
    output(&mut chain, 1, 3, 6..7).unwrap();
    assert_eq!(orders(&mut chain), [Feed(2, 6..7, 6)]);
    let mut gets_on = chain.clone();
    assert_eq!(chain.late(HopId(2)), Late::GiveUp(HopId(2)), "it has got it");
    chain.fell_back(HopId(2), TokenCount(6));
    assert_eq!(chain.late(HopId(2)), Late::GiveUp(HopId(2)), "whatever it says");
    done(&mut gets_on, 2, 6..7).unwrap();
    assert_eq!(gets_on.late(HopId(2)), Late::GiveUp(HopId(2)), "it owes its output");
    assert_eq!(output(&mut gets_on, 2, 2, 6..7), came(6..7));
    assert!(gets_on.is_settled());
}

#[test]
fn who_is_fed_by_the_client_has_nobody_else_to_blame() {
    let mut chain = settled(&[0, 2, 4]);
    chain.extend_tokens(TokenCount(1), Outputs::Last).unwrap();
    orders(&mut chain);
    assert_eq!(chain.late(HopId(1)), Late::GiveUp(HopId(1)));
}

#[test]
fn what_was_handed_on_for_one_that_is_gone_is_nothing_against_the_next_hop() {
    let mut chain = relayed();
    swallowed(&mut chain);
    output(&mut chain, 1, 5, 6..7).unwrap();
    assert_eq!(orders(&mut chain), [Feed(2, 6..7, 6)]);
    replace(&mut chain, 1, &[range(0, 2)]);
    orders(&mut chain);
    done(&mut chain, 4, 0..7).unwrap();
    assert_eq!(chain.late(HopId(2)), Late::Detour, "the new one may have passed nothing on");
}

#[test]
fn who_is_known_not_to_reach_the_next_hop_does_not_try() {
    let mut chain = chain(&[0, 2, 4], CONFIG);
    chain.take_detour(HopId(1), HopId(7));
    chain.take_detour(HopId(1), HopId(2));
    assert_eq!(orders(&mut chain)[0], Join(1, Main, 1, Some(2), true, 0));
    chain.take_detour(HopId(1), HopId(2));
    assert_eq!(orders(&mut chain), [], "it takes it already");
}

#[test]
fn what_is_said_of_an_earlier_epoch_is_void() {
    let mut chain = settled(&[0, 2, 4]);
    chain.extend_tokens(TokenCount(2), Outputs::All).unwrap();
    orders(&mut chain);
    chain.truncate(TokenCount(7));
    let old = StepDone { epoch: 0, position: 6, rows: 2, queue_us: 0, compute_us: 0 };
    assert_eq!(chain.done(HopId(1), &old), Ok(Came::Stale));
    assert_eq!(chain.done(HopId(2), &old), Ok(Came::Stale));
    let rows = swarm_protocol::wire::RowsHeader { rows: 1, hidden: 1, element: swarm_protocol::wire::RowEncoding::F32 };
    let late = StepOutput { link: 2, epoch: 0, position: 6, rows };
    assert_eq!(chain.output(HopId(2), &late, vec![6]), Ok(Came::Stale));
    assert_eq!(orders(&mut chain), [Feed(1, 6..7, 6)], "what was under way is sent again");
    assert_eq!(output(&mut chain, 2, 2, 6..7), came(6..7));
    assert!(chain.is_settled());
}

#[test]
fn after_a_truncation_all_is_sent_that_some_hop_is_not_known_to_hold() {
    let mut chain = settled(&[0, 2, 4]);
    chain.extend_tokens(TokenCount(4), Outputs::All).unwrap();
    orders(&mut chain);
    done(&mut chain, 1, 6..10).unwrap();
    chain.truncate(TokenCount(9));
    assert_eq!(chain.position(), TokenCount(9));
    assert_eq!(orders(&mut chain), [Feed(1, 6..9, 6)], "the word of hop 2 about them is void");
    chain.truncate(TokenCount(2));
    assert_eq!((chain.held_by(HopId(1)), chain.held_by(HopId(2))), (Some(TokenCount(2)), Some(TokenCount(2))));
    assert!(orders(&mut chain).is_empty() && chain.is_settled());
}

#[test]
fn a_call_that_was_dropped_leaves_nothing_wanted() {
    let mut chain = settled(&[0, 2, 4]);
    for link in [1, 3] {
        chain.unlinked(HopId(1), link);
        orders(&mut chain);
    }
    chain.extend_tokens(TokenCount(2), Outputs::All).unwrap();
    assert_eq!(orders(&mut chain), [Feed(1, 6..8, 6)]);
    chain.abandon_unanswered();
    assert!(!chain.is_settled(), "every hop is to hold the positions");
    let again = [Join(5, Main, 1, Some(2), true, 6), Feed(1, 6..8, 8)];
    assert_eq!(orders(&mut chain), again, "rows that were to be relayed may be lost");
    done(&mut chain, 1, 6..8).unwrap();
    assert_eq!(output(&mut chain, 2, 2, 6..8), Ok(Came::Stale), "nobody waits for it");
    done(&mut chain, 2, 6..8).unwrap();
    assert!(chain.is_settled() && chain.is_whole());
    chain.extend_tokens(TokenCount(1), Outputs::Last).unwrap();
    assert_eq!(orders(&mut chain), [Feed(1, 8..9, 8)]);
    assert_eq!(output(&mut chain, 2, 2, 8..9), came(8..9));
}

#[test]
fn a_hop_that_fell_back_is_sent_what_it_lacks_once_all_in_flight_has_failed() {
    let mut chain = chain(&[0, 2, 4], ChainConfig { window: 3, ..CONFIG });
    chain.extend_tokens(TokenCount(12), Outputs::Last).unwrap();
    assert_eq!(orders(&mut chain).len(), 5, "two joins and three steps");
    done(&mut chain, 1, 0..4).unwrap();
    chain.fell_back(HopId(1), TokenCount(1));
    assert!(orders(&mut chain).is_empty(), "the step behind it will fail as well");
    chain.fell_back(HopId(1), TokenCount(1));
    assert_eq!(orders(&mut chain), [Feed(1, 1..5, 11), Feed(1, 5..9, 11), Feed(1, 9..12, 11)]);
    done(&mut chain, 1, 1..5).unwrap();
}

#[test]
fn a_hop_fed_through_the_client_that_fell_back_is_joined_anew() {
    let mut chain = settled(&[0, 2, 4]);
    for link in [1, 3] {
        chain.unlinked(HopId(1), link);
        orders(&mut chain);
    }
    chain.fell_back(HopId(2), TokenCount(2));
    assert_eq!(orders(&mut chain), [Join(5, Main, 1, Some(2), true, 2)]);
}

#[test]
fn answers_that_cannot_be_are_the_hops_fault() {
    let mut chain = settled(&[0, 2, 4]);
    chain.extend_tokens(TokenCount(6), Outputs::All).unwrap();
    orders(&mut chain);
    let out_of_order = |hop| Err(ChainError::OutOfOrder { hop: HopId(hop) });
    let wrong = ChainError::WrongRows { hop: HopId(2) };
    let wrong_rows = Err(wrong.clone());
    assert_eq!(done(&mut chain.clone(), 1, 6..8), out_of_order(1), "another step than it was given");
    assert_eq!(done(&mut chain.clone(), 1, 8..12), out_of_order(1));
    assert_eq!(done(&mut chain.clone(), 2, 6..13), out_of_order(2), "positions that there are not");
    assert_eq!(output(&mut chain, 2, 2, 7..9), wrong_rows, "6 has not come");
    assert_eq!(output(&mut chain, 2, 2, 6..13), wrong_rows);
    assert_eq!(output(&mut chain, 2, 2, 6..6), wrong_rows, "no rows at all");
    assert_eq!(wrong.culprit(), Some(HopId(2)));
}

#[test]
fn a_chain_of_rows_keeps_its_input() {
    let whole = range(0, 2);
    let mut chain = Chain::of_rows(whole, &[whole], CONFIG).unwrap();
    assert_eq!(chain.extend_tokens(TokenCount(1), Outputs::All), Err(ChainError::WrongInput));
    chain.extend_rows(vec![7, 8], Outputs::All).unwrap();
    chain.next_order().unwrap();
    let Some(Order::Feed(work)) = chain.next_order() else { panic!("it is fed") };
    assert_eq!(work.input, Input::Rows(vec![7, 8]));
    assert_eq!(chain.kept_rows(), 2);
    let mut chain = settled(&[0, 2]);
    assert_eq!(chain.extend_rows(vec![7], Outputs::All), Err(ChainError::WrongInput));
}
