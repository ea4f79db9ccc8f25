//! Servers beside the chain: standbys, heirs, and what they hold.

use super::*;

#[test]
fn a_standby_takes_its_hops_place_and_is_sent_nothing_again() {
    let mut chain = settled(&[0, 2, 4, 6]);
    let standby = chain.add_shadow(HopId(2), true).unwrap();
    assert_eq!((standby, chain.add_shadow(HopId(2), true)), (HopId(4), None));
    assert_eq!(orders(&mut chain), [Join(4, Mirror, 1, Some(4), false, 0)]);
    done(&mut chain, 4, 0..6).unwrap();
    assert_eq!((chain.shadow_lacks(HopId(2)), chain.shadow_is_ahead(HopId(2))), (Some(TokenCount(0)), false));
    assert!(chain.fail(HopId(2)));
    assert_eq!(chain.promote(HopId(2)), Some(standby));
    assert!(chain.lost().is_empty());
    let joins = [Join(4, Main, 1, Some(4), false, 6), Join(5, Main, 4, Some(3), false, 6)];
    assert_eq!(orders(&mut chain), joins, "the same link, now the chain's own way");
    assert_eq!(chain.unlinked(HopId(1), 4), Unlinked::Again);
}

#[test]
fn the_first_hops_standby_is_fed_by_the_client_as_well() {
    let mut chain = settled(&[0, 2, 4]);
    chain.add_shadow(HopId(1), true).unwrap();
    assert_eq!(orders(&mut chain), [Feed(3, 0..6, 5)]);
    done(&mut chain, 3, 0..6).unwrap();
    chain.extend_tokens(TokenCount(1), Outputs::Last).unwrap();
    assert_eq!(orders(&mut chain), [Feed(1, 6..7, 6), Feed(3, 6..7, 6)]);
    done(&mut chain, 3, 6..7).unwrap();
    assert!(chain.shadow_is_ahead(HopId(1)));
    chain.fail(HopId(1));
    chain.promote(HopId(1)).unwrap();
    assert_eq!(orders(&mut chain), [Join(3, Main, 3, Some(2), false, 6)], "nothing is fed twice");
}

#[test]
fn a_standby_that_cannot_be_fed_is_let_go_of() {
    let mut chain = settled(&[0, 2, 4]);
    let standby = chain.add_shadow(HopId(2), true).unwrap();
    assert_eq!(orders(&mut chain), [Join(3, Mirror, 1, Some(3), false, 0)]);
    assert_eq!(chain.unlinked(HopId(1), 3), Unlinked::Shadow(standby));
    assert_eq!((chain.shadow_of(HopId(2)), chain.held_by(standby)), (None, None));
    assert!(orders(&mut chain).is_empty());
    let another = chain.add_shadow(HopId(2), true).unwrap();
    orders(&mut chain);
    assert!(chain.fail(another), "it may be lost as well");
    assert!(chain.lost().is_empty() && orders(&mut chain).is_empty());
}

#[test]
fn a_standby_outlives_the_hop_that_fed_it() {
    let mut chain = settled(&[0, 2, 4]);
    chain.add_shadow(HopId(2), true).unwrap();
    orders(&mut chain);
    done(&mut chain, 3, 0..6).unwrap();
    assert_eq!(replace(&mut chain, 1, &[range(0, 2)]), [4]);
    let orders = orders(&mut chain);
    let joins = [Join(4, Main, 4, Some(2), false, 6), Join(5, Mirror, 4, Some(3), false, 6)];
    assert_eq!(orders[..2], joins);
    assert_eq!(orders[2..], [Feed(4, 0..6, 5)]);
}

#[test]
fn a_cache_that_was_handed_over_goes_on_where_it_ends() {
    let mut chain = settled(&[0, 2, 4, 6]);
    let heir = chain.add_shadow(HopId(2), false).unwrap();
    assert!(orders(&mut chain).is_empty(), "it is not fed");
    chain.imported(heir, TokenCount(4));
    chain.extend_tokens(TokenCount(1), Outputs::None).unwrap();
    assert_eq!(orders(&mut chain), [Feed(1, 6..7, 7)], "decoding goes on");
    [1, 2, 3].into_iter().for_each(|hop| drop(done(&mut chain, hop, 6..7)));
    assert!(chain.is_settled());
    assert_eq!(chain.shadow_lacks(HopId(2)), Some(TokenCount(3)));
    assert_eq!(chain.follow(HopId(2)), Some(heir));
    assert_eq!(orders(&mut chain), [Join(4, Mirror, 1, Some(4), false, 4)]);
    done(&mut chain, 4, 4..7).unwrap();
    assert_eq!(chain.shadow_lacks(HopId(2)), Some(TokenCount(0)));
    chain.fail(HopId(2));
    assert_eq!(chain.promote(HopId(2)), Some(heir));
    let joins = [Join(4, Main, 1, Some(4), false, 7), Join(5, Main, 4, Some(3), false, 7)];
    assert_eq!(orders(&mut chain), joins);
    chain.imported(heir, TokenCount(2));
    assert_eq!(chain.held_by(heir), Some(TokenCount(7)), "a word that came late");
}

#[test]
fn who_speaks_of_another_hops_hand_over_lies() {
    let mut chain = settled(&[0, 2, 4]);
    chain.add_shadow(HopId(1), false).unwrap();
    chain.add_shadow(HopId(2), false).unwrap();
    let (first, second) = (chain.begin_hand_over(HopId(1)), chain.begin_hand_over(HopId(2)));
    let lie = chain.handed_over(HopId(2), first).unwrap_err();
    assert_eq!(lie.culprit(), Some(HopId(2)));
    assert!(chain.is_handing_over(HopId(1)), "its own word still counts");
    assert_eq!(chain.handed_over(HopId(1), first), Ok(true));
    assert_eq!(chain.handed_over(HopId(1), first), Ok(false), "it has said so already");
    chain.truncate(TokenCount(3));
    assert_eq!(chain.handed_over(HopId(2), second), Ok(false), "nobody waits for it");
}

#[test]
fn a_truncation_ends_a_hand_over_but_no_standby() {
    let mut chain = settled(&[0, 2, 4]);
    let (heir, standby) = (chain.add_shadow(HopId(2), false), chain.add_shadow(HopId(1), true));
    chain.truncate(TokenCount(5));
    assert_eq!((chain.shadow_of(HopId(2)), chain.shadow_of(HopId(1))), (None, standby));
    chain.imported(heir.unwrap(), TokenCount(6));
    assert_eq!(chain.held_by(heir.unwrap()), None);
}

#[test]
fn a_hop_that_knows_nothing_of_a_truncation_hands_nothing_over() {
    let mut chain = settled(&[0, 2, 4]);
    chain.truncate(TokenCount(3));
    assert_eq!(chain.add_shadow(HopId(2), false), None, "its server still has what was there before");
    chain.extend_tokens(TokenCount(1), Outputs::Last).unwrap();
    orders(&mut chain);
    done(&mut chain, 1, 3..4).unwrap();
    assert_eq!((chain.may_hand_over(HopId(1)), chain.may_hand_over(HopId(2))), (true, false));
    done(&mut chain, 2, 3..4).unwrap();
    assert!(chain.add_shadow(HopId(2), false).is_some());
}

#[test]
fn what_was_recalled_before_a_truncation_is_not_handed_over() {
    let mut chain = settled(&[0, 2, 4]);
    let asked_in = chain.epoch();
    chain.truncate(TokenCount(4));
    chain.extend_tokens(TokenCount(2), Outputs::None).unwrap();
    // Its server still has what was there when it was asked.
    let shadow = chain.add_shadow(HopId(1), true).unwrap();
    chain.recalled(shadow, TokenCount(4), asked_in);
    assert_eq!(chain.held_by(shadow), Some(TokenCount(4)));
    chain.fail(HopId(1));
    assert_eq!(chain.promote(HopId(1)), Some(shadow));
    assert!(!chain.may_hand_over(shadow));
    let fed = orders(&mut chain);
    assert!(fed.contains(&Feed(shadow.0, 4..6, 6)), "{fed:?}");
    done(&mut chain, shadow.0, 4..6).unwrap();
    assert!(chain.may_hand_over(shadow));
}

#[test]
fn who_was_handed_no_outputs_does_not_stand_in_for_one_that_is_wanted() {
    let handed_over = |chain: &mut Chain<Numbers>| {
        let heir = chain.add_shadow(HopId(2), false).unwrap();
        chain.imported(heir, chain.position());
        heir
    };
    let mut chain = settled(&[0, 2, 4]);
    let heir = handed_over(&mut chain);
    assert!(!chain.shadow_lacks_output(HopId(2)), "every output has come");
    chain.fail(HopId(2));
    assert_eq!(chain.promote(HopId(2)), Some(heir));

    let mut chain = settled(&[0, 2, 4]);
    chain.extend_tokens(TokenCount(1), Outputs::Last).unwrap();
    orders(&mut chain);
    done(&mut chain, 1, 6..7).unwrap();
    done(&mut chain, 2, 6..7).unwrap();
    let heir = handed_over(&mut chain);
    assert!(chain.shadow_lacks_output(HopId(2)), "the output of position 6 has not come");
    chain.fail(HopId(2));
    assert_eq!(chain.promote(HopId(2)), None);
    assert_eq!((chain.held_by(heir), chain.lost().len()), (None, 1));

    // What it computes itself it can give.
    let mut chain = settled(&[0, 2, 4]);
    let heir = handed_over(&mut chain);
    chain.follow(HopId(2));
    chain.truncate(TokenCount(3));
    chain.extend_tokens(TokenCount(2), Outputs::Last).unwrap();
    assert!(!chain.shadow_lacks_output(HopId(2)));
    chain.fail(HopId(2));
    assert_eq!(chain.promote(HopId(2)), Some(heir));
}

#[test]
fn what_was_recalled_before_a_truncation_holds_up_to_it() {
    let mut chain = settled(&[0, 2, 4]);
    let asked_in = chain.epoch();
    for length in [4, 2, 3] {
        chain.truncate(TokenCount(length));
        chain.extend_tokens(TokenCount(3), Outputs::Last).unwrap();
    }
    let asked_last = chain.epoch();
    let mut held = |hop, epoch| {
        let shadow = chain.add_shadow(HopId(hop), true).unwrap();
        chain.recalled(shadow, TokenCount(5), epoch);
        chain.held_by(shadow).unwrap().0
    };
    assert_eq!((held(1, asked_in), held(2, asked_last)), (2, 5));
}

#[test]
fn a_link_to_one_that_has_become_a_hop_does_not_take_it_along() {
    let mut chain = settled(&[0, 2, 4]);
    let standby = chain.add_shadow(HopId(2), true).unwrap();
    let [Join(mirror, Lane::Mirror, 1, ..)] = orders(&mut chain)[..] else { panic!("a mirror") };
    chain.fail(HopId(2));
    chain.promote(HopId(2));
    assert_eq!(chain.unlinked(HopId(1), mirror), Unlinked::Stale);
    assert!(orders(&mut chain).iter().any(|order| matches!(order, Join(_, Main, 1, Some(to), ..) if *to == standby.0)));
}

#[test]
fn an_heir_that_is_gone_is_handed_nothing_any_more() {
    let mut chain = settled(&[0, 2, 4]);
    let heir = chain.add_shadow(HopId(1), false).unwrap();
    let number = chain.begin_hand_over(HopId(1));
    assert!(chain.fail(heir) && !chain.is_handing_over(HopId(1)));
    assert_eq!(chain.handed_over(HopId(1), number), Ok(false));
}
