use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

const SEEDS: u64 = 500;

fn peer(number: u8) -> PeerId {
    PeerId::from_bytes(&[0, 2, 1, number]).unwrap()
}

fn session(number: u8) -> SessionId {
    SessionId([number; 16])
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn admission(budget: u32) -> Admission {
    let newcomers = TokenCount(budget / 4);
    let idle = seconds(60);
    Admission::new(AdmissionConfig { budget: TokenCount(budget), sessions: 5, newcomers, idle })
}

/// Opens session `number` of owner `number` at time zero.
fn open(admission: &mut Admission, number: u8, tokens: u32) -> Result<(), Refusal> {
    admission.open(session(number), peer(number), TokenCount(tokens), Duration::ZERO)
}

fn reason(result: Result<(), Refusal>) -> Reason {
    result.unwrap_err().reason
}

#[test]
fn a_full_server_says_what_is_free_and_when_to_ask_again() {
    let mut server = admission(100);
    open(&mut server, 1, 60).unwrap();
    let refusal = server.open(session(2), peer(2), TokenCount(50), seconds(55)).unwrap_err();
    let expected = Refusal { reason: Reason::Full, free: TokenCount(40), retry_after: Some(seconds(5)) };
    assert_eq!(refusal, expected);
    assert!(server.close(session(1)) && !server.close(session(1)));
    open(&mut server, 2, 50).unwrap();
}

#[test]
fn what_never_fits_is_not_worth_a_retry() {
    let mut server = admission(100);
    open(&mut server, 1, 10).unwrap();
    assert_eq!(reason(open(&mut server, 1, 10)), Reason::AlreadyOpen);
    let too_long = open(&mut server, 2, 101).unwrap_err();
    assert_eq!(too_long.retry_after, None);
    server.leave();
    assert_eq!(open(&mut server, 3, 1).unwrap_err().retry_after, None);
    assert_eq!(server.reserved(), TokenCount(10), "open sessions stay");
}

#[test]
fn one_owner_cannot_take_everything() {
    let mut server = admission(100);
    open(&mut server, 1, 50).unwrap();
    let greedy = server.open(session(2), peer(1), TokenCount(30), Duration::ZERO);
    assert_eq!(reason(greedy), Reason::KeptForOthers);
    open(&mut server, 3, 50).unwrap();
}

#[test]
fn sessions_are_bounded_however_small() {
    let mut server = admission(100);
    (0..5).for_each(|number| open(&mut server, number, 0).unwrap());
    assert_eq!(reason(open(&mut server, 5, 0)), Reason::TooManySessions);
}

#[test]
fn silence_and_gone_clients_give_room_back() {
    let mut server = admission(100);
    (1..=3).for_each(|number| open(&mut server, number, 20).unwrap());
    assert!(server.touch(session(2), seconds(30)));
    assert_eq!(server.next_sweep(), Some(seconds(60)));
    assert_eq!(server.sweep(seconds(59)), []);
    assert_eq!(server.close_owner(peer(3)), [session(3)]);
    assert_eq!(server.sweep(seconds(60)), [session(1)]);
    assert!(!server.touch(session(1), seconds(61)), "a closed session is not revived");
    assert_eq!(server.sweep(seconds(90)), [session(2)]);
    assert_eq!((server.reserved(), server.next_sweep()), (TokenCount(0), None));
}

#[test]
fn reserved_is_always_the_sum_of_open_sessions() {
    for seed in 0..SEEDS {
        let rng = &mut StdRng::seed_from_u64(seed);
        let (mut server, mut now) = (admission(100), Duration::ZERO);
        let mut open: BTreeMap<SessionId, (u8, u32)> = BTreeMap::new();
        for _ in 0..100 {
            now += seconds(rng.random_range(0..10));
            let (number, owner) = (rng.random_range(0..8), rng.random_range(0..4));
            match rng.random_range(0..8) {
                0..4 => {
                    let tokens = rng.random_range(0..120);
                    if server.open(session(number), peer(owner), TokenCount(tokens), now).is_ok() {
                        open.insert(session(number), (owner, tokens));
                    }
                }
                4 => assert_eq!(server.touch(session(number), now), open.contains_key(&session(number))),
                5 => assert_eq!(server.close(session(number)), open.remove(&session(number)).is_some()),
                6 => {
                    let closed = server.close_owner(peer(owner));
                    assert!(closed.iter().all(|id| open.remove(id).is_some_and(|(who, _)| who == owner)));
                    assert!(open.values().all(|(who, _)| *who != owner));
                }
                _ => assert!(server.sweep(now).iter().all(|id| open.remove(id).is_some())),
            }
            let sum: u32 = open.values().map(|(_, tokens)| tokens).sum();
            assert_eq!(server.reserved(), TokenCount(sum), "seed {seed}");
            assert_eq!((server.free(), server.sessions()), (TokenCount(100 - sum), open.len()), "seed {seed}");
        }
        (0..8).for_each(|number| {
            server.close(session(number));
        });
        assert_eq!((server.reserved(), server.sessions()), (TokenCount(0), 0), "seed {seed}");
    }
}
