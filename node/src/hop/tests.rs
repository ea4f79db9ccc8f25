use swarm_protocol::session::SessionId;
use swarm_protocol::wire::Next;

use super::*;

/// Rows of numbers, as good as any.
type Numbers = Vec<u64>;

fn peer(number: u8) -> PeerId {
    PeerId::from_bytes(&[0, 2, 1, number]).unwrap()
}

fn next(max_rows: u32) -> Output {
    Output::Next(Next { peer: peer(9), addresses: vec![], session: SessionId([0; 16]), max_rows })
}

fn connect(link: u32, output: Output, position: u32) -> Connect {
    Connect { lane: Lane::Main, link, output, position }
}

/// Feeds the positions `from..to`, whose outputs are their own numbers.
fn feed(hop: &mut HopState<Numbers>, epoch: u32, from: u64, to: u64, wanted_from: usize) {
    assert_eq!(hop.take(Source::Owner, epoch, from as usize, (to - from) as usize), Taken::Compute);
    hop.computed(epoch, from as usize, wanted_from, (from..to).collect());
}

/// Everything a lane sends now: position and rows.
fn drain(hop: &mut HopState<Numbers>, lane: Lane) -> Vec<(usize, Vec<u64>)> {
    std::iter::from_fn(|| hop.next_frame(lane)).map(|frame| (frame.position, frame.rows)).collect()
}

#[test]
fn a_new_link_is_sent_what_it_lacks_in_pieces_it_can_take() {
    let mut hop = HopState::new(100);
    feed(&mut hop, 0, 0, 5, 4);
    assert!(!hop.has_frame(Lane::Main), "nobody wants it");
    hop.connect(&connect(1, next(2), 0)).unwrap();
    assert_eq!(drain(&mut hop, Lane::Main), [(0, vec![0, 1]), (2, vec![2, 3]), (4, vec![4])]);
    feed(&mut hop, 0, 5, 6, 5);
    assert_eq!(drain(&mut hop, Lane::Main), [(5, vec![5])]);
    hop.connect(&connect(2, next(100), 3)).unwrap();
    assert_eq!(drain(&mut hop, Lane::Main), [(3, vec![3, 4, 5])], "another server needs only these");
    assert_eq!(hop.kept_rows(), 6);
}

#[test]
fn a_step_below_the_end_rewinds_and_one_above_is_a_gap() {
    let mut hop = HopState::new(100);
    hop.connect(&connect(1, next(100), 0)).unwrap();
    feed(&mut hop, 0, 0, 6, 5);
    drain(&mut hop, Lane::Main);
    assert_eq!(hop.take(Source::Owner, 0, 7, 1), Taken::Gap { have: 6 });
    assert_eq!(hop.take(Source::Owner, 0, 2, 1), Taken::Compute);
    hop.computed(1, 2, 2, vec![77]);
    assert_eq!(drain(&mut hop, Lane::Main), [(2, vec![77])]);
    assert_eq!((hop.len(), hop.epoch()), (3, 1));
}

#[test]
fn the_owner_gets_what_it_wants_once_and_nothing_is_kept_for_it() {
    let mut hop = HopState::new(2);
    hop.connect(&connect(1, Output::Owner, 0)).unwrap();
    feed(&mut hop, 0, 0, 4, 3);
    assert_eq!(drain(&mut hop, Lane::Main), [(3, vec![3])]);
    assert_eq!(hop.kept_rows(), 0);
    feed(&mut hop, 0, 4, 9, 4);
    assert_eq!(drain(&mut hop, Lane::Main), [(4, vec![4, 5]), (6, vec![6, 7]), (8, vec![8])]);
    feed(&mut hop, 1, 5, 6, 5);
    assert_eq!(drain(&mut hop, Lane::Main), [(5, vec![5])], "after a truncation");
    assert_eq!(hop.connect(&connect(2, next(9), 0)), Err(NotKept { start: 6 }));
}

#[test]
fn what_was_let_go_of_is_never_due() {
    let mut hop = HopState::new(9);
    hop.connect(&connect(1, Output::Owner, 0)).unwrap();
    feed(&mut hop, 0, 0, 4, 9);
    assert_eq!(drain(&mut hop, Lane::Main), []);
    // Whoever feeds it now does not know what the owner wants.
    feed(&mut hop, 0, 4, 6, 0);
    assert_eq!(drain(&mut hop, Lane::Main), [(4, vec![4, 5])]);
}

#[test]
fn only_the_named_input_is_taken() {
    let mut hop: HopState<Numbers> = HopState::new(9);
    assert_eq!(hop.feeder(peer(1), 4), Welcome::Later, "the owner's word may come after the server");
    hop.accept(Input::Upstream { peer: peer(1), link: 4 });
    assert_eq!(hop.feeder(peer(1), 4), Welcome::Now);
    assert_eq!(hop.feeder(peer(2), 4), Welcome::Never);
    assert_eq!(hop.feeder(peer(1), 3), Welcome::Never);
    assert_eq!(hop.feeder(peer(2), 5), Welcome::Later);
    assert_eq!(hop.take(Source::Owner, 0, 0, 1), Taken::Stale);
    assert_eq!(hop.take(Source::Link(3), 0, 0, 1), Taken::Stale);
    assert_eq!(hop.take(Source::Link(4), 0, 0, 1), Taken::Compute);
    hop.accept(Input::Owner);
    assert_eq!(hop.take(Source::Link(4), 0, 1, 1), Taken::Stale);
    assert_eq!(hop.take(Source::Owner, 0, 1, 1), Taken::Compute);
}

#[test]
fn a_new_feeder_that_has_not_heard_of_a_truncation_is_not_listened_to() {
    let mut hop: HopState<Numbers> = HopState::new(9);
    feed(&mut hop, 1, 0, 20, 0);
    feed(&mut hop, 3, 13, 14, 13);
    hop.accept(Input::Upstream { peer: peer(1), link: 4 });
    // It holds positions that the session has no more; what follows is of the same epoch as this hop's.
    assert_eq!(hop.take(Source::Link(4), 1, 14, 5), Taken::Stale);
    assert_eq!(hop.take(Source::Link(4), 3, 13, 1), Taken::Compute);
}

#[test]
fn a_mirror_becomes_the_way_without_a_row_sent_again() {
    let mut hop = HopState::new(100);
    hop.connect(&connect(1, next(100), 0)).unwrap();
    feed(&mut hop, 0, 0, 3, 2);
    hop.connect(&Connect { lane: Lane::Mirror, ..connect(2, next(100), 0) }).unwrap();
    assert_eq!(drain(&mut hop, Lane::Mirror), [(0, vec![0, 1, 2])]);
    hop.connect(&connect(2, next(100), 0)).unwrap();
    assert!(!hop.has_frame(Lane::Main) && !hop.has_frame(Lane::Mirror));
    assert_eq!(hop.output(Lane::Main).0, Some(2));
    feed(&mut hop, 0, 3, 4, 3);
    assert_eq!(drain(&mut hop, Lane::Main), [(3, vec![3])]);
}

#[test]
fn an_imported_cache_goes_on_like_an_own_one() {
    let mut hop = HopState::new(100);
    hop.accept(Input::Import { peer: peer(1), link: 1 });
    assert_eq!(hop.importer(peer(1), 1), Welcome::Now);
    hop.imported(3, 0, 2, Some(vec![0, 1]));
    hop.imported(3, 2, 2, Some(vec![2, 3]));
    hop.accept(Input::Owner);
    hop.connect(&connect(5, next(100), 1)).unwrap();
    let frame = hop.next_frame(Lane::Main).unwrap();
    assert_eq!((frame.epoch, frame.position, frame.rows), (3, 1, vec![1, 2, 3]));
    feed(&mut hop, 3, 4, 5, 4);
    let mut last: HopState<Numbers> = HopState::new(100);
    last.accept(Input::Import { peer: peer(1), link: 1 });
    last.imported(0, 0, 4, None);
    assert_eq!((last.len(), last.kept_rows()), (4, 0));
    assert!(last.connect(&connect(1, next(9), 0)).is_err(), "their outputs did not come along");
    last.accept(Input::Owner);
    assert_eq!(last.take(Source::Owner, 0, 4, 1), Taken::Compute);
}

#[test]
fn a_replay_is_passed_on_from_where_the_next_hop_lacks_it() {
    let mut hop = HopState::new(100);
    hop.connect(&connect(1, next(100), 5)).unwrap();
    feed(&mut hop, 0, 0, 3, 5);
    feed(&mut hop, 0, 3, 6, 5);
    assert_eq!(drain(&mut hop, Lane::Main), [(5, vec![5])]);
}

#[test]
fn a_piece_that_is_stored_late_takes_nothing_from_the_steps_behind_it() {
    let mut hop: HopState<Numbers> = HopState::new(100);
    hop.accept(Input::Import { peer: peer(1), link: 1 });
    hop.imported(0, 0, 5, Some((0..5).collect()));
    hop.accept(Input::Owner);
    assert_eq!(hop.take(Source::Owner, 0, 5, 7), Taken::Compute);
    hop.imported(0, 5, 5, Some((5..10).collect()));
    assert_eq!(hop.take(Source::Owner, 0, 12, 1), Taken::Compute);
    hop.computed(0, 5, 9, (5..12).collect());
    assert_eq!(hop.len(), 12);
}

#[test]
fn what_the_next_hop_lost_is_sent_again() {
    let mut hop = HopState::new(100);
    hop.connect(&connect(1, next(100), 0)).unwrap();
    feed(&mut hop, 0, 0, 5, 4);
    drain(&mut hop, Lane::Main);
    hop.fell_back(1, 2).unwrap();
    assert_eq!(drain(&mut hop, Lane::Main), [(2, vec![2, 3, 4])]);
}

#[test]
fn rows_from_a_hop_that_does_not_know_what_is_wanted_stop_nothing() {
    let mut hop = HopState::new(100);
    hop.connect(&connect(1, Output::Owner, 5)).unwrap();
    feed(&mut hop, 0, 0, 3, 5);
    assert_eq!((drain(&mut hop, Lane::Main), hop.kept_rows()), (vec![], 0), "nobody wants them");
    feed(&mut hop, 0, 3, 6, 0);
    assert_eq!(drain(&mut hop, Lane::Main), [(5, vec![5])], "the owner has those before");
    assert!(!hop.has_frame(Lane::Main));
}

#[test]
fn a_link_made_for_positions_that_are_no_more_is_sent_what_follows_the_truncation() {
    let mut hop = HopState::new(100);
    feed(&mut hop, 1, 0, 6, 6);
    // Whoever asked took it for longer than it is.
    hop.connect(&connect(1, next(100), 8)).unwrap();
    feed(&mut hop, 2, 6, 10, 10);
    assert_eq!(drain(&mut hop, Lane::Main), [(6, vec![6, 7, 8, 9])]);
    // A replacement is replayed from its beginning, and passes on what is new.
    let mut fresh = HopState::new(100);
    fresh.connect(&connect(1, next(100), 8)).unwrap();
    feed(&mut fresh, 2, 0, 6, 10);
    feed(&mut fresh, 2, 6, 10, 10);
    assert_eq!(drain(&mut fresh, Lane::Main), [(8, vec![8, 9])]);
}

#[test]
fn a_lane_that_leads_nowhere_has_no_number() {
    let mut hop = HopState::new(100);
    feed(&mut hop, 0, 0, 2, 2);
    hop.connect(&Connect { lane: Lane::Mirror, ..connect(1, next(100), 2) }).unwrap();
    hop.disconnect(Lane::Mirror);
    hop.connect(&connect(1, next(100), 1)).unwrap();
    assert_eq!(drain(&mut hop, Lane::Main), [(1, vec![1])], "it is a link like any other");
}
