//! Rows that are rounded on their way: the text is another one, and stays that one whoever dies.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use swarm_client::{ClientConfig, HopInfo, Wire};
use swarm_model::ModelSpec;
use swarm_protocol::block::BlockRange;
use swarm_protocol::wire::LinkFormat;
use swarm_tests::harness::{Client, Local, PROMPT, TestSwarm, Text, Told, eventually_async, host, range, sampled};

/// Tokens of each text.
const TOKENS: usize = 40;

/// Bytes of one of the demo model's rows: 128 elements of bf16, or in four cells.
const EXACT: u32 = 256;
const INT8: u32 = 136;

/// A seed with which the cuts below give another text than exact rows do.
const SEED: u64 = 3;

/// Which blocks the servers of a swarm have.
const CUTS: [(u32, u32); 3] = [(0, 4), (4, 8), (8, 12)];

fn parts(cuts: &[(u32, u32)]) -> Vec<BlockRange> {
    cuts.iter().map(|(start, end)| range(*start, *end)).collect()
}

/// What a text must be that is rounded at the ends of these blocks.
fn expected(prompt: &str, cuts: &[(u32, u32)]) -> Text {
    let local = Local::demo();
    local.answer_over(&parts(cuts), LinkFormat::Int8, &local.encode(prompt), &sampled(SEED), TOKENS)
}

async fn client(swarm: &TestSwarm, config: ClientConfig) -> Client {
    Client::with(swarm, &ModelSpec::Demo, None, ClientConfig { wire: Wire::Int8, ..config }).await
}

fn bytes(route: &[HopInfo]) -> Vec<(u32, u32)> {
    route.iter().map(|hop| (hop.bytes_in, hop.bytes_out)).collect()
}

fn check(told: &Told, prompt: &str, what: &str) {
    // The first route decides. With replicas it may be one of more hops, on a busy machine.
    let cuts: Vec<(u32, u32)> = told.routes[0].iter().map(|hop| (hop.blocks.start(), hop.blocks.end())).collect();
    let expected = expected(prompt, &cuts);
    assert_eq!(told.summary.tokens, expected.tokens, "{what}");
    assert_eq!(told.summary.text, expected.text, "{what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rounded_text_is_a_function_of_its_cuts() {
    let swarm = TestSwarm::demo(&CUTS);
    let rounding = client(&swarm, ClientConfig::default()).await;
    let told = rounding.tell(PROMPT, sampled(SEED), TOKENS).await.unwrap();
    check(&told, PROMPT, "three servers");
    assert_eq!(bytes(&told.summary.route), [(INT8, INT8); 3]);
    // Other cuts give another text, and so do exact rows: otherwise these tests would prove nothing.
    let exact = Local::demo().text(PROMPT, &sampled(SEED), TOKENS);
    assert_ne!(told.summary.tokens, exact.tokens, "choose another seed");
    assert_ne!(told.summary.tokens, expected(PROMPT, &[(0, 12)]).tokens, "choose another seed");
    // Whoever has not allowed it gets the exact text, from the same servers.
    for wire in [Wire::Auto, Wire::Exact] {
        let config = ClientConfig { wire, ..ClientConfig::default() };
        let exactly = Client::with(&swarm, &ModelSpec::Demo, None, config).await;
        let told = exactly.tell(PROMPT, sampled(SEED), TOKENS).await.unwrap();
        assert_eq!(told.summary.tokens, exact.tokens);
        let route = bytes(&told.summary.route);
        // On a busy machine a link may be slow enough to be packed.
        let as_they_are = wire == Wire::Exact;
        let fits = |bytes: u32| if as_they_are { bytes == EXACT } else { bytes <= EXACT };
        assert!(route.len() == 3 && route.iter().all(|hop| fits(hop.0) && fits(hop.1)), "{wire:?} {route:?}");
    }
}

/// What happens to the swarm.
#[derive(Debug, Clone, Copy)]
enum Operation {
    /// The server of this block is killed.
    Kill(u32),
    /// It is asked to leave.
    Leave(u32),
    /// A server of these blocks joins.
    Start(u32, u32),
}
use Operation::{Kill, Leave, Start};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_stands_in_gets_the_rows_that_were_rounded_before() {
    // What happens after ten tokens, and the bytes on the links of each hop from then on.
    let exact = |bytes: u32| (bytes, EXACT);
    type Scenario<'a> = (&'a str, &'a [Operation], Vec<(u32, u32)>);
    let scenarios: [Scenario; 6] = [
        ("the first hop", &[Start(0, 4), Kill(0)], vec![(INT8, INT8); 3]),
        ("the last hop", &[Start(8, 12), Kill(8)], vec![(INT8, INT8); 3]),
        ("two servers for one: no row is rounded between them", &[Start(4, 6), Start(6, 8), Kill(4)], {
            vec![(INT8, INT8), exact(INT8), (EXACT, INT8), (INT8, INT8)]
        }),
        ("one server for two: rows are rounded within it", &[Start(4, 12), Kill(4), Kill(8)], vec![(INT8, INT8); 3]),
        ("one server for all", &[Start(0, 12), Kill(0), Kill(4), Kill(8)], vec![(INT8, INT8); 3]),
        ("keys and values are handed over to another one", &[Leave(4)], vec![(INT8, INT8); 3]),
    ];
    for (name, operations, links) in scenarios {
        let mut swarm = TestSwarm::demo(&CUTS);
        if matches!(operations, [Leave(_)]) {
            // A server that leaves is replaced by one that is known already.
            swarm.serve(&[(4, 8)], &[]);
        }
        let client = client(&swarm, ClientConfig::default()).await;
        let told = client.tell_with(PROMPT, sampled(SEED), TOKENS, async |tokens, route| {
            for operation in operations.iter().filter(|_| tokens == 10) {
                match *operation {
                    Start(start, end) => drop(swarm.serve(&[(start, end)], &[]).len()),
                    Kill(block) => swarm.server(host(route, block)).process.kill(),
                    Leave(block) => swarm.server(host(route, block)).process.terminate(),
                }
            }
        });
        let told = told.await.unwrap_or_else(|error| panic!("{name}: {error}"));
        check(&told, PROMPT, name);
        assert!(!told.lost.is_empty(), "{name}");
        assert_eq!(bytes(&told.summary.route), links, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_computes_with_the_same_rows() {
    for block in [0, 4, 8] {
        let mut swarm = TestSwarm::demo(&[CUTS, CUTS].concat());
        let client = client(&swarm, ClientConfig { standby: true, ..ClientConfig::default() }).await;
        let told = client.tell_with(PROMPT, sampled(SEED), TOKENS, async |tokens, route| {
            if tokens == 20 {
                swarm.server(host(route, block)).process.kill();
            }
        });
        check(&told.await.unwrap(), PROMPT, "a standby");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_rounded_rows_are_not_those_of_exact_ones() {
    let prompt = [PROMPT; 12].join(" ");
    let mut swarm = TestSwarm::demo(&CUTS);
    // The same owner with every format: pages are found under its id.
    let identity = swarm.new_identity();
    let tell = async |swarm: &TestSwarm, wire: &str| {
        let options =
            ["--prompt", &prompt, "--max-tokens", "40", "--temperature", "0.9", "--top-k", "50", "--top-p", "0.95"];
        let mut command = swarm.node("generate");
        command.args(["--model", "demo", "--json", "--wire", wire, "--identity"]).arg(&identity).args(options);
        command.args(["--seed", &SEED.to_string()]);
        let exit = swarm.run("generate", command);
        let done = exit.stdout.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let done = done.max_by_key(|line| line["event"] == "done").expect("the end of a text");
        let observer = Client::of(swarm).await;
        for server in &swarm.servers {
            eventually_async("every session has been given back", || async {
                let load = observer.info(server).await.ok()?.announcement.load;
                (load.sessions == 0).then_some(())
            })
            .await;
        }
        (done["reused_tokens"].as_u64().unwrap(), done["text"].as_str().unwrap().to_string())
    };
    let exact = Local::demo().text(&prompt, &sampled(SEED), TOKENS).text;
    let rounded = expected(&prompt, &CUTS).text;
    assert_eq!(tell(&swarm, "exact").await, (0, exact.clone()));
    assert_eq!(tell(&swarm, "int8").await, (0, rounded.clone()), "what is exact is of no use");
    let (reused, text) = tell(&swarm, "int8").await;
    assert_eq!((reused > 0, text), (true, rounded), "what was rounded at the same cuts is");
    let (reused, text) = tell(&swarm, "auto").await;
    assert_eq!((reused > 0, text), (true, exact));
}
