//! Whoever goes away, callers or servers: nothing is held, and nothing is lost.

use serde_json::json;
use swarm_tests::harness::{Api, Client, eventually_async};

use super::*;

/// Waits until every server is as free as can be.
async fn rest(swarm: &TestSwarm, client: &Client) {
    for server in &swarm.servers {
        eventually_async("every session has been given back", || async {
            let load = client.info(server).await.ok()?.announcement.load;
            (load.sessions == 0 && load.free_tokens == load.total_tokens).then_some(())
        })
        .await;
    }
}

/// Waits until a server has a session.
async fn busy(swarm: &TestSwarm, client: &Client) {
    eventually_async("a session is open", || async {
        let load = client.info(&swarm.servers[0]).await.ok()?.announcement.load;
        (load.sessions > 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_room_of_a_caller_who_hangs_up_comes_back() {
    let swarm = swarm();
    let api = Api::start(&swarm, &[]);
    let client = Client::of(&swarm).await;
    // Far more than comes before the deadline.
    let long = json!({"prompt": vec![PROMPT; 64], "n": 16, "max_tokens": 1900, "temperature": 0});
    // In a stream, and waiting for the whole answer.
    let mut stream = api.http.stream("/v1/completions", &with(long.clone(), "stream", json!(true)));
    stream.chunk().expect("a token");
    busy(&swarm, &client).await;
    drop(stream);
    rest(&swarm, &client).await;
    let mut whole = api.http.connect();
    let body = long.to_string();
    let head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json";
    std::io::Write::write_all(&mut whole, format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).as_bytes())
        .unwrap();
    busy(&swarm, &client).await;
    drop(whole);
    rest(&swarm, &client).await;
}

#[test]
fn a_server_that_dies_in_the_middle_changes_nothing_but_the_route() {
    let mut swarm = TestSwarm::demo(&[(0, 6), (6, 12), (6, 12)]);
    let api = Api::start(&swarm, &[]);
    let request = with(with(completion(), "max_tokens", json!(200)), "stream", json!(true));
    let mut stream = api.http.stream("/v1/completions", &request);
    let mut chunks: Vec<Value> = (0..10).map(|_| stream.chunk().expect("more text")).collect();
    // Which of the two serves is known at the end only: the other one is started again.
    swarm.servers[1].process.kill();
    chunks.extend((0..10).map(|_| stream.chunk().expect("more text")));
    swarm.serve(&[(6, 12)], &[]);
    swarm.servers[2].process.kill();
    chunks.extend(stream.rest());
    assert_eq!(completion_text(&chunks), expected(200));
    let facts = &chunks.last().unwrap()["swarm"];
    assert!((1..=2).contains(&facts["reroutes"].as_u64().unwrap()), "{facts}");
}
