//! Texts that begin alike: servers compute the beginning once, and nobody can tell from the text.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use swarm_client::{ClientConfig, GenerationConfig, PrefixReuse};
use swarm_model::ModelSpec;
use swarm_protocol::PeerId;
use swarm_tests::harness::{
    Client, DEADLINE, Local, PROMPT, TestSwarm, Told, eventually_async, greedy, host, sampled, tell_in,
};

const TOKENS: usize = 40;

/// Positions of one page.
const PAGE: usize = 64;

/// Tokens after which a standby that was opened at the first one has long caught up.
const TOKENS_BEFORE_THE_KILL: usize = 12;

/// A prompt of some pages, and how it goes on.
fn prompt(end: &str) -> String {
    format!("{} {end}", [PROMPT; 12].join(" "))
}

/// What all texts begin with, in whole pages.
fn shared(local: &Local) -> usize {
    let (one, other) = (local.encode(&prompt("Then a dog")), local.encode(&prompt("One night")));
    one.iter().zip(&other).take_while(|(one, other)| one == other).count() / PAGE * PAGE
}

async fn tell(client: &Client, prompt: &str) -> Told {
    let told = client.tell(prompt, greedy(), TOKENS).await.unwrap();
    assert_eq!(told.summary.text, Local::demo().text(prompt, &greedy(), TOKENS).text, "{prompt:?}");
    told
}

/// Waits until no server has a session any more: what was computed is kept by then.
async fn rest(swarm: &TestSwarm, client: &Client) {
    for server in &swarm.servers {
        eventually_async("every session has been given back", || async {
            let load = client.info(server).await.ok()?.announcement.load;
            (load.sessions == 0 && load.free_tokens == load.total_tokens).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_beginning_that_was_computed_is_not_computed_again() {
    let swarm = TestSwarm::demo(&[(0, 5), (5, 9), (9, 12)]);
    let client = Client::of(&swarm).await;
    let pages = shared(Local::demo());
    assert!(pages >= 2 * PAGE, "{pages}");
    assert_eq!(tell(&client, &prompt("Then a dog")).await.summary.reused_tokens, 0);
    rest(&swarm, &client).await;
    // The same beginning, another end.
    assert_eq!(tell(&client, &prompt("One night")).await.summary.reused_tokens, pages);
    // The same text again, as far as its last token but one; sampled, too.
    let told = client.tell(&prompt("One night"), sampled(3), TOKENS).await.unwrap();
    assert_eq!(told.summary.text, Local::demo().text(&prompt("One night"), &sampled(3), TOKENS).text);
    let again = (Local::demo().encode(&prompt("One night")).len() - 1) / PAGE * PAGE;
    assert_eq!(told.summary.reused_tokens, again);
    // What was generated belongs to the next turn's beginning.
    rest(&swarm, &client).await;
    let turn = prompt("One night") + &told.summary.text;
    assert!(tell(&client, &turn).await.summary.reused_tokens >= again);
    // Another beginning is nobody's.
    let other = format!("Once more. {}", prompt("One night"));
    assert_eq!(tell(&client, &other).await.summary.reused_tokens, 0);
}

/// Which blocks the servers of a swarm have.
const CUT: [(u32, u32); 3] = [(0, 5), (5, 9), (9, 12)];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_server_is_replaced_in_a_text_whose_beginning_was_recalled() {
    let (first, second) = (prompt("Then a dog"), prompt("One night"));
    for block in [0, 5, 9] {
        let mut swarm = TestSwarm::demo(&CUT);
        let client = Client::of(&swarm).await;
        tell(&client, &first).await;
        rest(&swarm, &client).await;
        // Replacements, which have computed nothing of it.
        let known: Vec<PeerId> = swarm.servers.iter().map(|server| server.peer).collect();
        let mut killed = 0;
        let told = client.tell_with(&second, greedy(), TOKENS, async |tokens, route| {
            if tokens == 0 {
                assert!(route.iter().all(|hop| known.contains(&hop.peer)));
                swarm.serve(&CUT, &[]);
            }
            if tokens == 5 {
                swarm.server(host(route, block)).process.kill();
                killed += 1;
            }
        });
        let told = told.await.unwrap();
        assert_eq!(told.summary.text, Local::demo().text(&second, &greedy(), TOKENS).text, "block {block}");
        assert_eq!((killed, told.lost.len()), (1, 1), "block {block}");
        assert!(told.summary.reused_tokens >= 2 * PAGE);
        // The replacement has computed the beginning now, and the others still have it.
        swarm.servers.retain(|server| told.summary.route.iter().any(|hop| hop.peer == server.peer));
        rest(&swarm, &client).await;
        assert!(tell(&client, &second).await.summary.reused_tokens >= 2 * PAGE);
    }
}

/// A standby is asked for pages of the text that is being told, and answers when another one is told in the same session. It
/// holds what the two have in common, and no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_is_late_recalls_no_more_than_what_still_holds() {
    let mut swarm = TestSwarm::demo(&[(0, 12), (0, 12)]);
    let config = || ClientConfig {
        prefixes: PrefixReuse::Shared("secret".to_string()),
        open_timeout: 2 * DEADLINE,
        ..ClientConfig::default()
    };
    let local = Local::demo();
    let [first, second] = [prompt("Then a dog"), format!("{} One night", [PROMPT; 3].join(" "))];
    let [first_ids, second_ids] = [&first, &second].map(|prompt| local.encode(prompt));
    let common = first_ids.iter().zip(&second_ids).take_while(|(one, other)| one == other).count();
    assert!(common / PAGE < first_ids.len() / PAGE, "the standby recalls more than the texts share");
    // Both have computed the first text.
    for frozen in 0..2 {
        let other = Client::with(&swarm, &ModelSpec::Demo, None, config()).await;
        swarm.servers[frozen].process.freeze();
        tell(&other, &first).await;
        swarm.servers[frozen].process.thaw();
        rest(&swarm, &other).await;
    }
    let client = Client::with(&swarm, &ModelSpec::Demo, None, ClientConfig { standby: true, ..config() }).await;
    let room = first_ids.len() + TOKENS;
    let mut session = client.model.text_session_for(&first_ids, room).await.unwrap();
    let serving = host(&session.route(), 0);
    let standby = swarm.servers.iter().position(|server| server.peer != serving).unwrap();
    swarm.servers[standby].process.freeze();
    let config = |most| GenerationConfig { max_tokens: most, sampling: greedy(), ..GenerationConfig::default() };
    tell_in(&mut session, &first_ids, config(3), async |_, _| {}).await.unwrap();
    swarm.servers[standby].process.thaw();
    let told = tell_in(&mut session, &second_ids, config(TOKENS), async |tokens, _| match tokens {
        1 => {
            eventually_async("the standby is open", || async {
                let info = client.info(&swarm.servers[standby]).await.ok()?;
                (info.announcement.load.sessions == 1).then_some(())
            })
            .await;
        }
        TOKENS_BEFORE_THE_KILL => swarm.server(serving).process.kill(),
        _ => {}
    });
    let told = told.await.unwrap();
    assert_eq!(told.lost.len(), 1, "{:?}", told.lost);
    assert_eq!(told.summary.text, local.text(&second, &greedy(), TOKENS).text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_beginning_is_its_owners_unless_a_secret_is_shared() {
    let swarm = TestSwarm::demo(&[(0, 6), (6, 12)]);
    let with = async |prefixes: PrefixReuse| {
        Client::with(&swarm, &ModelSpec::Demo, None, ClientConfig { prefixes, ..ClientConfig::default() }).await
    };
    let reused = async |client: &Client| {
        let told = tell(client, &prompt("Then a dog")).await;
        rest(&swarm, client).await;
        told.summary.reused_tokens > 0
    };
    let shared = |secret: &str| PrefixReuse::Shared(secret.to_string());
    let (alice, bob) = (with(PrefixReuse::Private).await, with(PrefixReuse::Private).await);
    assert_eq!([reused(&alice).await, reused(&bob).await, reused(&alice).await], [false, false, true]);
    let (carol, dave, eve) = (with(shared("one")).await, with(shared("one")).await, with(shared("two")).await);
    assert_eq!([reused(&carol).await, reused(&dave).await, reused(&eve).await], [false, true, false]);
    let none = with(PrefixReuse::Off).await;
    assert_eq!([reused(&none).await, reused(&none).await], [false, false]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_takes_no_room_from_anybody() {
    let local = Local::demo();
    let ends = ["Then a dog", "One night", "Once", "And so", "The end"];
    // Room for one text at a time, and some pages.
    let room = (local.encode(&prompt(ends[0])).len() + TOKENS).next_multiple_of(PAGE) + PAGE;
    let mut swarm = TestSwarm::demo(&[]);
    swarm.serve(&[(0, 6), (6, 12)], &["--cache-tokens", &room.to_string()]);
    let client = Client::of(&swarm).await;
    for end in ends.iter().chain(&ends) {
        tell(&client, &prompt(end)).await;
        rest(&swarm, &client).await;
        let other = format!("{end}. {}", prompt(end));
        tell(&client, &other).await;
        rest(&swarm, &client).await;
    }
    let mut swarm = TestSwarm::demo(&[]);
    swarm.serve(&[(0, 6), (6, 12)], &["--no-prefix-cache"]);
    let client = Client::of(&swarm).await;
    for _ in 0..2 {
        assert_eq!(tell(&client, &prompt(ends[0])).await.summary.reused_tokens, 0);
        rest(&swarm, &client).await;
    }
}
