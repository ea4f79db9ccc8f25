//! Statements are put by one member and found by others.

use swarm_protocol::announcement::{ServerState, Statement};
use swarm_protocol::p2p::{BootstrapPeer, BootstrapStatus, Identity, Network, NetworkConfig, QueryError};

use crate::members::{
    announce, announcement, client, entry_point, eventually, joined, key, known, server, soon, start,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_is_found_by_a_member_that_joined_elsewhere() {
    let (bootstrap, _streams) = start(server(vec![])).await;
    let entry = vec![entry_point(&bootstrap)];
    let (author, _streams) = joined(server(entry.clone())).await;
    let (other, _streams) = joined(client(entry)).await;
    announce(&author, 7).await;
    let found = eventually("the statement", async || {
        let known = known(&other, &author).await;
        known.into_iter().find(|(holder, ..)| *holder == Some(bootstrap.peer_id()))
    })
    .await;
    assert_eq!(found, (Some(bootstrap.peer_id()), 7, ServerState::Serving));
    // The author knows itself without asking, and others by asking.
    assert!(known(&author, &author).await.contains(&(None, 7, ServerState::Serving)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_word_wins_and_leaving_is_one() {
    let (bootstrap, _streams) = start(server(vec![])).await;
    let entry = vec![entry_point(&bootstrap)];
    let (author, _streams) = joined(server(entry.clone())).await;
    let (other, _streams) = joined(client(entry)).await;
    announce(&author, 7).await;
    let mut leaving = announcement(&author, 8);
    leaving.state = ServerState::Leaving;
    author.put(key(&author), &Statement::Announcement(leaving)).await.unwrap();
    eventually("the newer statement everywhere", async || {
        let known = known(&other, &author).await;
        let all_new = known.iter().all(|(_, sequence, state)| (*sequence, *state) == (8, ServerState::Leaving));
        (!known.is_empty() && all_new).then_some(())
    })
    .await;
    // Going back is refused, and says why.
    let old = Statement::Announcement(announcement(&author, 7));
    match author.put(key(&author), &old).await {
        Err(QueryError::Refused(reason)) => assert!(reason.contains("newer"), "{reason}"),
        other => panic!("an older statement was not refused: {other:?}"),
    }
    assert!(known(&other, &author).await.iter().all(|(_, sequence, _)| *sequence == 8));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_repeats_is_forgotten() {
    let (bootstrap, _streams) = start(server(vec![])).await;
    let entry = vec![entry_point(&bootstrap)];
    let (author, _streams) = joined(server(entry.clone())).await;
    let (other, _streams) = joined(client(entry)).await;
    let mut brief = announcement(&author, 1);
    brief.ttl_seconds = 3;
    author.put(key(&author), &Statement::Announcement(brief)).await.unwrap();
    eventually("the statement", async || (!known(&other, &author).await.is_empty()).then_some(())).await;
    eventually("that it is forgotten", async || known(&other, &author).await.is_empty().then_some(())).await;
    assert!(known(&author, &author).await.is_empty(), "the author's own store keeps it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_of_somebody_else_or_out_of_place_is_refused() {
    let (bootstrap, _streams) = start(server(vec![])).await;
    let (author, _streams) = joined(server(vec![entry_point(&bootstrap)])).await;
    let stolen = Statement::Announcement(announcement(&bootstrap, 9));
    assert!(matches!(author.put(key(&bootstrap), &stolen).await, Err(QueryError::Refused(_))));
    let own = Statement::Announcement(announcement(&author, 1));
    let elsewhere = swarm_protocol::announcement::SegmentKey::directory();
    assert!(matches!(author.put(elsewhere, &own).await, Err(QueryError::Refused(_))));
    assert!(known(&author, &bootstrap).await.is_empty());
}

/// The first server of a swarm: nobody else can take its statement, which it is told, and it keeps it for those to come.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_alone_is_told_so_and_is_found_later() {
    let (alone, _streams) = start(server(vec![])).await;
    let statement = Statement::Announcement(announcement(&alone, 1));
    assert!(matches!(alone.put(key(&alone), &statement).await, Err(QueryError::NoPeers(_))));
    assert_eq!(known(&alone, &alone).await, vec![(None, 1, ServerState::Serving)]);
    let (newcomer, _streams) = joined(client(vec![entry_point(&alone)])).await;
    let found = known(&newcomer, &alone).await;
    assert_eq!(found, vec![(Some(alone.peer_id()), 1, ServerState::Serving)]);
}

/// A server comes back with the same identity and a clock that went back: holders know better, and it is told so.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_starts_below_its_old_sequence_is_told_so() {
    let folder = std::env::temp_dir().join(format!("swarm-sequence-test-{}", std::process::id()));
    let file = folder.join("id.key");
    let (bootstrap, _streams) = start(server(vec![])).await;
    let config = || NetworkConfig {
        identity: Identity::load_or_create(&file).unwrap(),
        ..server(vec![entry_point(&bootstrap)])
    };
    let (first, streams) = joined(config()).await;
    announce(&first, 9).await;
    soon("the shutdown", first.shut_down()).await;
    drop((first, streams));

    let (second, _streams) = joined(config()).await;
    let old = Statement::Announcement(announcement(&second, 5));
    assert!(matches!(second.put(key(&second), &old).await, Err(QueryError::NoPeers(_))));
    // What others know of it says where to go on.
    let highest = known(&second, &second).await.into_iter().map(|(_, sequence, _)| sequence).max();
    assert_eq!(highest, Some(9));
    announce(&second, 10).await;
    std::fs::remove_dir_all(&folder).unwrap();
}

/// A look-up of what nobody said ends, with nothing.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_no_error() {
    let (bootstrap, _streams) = start(server(vec![])).await;
    let (asker, _streams) = joined(client(vec![entry_point(&bootstrap)])).await;
    assert!(asker.get(key(&bootstrap)).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn six_members_find_one_another() {
    let (bootstrap, _streams) = start(server(vec![])).await;
    let entry = vec![entry_point(&bootstrap)];
    let mut members = Vec::new();
    for number in 0..6 {
        let member = joined(server(entry.clone())).await;
        announce(&member.0, number + 1).await;
        members.push(member);
    }
    for (seeker, _) in &members {
        for (sought, _) in &members {
            eventually("every member", async || (!known(seeker, sought).await.is_empty()).then_some(())).await;
        }
    }
}

/// How many members of the DHT `network` knows.
async fn known_members(network: &Network, many: usize) {
    let what = format!("a table of {many}");
    eventually(&what, async || (network.census().await.known_peers == many).then_some(())).await;
}

/// A member that listens on TCP and on QUIC, as they do by default.
fn on_both(bootstrap: Vec<BootstrapPeer>) -> NetworkConfig {
    let quic = "/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap();
    let mut config = server(bootstrap);
    config.listen.push(quic);
    config
}

/// Otherwise whoever looks something up tries to reach them, over QUIC for seconds each.
#[tokio::test(flavor = "multi_thread")]
async fn members_that_are_gone_are_forgotten() {
    let (bootstrap, _streams) = start(on_both(vec![])).await;
    let entry = vec![entry_point(&bootstrap)];
    let (stays, _streams) = joined(on_both(entry.clone())).await;
    announce(&stays, 1).await;
    for _ in 0..3 {
        let (goes, _streams) = joined(on_both(entry.clone())).await;
        announce(&goes, 1).await;
        for network in [&bootstrap, &stays] {
            known_members(network, 2).await;
        }
        soon("the shutdown", goes.shut_down()).await;
        for network in [&bootstrap, &stays] {
            known_members(network, 1).await;
        }
    }
    assert!(known(&bootstrap, &stays).await.contains(&(Some(stays.peer_id()), 1, ServerState::Serving)));
}

/// Who says that it is about to leave is not asked any more, though it is still there.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_retires_leaves_the_tables_at_once() {
    let (bootstrap, _streams) = start(server(vec![])).await;
    let (retires, _streams) = joined(server(vec![entry_point(&bootstrap)])).await;
    known_members(&bootstrap, 1).await;
    retires.retire().await;
    known_members(&bootstrap, 0).await;
    assert_eq!(bootstrap.census().await.connected_peers, 1);
    // It can still say good-bye.
    announce(&retires, 2).await;
    assert_eq!(known(&bootstrap, &retires).await, [(None, 2, ServerState::Serving)]);
}

/// Nor does anybody find the others through an entry point that is about to leave.
#[tokio::test(flavor = "multi_thread")]
async fn an_entry_point_that_retires_is_none_any_more() {
    let (entry, _streams) = start(server(vec![])).await;
    let (guest, _streams) = joined(client(vec![entry_point(&entry)])).await;
    known_members(&guest, 1).await;
    let mut status = guest.bootstrap_status();
    entry.retire().await;
    let leaving =
        |statuses: &Vec<_>| matches!(&statuses[0], BootstrapStatus::Unreachable { reason } if reason.contains("leave"));
    soon("that the guest hears of it", status.wait_for(leaving)).await.unwrap();
    known_members(&guest, 0).await;
}
