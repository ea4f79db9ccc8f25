//! Servers die in the middle of a text, and nobody can tell from the text.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::thread::JoinHandle;

use futures::FutureExt;
use swarm_client::{ClientConfig, HopInfo};
use swarm_model::{ModelSpec, SamplingConfig, activations};
use swarm_protocol::PeerId;
use swarm_tests::harness::{
    Client, Local, PROMPT, TestSwarm, Told, eventually, greedy, host, leftovers, range, sampled,
};

/// Tokens of each text.
const TOKENS: usize = 60;

/// What happens to a swarm while it tells a text.
#[derive(Debug, Clone, Copy)]
enum Operation {
    /// The server of this block in the session's route is killed.
    Kill(u32),
    /// It is stopped as if its network had gone silent.
    Freeze(u32),
    /// It is asked to leave.
    Terminate(u32),
    /// A server of these blocks joins.
    Start(u32, u32),
}
use Operation::{Freeze, Kill, Start, Terminate};

/// A swarm, and what happens to it after how many tokens.
struct Scenario {
    name: &'static str,
    servers: &'static [(u32, u32)],
    operations: &'static [(usize, &'static [Operation])],
    /// How many servers the session loses.
    lost: usize,
}

const SCENARIOS: [Scenario; 9] = [
    Scenario {
        name: "before anything was computed",
        servers: &[(0, 6), (0, 6), (6, 12)],
        operations: &[(0, &[Kill(0)])],
        lost: 1,
    },
    Scenario {
        name: "the first hop after the first token",
        servers: &[(0, 6), (0, 6), (6, 12)],
        operations: &[(1, &[Kill(0)])],
        lost: 1,
    },
    Scenario {
        name: "the last hop before the last token",
        servers: &[(0, 6), (6, 12), (6, 12)],
        operations: &[(TOKENS - 1, &[Kill(11)])],
        lost: 1,
    },
    Scenario {
        name: "one hop twice in a row",
        servers: &[(0, 4), (4, 8), (4, 8), (4, 8), (8, 12)],
        operations: &[(9, &[Kill(4)]), (10, &[Kill(4)])],
        lost: 2,
    },
    Scenario {
        name: "two neighbours at once",
        servers: &[(0, 4), (4, 8), (4, 8), (8, 12), (8, 12)],
        operations: &[(20, &[Kill(4), Kill(8)])],
        lost: 2,
    },
    Scenario {
        name: "all hops at once",
        servers: &[(0, 6), (6, 12), (0, 6), (6, 12)],
        operations: &[(30, &[Kill(0), Kill(6)])],
        lost: 2,
    },
    Scenario {
        name: "replaced by a part of a larger server",
        servers: &[(0, 4), (4, 8), (8, 12)],
        operations: &[(15, &[Start(0, 12), Kill(4)])],
        lost: 1,
    },
    Scenario {
        name: "replaced by two smaller servers",
        servers: &[(0, 4), (4, 12)],
        operations: &[(15, &[Start(4, 7), Start(7, 12), Kill(4)])],
        lost: 1,
    },
    Scenario {
        name: "frozen, then its neighbour is asked to leave",
        servers: &[(0, 6), (0, 6), (6, 12), (6, 12)],
        operations: &[(12, &[Freeze(0)]), (40, &[Terminate(6)])],
        lost: 2,
    },
];

/// Does one thing to the swarm; gives the server that it was done to.
fn operate(swarm: &mut TestSwarm, route: &[HopInfo], operation: Operation) -> Option<PeerId> {
    let block = match operation {
        Start(start, end) => {
            swarm.serve(&[(start, end)], &[]);
            return None;
        }
        Kill(block) | Freeze(block) | Terminate(block) => block,
    };
    let victim = swarm.server(host(route, block));
    match operation {
        Kill(_) => victim.process.kill(),
        Freeze(_) => victim.process.freeze(),
        Terminate(_) | Start(..) => victim.process.terminate(),
    }
    Some(victim.peer)
}

/// Tells the text while the scenario plays; gives the victims too.
async fn play(scenario: &Scenario, sampling: SamplingConfig, config: ClientConfig) -> (Told, Vec<PeerId>) {
    let mut swarm = TestSwarm::demo(scenario.servers);
    let client = Client::with(&swarm, &ModelSpec::Demo, None, config).await;
    let mut victims = Vec::new();
    let meanwhile = async |tokens: usize, route: &[HopInfo]| {
        let due = scenario.operations.iter().filter(|(after, _)| *after == tokens);
        for operation in due.flat_map(|(_, operations)| *operations) {
            victims.extend(operate(&mut swarm, route, *operation));
        }
    };
    let told = client.tell_with(PROMPT, sampling, TOKENS, meanwhile).await;
    let told = told.unwrap_or_else(|error| panic!("{}: {error}", scenario.name));
    (told, victims)
}

fn check(scenario: &Scenario, sampling: &SamplingConfig, told: &Told, victims: &[PeerId]) {
    let expected = Local::demo().text(PROMPT, sampling, TOKENS);
    let name = scenario.name;
    assert_eq!(expected.tokens.len(), TOKENS, "the text is long enough for what is to happen");
    assert_eq!(told.summary.tokens, expected.tokens, "{name}: the ids differ");
    assert_eq!(told.summary.text, expected.text, "{name}: the text differs");
    assert_eq!(victims.len(), scenario.lost, "{name}: something did not happen");
    let mut lost: Vec<PeerId> = told.lost.iter().map(|(peer, _)| *peer).collect();
    for victim in victims {
        let place = lost.iter().position(|peer| peer == victim);
        lost.remove(place.unwrap_or_else(|| panic!("{name}: the loss of {victim} was not told: {:?}", told.lost)));
        assert!(told.summary.route.iter().all(|hop| hop.peer != *victim), "{name}: the route still has {victim}");
    }
    assert!(lost.is_empty(), "{name}: survivors were given up: {:?}", told.lost);
    assert!(told.routes.len() > 1, "{name}: no new route was told");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn greedy_text_survives_every_loss() {
    for scenario in &SCENARIOS {
        let (told, victims) = play(scenario, greedy(), ClientConfig::default()).await;
        check(scenario, &greedy(), &told, &victims);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sampled_text_survives_losses_given_its_seed() {
    for (seed, scenario) in SCENARIOS.iter().enumerate().skip(1).step_by(3) {
        let sampling = SamplingConfig { top_p: None, ..sampled(seed as u64) };
        let expected = Local::demo().text(PROMPT, &sampling, TOKENS);
        assert_ne!(expected.text, Local::demo().text(PROMPT, &greedy(), TOKENS).text);
        let (told, victims) = play(scenario, sampling.clone(), ClientConfig::default()).await;
        check(scenario, &sampling, &told, &victims);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_with_standbys_survives_every_loss() {
    for scenario in &SCENARIOS {
        let config = ClientConfig { standby: true, ..ClientConfig::default() };
        let (told, victims) = play(scenario, greedy(), config).await;
        check(scenario, &greedy(), &told, &victims);
    }
}

/// A prompt of many chunks of prefill.
fn long_prompt() -> String {
    let mut prompt = Local::demo().text(PROMPT, &greedy(), 100).text;
    while Local::demo().encode(&prompt).len() < 1200 {
        prompt = format!("{prompt} {prompt}");
    }
    prompt
}

/// Kills the server of `block` in `route` once it has computed for so many clock ticks: it computes nothing else, so that
/// says how far a prompt has come.
fn kill_at(swarm: &mut TestSwarm, route: &[HopInfo], block: u32, ticks: u64) -> JoinHandle<PeerId> {
    let victim = host(route, block);
    let place = swarm.servers.iter().position(|server| server.peer == victim).unwrap();
    let mut victim = swarm.servers.remove(place);
    let before = victim.process.ticks();
    std::thread::spawn(move || {
        eventually("the victim computes", || (victim.process.ticks() >= before + ticks).then_some(()));
        victim.process.kill();
        victim.peer
    })
}

const MOMENTS: [(u32, u64); 3] = [(0, 1), (11, 1), (11, 12)];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loss_in_the_middle_of_a_long_prompt_changes_nothing() {
    let prompt = long_prompt();
    let expected = Local::demo().text(&prompt, &sampled(3), 40);
    for (block, ticks) in MOMENTS {
        let mut swarm = TestSwarm::demo(&[(0, 6), (0, 6), (6, 12), (6, 12)]);
        let client = Client::of(&swarm).await;
        let mut killer = None;
        let meanwhile = async |tokens: usize, route: &[HopInfo]| {
            if tokens == 0 {
                killer = Some(kill_at(&mut swarm, route, block, ticks));
            }
        };
        let told = client.tell_with(&prompt, sampled(3), 40, meanwhile).await.unwrap();
        let victim = killer.unwrap().join().unwrap();
        let what = format!("the server of block {block} after {ticks} ticks");
        assert_eq!(told.summary.tokens, expected.tokens, "{what}");
        assert_eq!(told.lost.iter().map(|(peer, _)| *peer).collect::<Vec<_>>(), [victim], "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loss_in_the_middle_of_a_long_prompt_changes_no_bit() {
    let local = Local::demo();
    let input = local.embed(&local.encode(&long_prompt()));
    let expected = activations::to_bytes(&local.forward(range(0, 12), &input)).unwrap();
    for (block, ticks) in MOMENTS {
        let mut swarm = TestSwarm::demo(&[(0, 6), (0, 6), (6, 12), (6, 12)]);
        let client = Client::of(&swarm).await;
        let mut session = client.model.session(range(0, 12), input.dims()[0]).await.unwrap();
        let killer = kill_at(&mut swarm, &session.route(), block, ticks);
        let output = session.forward(&input).await.unwrap();
        let victim = killer.join().unwrap();
        let what = format!("the server of block {block} after {ticks} ticks");
        assert!(activations::to_bytes(&output).unwrap() == expected, "{what}: the hidden states differ");
        assert!(session.route().iter().all(|hop| hop.peer != victim), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hidden_states_survive_losses_too() {
    let mut swarm = TestSwarm::demo(&[(0, 6), (6, 12), (0, 6), (6, 12)]);
    let client = Client::of(&swarm).await;
    let local = Local::demo();
    let ids = local.encode(PROMPT);
    let mut session = client.model.session(range(2, 10), 200).await.unwrap();
    let input = local.embed(&ids);
    session.forward(&input.narrow(0, 0, 5).unwrap()).await.unwrap();
    let victim = session.route()[0].peer;
    swarm.server(victim).process.kill();
    session.truncate(3);
    let rest = session.forward(&input.narrow(0, 3, ids.len() - 3).unwrap()).await.unwrap();
    let expected = local.forward(range(2, 10), &input).narrow(0, 3, ids.len() - 3).unwrap();
    assert!(local.logits(&rest) == local.logits(&expected));
    assert_ne!(session.route()[0].peer, victim);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_was_dropped_takes_nothing_from_the_next() {
    let swarm = TestSwarm::demo(&[(0, 6), (6, 12)]);
    let client = Client::of(&swarm).await;
    let local = Local::demo();
    let input = local.embed(&local.encode(PROMPT));
    let mut session = client.model.session(range(0, 12), 200).await.unwrap();
    session.forward(&input.narrow(0, 0, 3).unwrap()).await.unwrap();
    // Its rows are sent, and nobody waits for what comes of them.
    let dropped = session.forward(&input.narrow(0, 3, 2).unwrap()).now_or_never();
    assert!(dropped.is_none() && session.position() == 5, "it did not begin, or was quicker than a swarm can be");
    let rest = session.forward(&input.narrow(0, 5, 4).unwrap()).await.unwrap();
    let expected = local.forward(range(0, 12), &input.narrow(0, 0, 9).unwrap()).narrow(0, 5, 4).unwrap();
    assert!(local.logits(&rest) == local.logits(&expected));
}

#[test]
fn a_server_asked_to_leave_hands_its_sessions_over_and_ends_well() {
    let mut swarm = TestSwarm::demo(&[(0, 6), (6, 12), (6, 12)]);
    let mut generating = swarm.generate(&["--prompt", PROMPT, "--max-tokens", "60"]);
    let route = generating.tokens(5);
    let leaving = swarm.server(route[1].0);
    leaving.process.terminate();
    let told = generating.finish();
    assert_eq!(told.tokens, Local::demo().text(PROMPT, &greedy(), TOKENS).tokens);
    assert_eq!(told.exit.code, Some(0));
    let exit = swarm.server(route[1].0).process.exit();
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    // Whoever comes now is not sent there.
    let after = swarm.generate(&["--prompt", PROMPT, "--max-tokens", "5"]).finish();
    assert_eq!((after.exit.code, after.reroutes.len()), (Some(0), 0), "{}", after.exit.stderr);
    assert!(after.routes[0].iter().all(|hop| hop.0 != route[1].0));
}

#[test]
fn the_command_line_tells_of_a_loss() {
    let mut swarm = TestSwarm::demo(&[(0, 6), (6, 12), (6, 12)]);
    let mut generating = swarm.generate(&["--prompt", PROMPT, "--max-tokens", "200"]);
    let route = generating.tokens(3);
    swarm.server(route[1].0).process.kill();
    let told = generating.finish();
    let expected = Local::demo().text(PROMPT, &greedy(), 200);
    assert_eq!((told.exit.code, &told.text, &told.tokens), (Some(0), &expected.text, &expected.tokens));
    assert_eq!((&told.streamed_text, &told.streamed_tokens), (&told.text, &told.tokens));
    let lost: Vec<_> = told.reroutes.iter().map(|(peer, _)| *peer).collect();
    assert_eq!((lost.as_slice(), told.done["reroutes"].as_u64()), (&[route[1].0][..], Some(1)));
    assert!(!told.reroutes[0].1.is_empty(), "no reason was given");
    assert_eq!(told.routes.len(), 2, "a route at the start and one after the loss");
    assert!(told.routes[1].iter().all(|hop| hop.0 != route[1].0));
    let folder = swarm.folder().to_path_buf();
    assert!(!leftovers(&folder).is_empty(), "the swarm still runs");
    drop(swarm);
    assert!(leftovers(&folder).is_empty(), "a process outlived its swarm");
}
