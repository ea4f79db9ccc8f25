//! Many at once: everybody is answered, nobody stalls, and memory stays what it is.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use swarm_tests::harness::{Api, DEADLINE};

use super::*;

/// Callers at once.
const CALLERS: usize = 64;

/// The longest that a stream may stay silent where that is looked at: on a machine that does nothing else.
const STALL: Duration = Duration::from_secs(5);

/// What memory may grow by between the middle and the end: buffers of the allocator, nothing that adds up.
const GROWTH: u64 = 32 << 20;

/// Streams texts for `time`, from as many callers at once; gives how many.
fn crowd(api: &Api, time: Duration, stall: Duration) -> u64 {
    let (start, texts) = (Instant::now(), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for caller in 0..CALLERS {
            let (api, texts) = (&api.http, &texts);
            scope.spawn(move || {
                let mut round = 0;
                while start.elapsed() < time || round == 0 {
                    let request = json!({
                        "prompt": format!("{PROMPT} {caller}"), "max_tokens": 24, "temperature": 0.8, "seed": caller, "stream": true,
                    });
                    let mut stream = api.stream("/v1/completions", &request);
                    assert_eq!(stream.status, 200);
                    let mut last = Instant::now();
                    while let Some(chunk) = stream.chunk() {
                        assert!(chunk.get("error").is_none(), "{chunk}");
                        assert!(last.elapsed() < stall, "caller {caller} waited {:?}", last.elapsed());
                        last = Instant::now();
                    }
                    texts.fetch_add(1, Ordering::Relaxed);
                    round += 1;
                }
            });
        }
    });
    texts.into_inner()
}

fn everybody_is_served(time: Duration, stall: Duration) {
    let swarm = swarm();
    let api = Api::start(&swarm, &[]);
    let half = crowd(&api, time / 2, stall);
    let memory = api.process.anonymous_memory();
    let files = api.process.files();
    let texts = half + crowd(&api, time / 2, stall);
    assert!(texts >= 2 * CALLERS as u64, "{texts} texts");
    let after = api.process.anonymous_memory();
    assert!(after < memory + GROWTH, "{memory} bytes became {after} over {texts} texts");
    assert!(api.process.files() <= files + CALLERS, "connections are closed");
}

#[test]
fn a_crowd_is_served() {
    everybody_is_served(Duration::from_secs(6), DEADLINE);
}

#[test]
#[ignore = "takes a minute; .ci/run runs it"]
fn a_crowd_is_served_for_a_minute() {
    everybody_is_served(Duration::from_secs(60), STALL);
}

#[test]
fn a_crowd_beyond_the_limits_is_answered_one_way_or_the_other() {
    let swarm = swarm();
    let api = Api::start(&swarm, &["--max-requests", "4", "--max-queue", "8"]);
    let (served, refused) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| {
                let answer = api.http.post("/v1/completions", &completion());
                match answer.status {
                    200 => {
                        assert_eq!(answer.json()["choices"][0]["text"], expected(TOKENS));
                        served.fetch_add(1, Ordering::Relaxed);
                    }
                    429 => {
                        assert!(answer.header("retry-after").is_some());
                        refused.fetch_add(1, Ordering::Relaxed);
                    }
                    other => panic!("{other}"),
                };
            });
        }
    });
    assert_eq!(served.load(Ordering::Relaxed) + refused.load(Ordering::Relaxed), CALLERS as u64);
    assert!(served.load(Ordering::Relaxed) >= 12 && refused.load(Ordering::Relaxed) > 0);
}
