//! Servers that host as many blocks as they are told move to where the swarm needs them, by themselves.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;

use serde_json::{Value, json};
use swarm_model::{Checkpoint, ModelSpec};
use swarm_node::placement::{Claim, Standing, plan};
use swarm_protocol::announcement::{SegmentKey, Shard, Statement};
use swarm_protocol::block::BlockRange;
use swarm_tests::harness::{
    Client, Hop, Local, PROMPT, Process, Server, TestSwarm, eventually, eventually_async, greedy, range, ready,
};

/// Short intervals: the dead are forgotten within seconds, and servers look at the swarm every second.
const OFTEN: [&str; 2] = ["--announce-interval", "1s"];

/// Tokens of a text that shows that the swarm works.
const TOKENS: usize = 12;

/// Announcements of a server after which it has looked at the swarm often enough to have moved.
const ROUNDS: usize = 10;

/// A server of six of the twelve blocks, wherever they are needed.
fn anywhere(swarm: &mut TestSwarm) -> Server {
    let mut command = swarm.serve_command_of(6);
    command.args(OFTEN);
    ready(swarm.start("anywhere", command))
}

fn half(server: &Server) -> BlockRange {
    assert!([range(0, 6), range(6, 12)].contains(&server.blocks), "a server of six hosts a half: {}", server.blocks);
    server.blocks
}

fn other(half: BlockRange) -> BlockRange {
    if half == range(0, 6) { range(6, 12) } else { range(0, 6) }
}

/// The process says that it moves, and is ready there.
fn moves(process: &mut Process, from: BlockRange, to: BlockRange) {
    let blocks = |range: BlockRange| json!([range.start(), range.end()]);
    let moving = process.event("moving");
    assert_eq!((&moving["from"], &moving["to"]), (&blocks(from), &blocks(to)), "{moving}");
    assert_eq!(process.event("ready")["blocks"], blocks(to));
}

/// The swarm tells the text that everybody knows, by this route; or why it does not.
fn told(swarm: &TestSwarm) -> Result<Vec<Hop>, String> {
    let told = swarm.generate(&["--prompt", PROMPT, "--max-tokens", &TOKENS.to_string()]).finish();
    if told.exit.code != Some(0) {
        return Err(told.exit.stderr);
    }
    assert_eq!(told.tokens, Local::demo().text(PROMPT, &greedy(), TOKENS).tokens);
    Ok(told.routes.last().expect("a route").clone())
}

fn events(stdout: &str) -> Vec<Value> {
    stdout.lines().map(|line| serde_json::from_str(line).expect("one JSON object a line")).collect()
}

fn never_moved(mut server: Server) {
    server.process.terminate();
    let exit = server.process.exit();
    assert_eq!(exit.code, Some(0), "{exit:?}");
    let moving = events(&exit.stdout).into_iter().filter(|event| event["event"] == "moving").count();
    assert_eq!(moving, 0, "{}", exit.stdout);
}

#[test]
fn a_replica_takes_over_the_blocks_of_a_server_that_died() {
    let mut swarm = TestSwarm::empty("demo", &[]);
    let mut servers: Vec<Server> = (0..3).map(|_| anywhere(&mut swarm)).collect();
    let halves: Vec<BlockRange> = servers.iter().map(half).collect();
    let lonely = (0..3).find(|one| halves.iter().filter(|half| **half == halves[*one]).count() == 1);
    let mut dead = servers.remove(lonely.expect("three servers of two halves"));
    told(&swarm).unwrap();
    dead.process.kill();
    let route = eventually("the half that died is served again", || told(&swarm).ok());
    let (mover, _) = route.iter().find(|(_, blocks)| *blocks == dead.blocks).expect("a server of that half");
    let position = servers.iter().position(|server| server.peer == *mover).expect("one of those left");
    moves(&mut servers.remove(position).process, other(dead.blocks), dead.blocks);
    never_moved(servers.remove(0));
}

#[test]
fn who_is_pinned_stays_and_another_moves() {
    let mut swarm = TestSwarm::empty("demo", &[]);
    swarm.serve(&[(0, 6), (0, 6), (6, 12)], &OFTEN);
    let mut movable = anywhere(&mut swarm);
    assert_eq!(movable.blocks, range(6, 12), "one server is less than two");
    swarm.servers.drain(..2).for_each(|mut server| server.process.kill());
    moves(&mut movable.process, range(6, 12), range(0, 6));
    eventually("both halves are found", || told(&swarm).ok());
    swarm.servers.drain(..).for_each(never_moved);
}

/// Four servers that are best left where they are. On a busy machine one may measure itself as slow when it starts: then others
/// do it, since it would be right to move.
async fn level_swarm() -> (TestSwarm, Client, Vec<Server>) {
    const ATTEMPTS: usize = 10;
    for _ in 0..ATTEMPTS {
        let mut swarm = TestSwarm::empty("demo", &[]);
        let servers: Vec<Server> = (0..4).map(|_| anywhere(&mut swarm)).collect();
        let client = Client::of(&swarm).await;
        let mut claims = Vec::new();
        for server in &servers {
            let word = client.info(server).await.unwrap().announcement;
            let tokens_per_second = 1e6 / f64::from(word.rates.decode_us_per_block);
            let standing = Standing::Serving;
            claims.push(Claim { peer: word.peer, blocks: word.blocks, tokens_per_second, standing });
        }
        if plan(range(0, 12), &claims, |_| true).moves.is_empty() {
            return (swarm, client, servers);
        }
        servers.into_iter().for_each(|mut server| server.process.kill());
    }
    panic!("servers of one machine never measure themselves alike");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_moves_when_all_is_well() {
    let (_swarm, client, servers) = level_swarm().await;
    let checkpoint = Checkpoint::open(&ModelSpec::Demo).unwrap();
    let model = checkpoint.id(checkpoint.native_format());
    // All look equally often: one is enough to watch.
    let server = servers.last().expect("four");
    let key = SegmentKey::segment(model, server.blocks.start() / 8, Shard::of(server.peer, 0));
    let mut seen = BTreeSet::new();
    while seen.len() < ROUNDS {
        let newer = eventually_async("another announcement", || async {
            let found = client.swarm.network().get(key).await.ok()?;
            let mut words = found.iter().flat_map(|found| &found.statements);
            let newer = |word: &&Statement| word.peer() == server.peer && !seen.contains(&word.sequence());
            words.find(newer).map(Statement::sequence)
        });
        let newer = newer.await;
        seen.insert(newer);
    }
    servers.into_iter().for_each(never_moved);
}

#[test]
fn who_is_told_to_stop_while_it_moves_ends_cleanly() {
    let mut swarm = TestSwarm::empty("demo", &[]);
    swarm.serve(&[(0, 6), (6, 12)], &OFTEN);
    let mut third = anywhere(&mut swarm);
    let replica = half(&third);
    let lonely = swarm.servers.iter_mut().find(|server| server.blocks == other(replica)).expect("the other half");
    lonely.process.kill();
    third.process.event("moving");
    third.process.terminate();
    let exit = third.process.exit();
    assert_eq!(exit.code, Some(0), "{exit:?}");
    assert!(!exit.stderr.contains("panicked"), "{}", exit.stderr);
}
