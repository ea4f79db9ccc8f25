use rand::SeedableRng;
use rand::rngs::StdRng;
use swarm_protocol::PeerId;

use super::*;

fn range(start: u32, end: u32) -> BlockRange {
    BlockRange::new(start, end).unwrap()
}

fn peer(number: u8) -> PeerId {
    PeerId::from_bytes(&[0, 2, 1, number]).unwrap()
}

fn serving(number: u8, start: u32, end: u32, rate: f64) -> Claim {
    Claim { peer: peer(number), blocks: range(start, end), tokens_per_second: rate, standing: Standing::Serving }
}

fn joining(number: u8, start: u32, end: u32, rate: f64) -> Claim {
    Claim { standing: Standing::Joining, ..serving(number, start, end, rate) }
}

fn planned(blocks: u32, claims: &[Claim]) -> Plan {
    plan(range(0, blocks), claims, |_| true)
}

#[test]
fn one_of_two_replicas_fills_a_hole() {
    let plan = planned(12, &[serving(1, 0, 6, 10.0), serving(2, 0, 6, 20.0)]);
    assert!(plan.mends());
    assert_eq!(plan.moves, [Move { peer: peer(1), from: range(0, 6), to: range(6, 12) }], "the smaller id of equals");
}

#[test]
fn the_last_replica_stays_and_nobody_moves_for_what_is_under_way() {
    assert!(planned(12, &[serving(1, 0, 6, 10.0)]).moves.is_empty(), "a hole for a hole");
    let two = [serving(1, 0, 6, 10.0), serving(2, 0, 6, 10.0)];
    assert!(planned(12, &[&two[..], &[joining(3, 6, 12, 10.0)]].concat()).moves.is_empty(), "it is on its way");
    let one_leaves = [serving(1, 0, 6, 10.0), joining(2, 0, 6, 10.0)];
    assert!(planned(12, &one_leaves).moves.is_empty(), "who joins is no replica yet");
}

#[test]
fn when_all_is_well_nobody_moves() {
    let level = [serving(1, 0, 6, 10.0), serving(2, 6, 12, 10.0), serving(3, 0, 6, 10.0), serving(4, 6, 12, 10.3)];
    assert_eq!(planned(12, &level), Plan::nothing());
    let spare = [serving(1, 0, 6, 10.0), serving(2, 6, 12, 10.0), serving(3, 0, 6, 10.0)];
    assert_eq!(planned(12, &spare), Plan::nothing(), "one half would be as badly off as the other was");
}

#[test]
fn the_worst_served_blocks_are_helped_if_it_is_worth_it() {
    let claims = [serving(1, 0, 6, 10.0), serving(2, 0, 6, 10.0), serving(3, 0, 6, 10.0), serving(4, 6, 12, 10.0)];
    let plan = planned(12, &claims);
    assert!(!plan.mends());
    let [Move { peer: mover, from, to }] = plan.moves[..] else { panic!("one of the three: {plan:?}") };
    assert_eq!((from, to), (range(0, 6), range(6, 12)));
    let mut moved = claims;
    moved.iter_mut().filter(|claim| claim.peer == mover).for_each(|claim| claim.blocks = to);
    assert_eq!(planned(12, &moved), Plan::nothing(), "it comes to rest");
}

#[test]
fn who_may_not_move_is_not_named() {
    let claims = [serving(1, 0, 6, 10.0), serving(2, 0, 6, 10.0)];
    let plan = plan(range(0, 12), &claims, |claim| claim.peer != peer(1));
    assert_eq!(plan.moves[0].peer, peer(2));
}

#[test]
fn two_that_wait_for_one_another_both_stay() {
    let model = range(0, 12);
    let claims = [serving(1, 0, 6, 10.0), serving(2, 0, 6, 10.0)];
    let plan = planned(12, &claims);
    let to = range(6, 12);
    let alone = |mine: usize, seen: &[Claim]| still_right(model, &claims[mine], (&plan, to), &claims, seen);
    assert!(alone(0, &claims), "the other one serves");
    assert!(!alone(0, &[joining(2, 6, 12, 10.0)]), "the other one leaves");
    assert!(!alone(1, &[joining(1, 6, 12, 10.0)]), "the other one leaves");
    assert!(!alone(0, &[]), "the other one is gone");
}

#[test]
fn of_two_that_take_the_same_blocks_the_smaller_id_goes() {
    let model = range(0, 12);
    let claims = [serving(1, 0, 6, 10.0), serving(2, 0, 6, 10.0), serving(3, 0, 6, 10.0)];
    let plan = planned(12, &claims);
    let to = range(6, 12);
    let seen_by_1 = [joining(2, 6, 12, 10.0), claims[2].clone()];
    assert!(still_right(model, &claims[0], (&plan, to), &claims, &seen_by_1));
    let seen_by_2 = [joining(1, 6, 12, 10.0), claims[2].clone()];
    assert!(!still_right(model, &claims[1], (&plan, to), &claims, &seen_by_2));
}

#[test]
fn whoever_can_move_does_if_those_named_are_pinned() {
    let model = range(0, 12);
    let all: Vec<Claim> = (1..=9).map(|number| serving(number, 0, 6, 10.0)).collect();
    for seed in 0..40 {
        let rng = &mut StdRng::seed_from_u64(seed);
        let mut patience = Patience::default();
        let mine = &all[8];
        let others = &all[..8];
        let looks = (1..).find(|_| patience.look(model, mine, others, rng).is_some()).unwrap();
        assert!((3..60).contains(&looks), "seed {seed}: after {looks} looks");
    }
}

#[test]
fn who_has_just_settled_stays_for_a_while() {
    let model = range(0, 12);
    let claims = [serving(1, 0, 6, 10.0), serving(2, 0, 6, 10.0), serving(3, 0, 6, 10.0), serving(4, 6, 12, 10.0)];
    let rng = &mut StdRng::seed_from_u64(1);
    let mut patience = Patience::default();
    assert!(patience.look(model, &claims[0], &claims[1..], rng).is_none(), "it has just settled");
    let mut patience = Patience::default();
    // Of equals any one may be named; all name the same one.
    let named = planned(12, &claims).moves[0].peer;
    let [mine, others @ ..] = &{
        let mut all = claims.clone();
        all.sort_by_key(|claim| claim.peer != named);
        all
    };
    let rest = [serving(1, 0, 6, 10.0), serving(2, 6, 12, 10.0)];
    (0..10).for_each(|_| assert!(patience.look(model, &rest[0], &rest[1..], rng).is_none()));
    assert!(patience.look(model, mine, others, rng).is_some());
    patience.settle();
    assert!(patience.look(model, mine, others, rng).is_none());
    let hole = [serving(1, 0, 6, 10.0), serving(2, 0, 6, 10.0)];
    assert!(patience.look(model, &hole[0], &hole[1..], rng).is_some(), "a hole cannot wait");
}
