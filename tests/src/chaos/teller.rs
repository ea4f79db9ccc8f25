//! Clients that tell the same texts again and again while the swarm is in trouble.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use swarm_client::{GenerationConfig, GenerationEvent, SessionError, TextSession};
use swarm_model::{ModelSpec, SamplingConfig};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::client_config;
use super::field::Field;
use swarm_protocol::announcement::Load;

use crate::harness::{Client, DEADLINE, Local, PROMPT, Server, eventually, greedy, sampled};

/// A pause between two tokens: texts last for seconds, so that trouble meets running sessions.
const PACE: Duration = Duration::from_millis(10);

/// Tokens of an answer.
const ANSWER: usize = 220;

/// Tokens of a part of a conversation.
const PART: usize = 80;

/// Tokens of the long prompt, at least: many chunks of prefill.
const LONG: usize = 1200;

/// The longest time for one text: longer than sessions wait for replacements, several times.
const TEXT_DEADLINE: Duration = Duration::from_secs(3 * DEADLINE.as_secs());

/// One text that a session is asked for, and what it must be.
#[derive(Debug, Clone)]
pub struct Turn {
    /// The whole sequence before the answer.
    pub prompt: Vec<u32>,
    /// How tokens are chosen.
    pub sampling: SamplingConfig,
    /// Tokens that are asked for.
    pub most: usize,
    /// Tokens after which the client loses interest.
    pub stop_after: Option<usize>,
    /// The undisturbed answer.
    pub expected: Vec<u32>,
}

/// What one client does, over and over.
#[derive(Debug, Clone)]
pub struct Line {
    /// For reports.
    pub name: &'static str,
    /// Whether it keeps standbys.
    pub standby: bool,
    /// Texts one after the other.
    pub turns: Vec<Turn>,
    /// Whether all of them are told in one session, which lives until the end.
    pub chat: bool,
}

/// What a client has seen.
#[derive(Debug, Clone, Default)]
pub struct Telling {
    /// Whole texts, and parts that it stopped at.
    pub texts: usize,
    /// Why servers were replaced.
    pub reroutes: Vec<String>,
    /// The longest wait for a token.
    pub longest_wait: Duration,
}

impl Line {
    /// Tokens of the longest of its texts.
    fn room(&self) -> usize {
        self.turns.iter().map(|turn| turn.prompt.len() + turn.most).max().unwrap_or_default()
    }
}

impl Turn {
    fn new(prompt: Vec<u32>, sampling: SamplingConfig, most: usize, stop_after: Option<usize>) -> Self {
        let mut expected = Local::demo().answer(&prompt, &sampling, most).tokens;
        expected.truncate(stop_after.unwrap_or(most));
        Self { prompt, sampling, most, stop_after, expected }
    }
}

/// What the clients of a run do.
pub fn lines() -> Vec<Line> {
    let local = Local::demo();
    let short = local.encode(PROMPT);
    let story = local.answer(&short, &greedy(), ANSWER).tokens;
    let mut long = short.clone();
    while long.len() < LONG {
        long.extend(&story);
    }
    let text = |prompt: &[u32], sampling| Turn::new(prompt.to_vec(), sampling, ANSWER, None);
    let sampled_turns = (1..=3).map(|seed| text(&short, sampled(seed))).collect();
    let long_turns = vec![text(&long, greedy()), text(&short[..1], sampled(4))];
    vec![
        Line { name: "greedy", standby: false, turns: vec![text(&short, greedy())], chat: false },
        Line { name: "sampled with standbys", standby: true, turns: sampled_turns, chat: false },
        Line { name: "long", standby: false, turns: long_turns, chat: false },
        Line { name: "chat with standbys", standby: true, turns: conversation(&short), chat: true },
    ]
}

/// A conversation that goes on, goes back, stops in the middle of an answer, and begins again.
fn conversation(opening: &[u32]) -> Vec<Turn> {
    let after =
        |turn: &Turn, words: &str| [&turn.prompt, &turn.expected[..], &Local::demo().encode(words)[1..]].concat();
    let first = Turn::new(opening.to_vec(), greedy(), PART, None);
    let second = Turn::new(after(&first, " The next day, Tom said:"), sampled(7), 2 * PART, None);
    let broken_off = Turn::new(after(&second, " But then"), greedy(), 2 * PART, Some(PART / 2));
    let corrected = Turn::new(after(&broken_off, " And so"), greedy(), PART, None);
    // The answer is asked for again: as it was, and then a part of it with other words behind.
    let other = Turn::new(after(&first, " One night, a bird came."), sampled(9), PART, None);
    vec![first, second, broken_off, corrected, other]
}

/// All clients of a run.
pub(super) struct Crowd {
    /// Its threads are on the clients' host.
    runtime: Runtime,
    /// Looks at servers and tells nothing.
    watcher: Arc<Client>,
    tellers: Vec<JoinHandle<Telling>>,
    enough: Arc<AtomicBool>,
}

impl Crowd {
    /// Lets each of `lines` begin.
    pub(super) fn gather(field: &Field, lines: Arc<Vec<Line>>) -> Self {
        let runtime = field.runtime_of_clients();
        let enough = Arc::new(AtomicBool::new(false));
        let client = |standby| {
            let joining = field.entry();
            let joined = runtime
                .spawn(async move { Client::through(joining, &ModelSpec::Demo, None, client_config(standby)).await });
            runtime.block_on(joined).expect("a client")
        };
        let watcher = Arc::new(client(false));
        let clients: Vec<Client> = lines.iter().map(|line| client(line.standby)).collect();
        let tellers = clients.into_iter().enumerate().map(|(number, client)| {
            let (lines, enough) = (lines.clone(), enough.clone());
            runtime.spawn(async move { keep_telling(client, &lines[number], &enough).await })
        });
        let tellers = tellers.collect();
        Self { watcher, tellers, enough, runtime }
    }

    /// Whether all of them still tell: one that has ended has failed.
    pub(super) fn is_telling(&self) -> bool {
        !self.tellers.iter().any(JoinHandle::is_finished)
    }

    /// Lets each client end the text that it tells, and go; gives what they have seen.
    ///
    /// # Panics
    /// If a client has failed; its own panic has said why.
    pub(super) fn hush(&mut self) -> Vec<Telling> {
        self.enough.store(true, Ordering::Relaxed);
        let tellers = std::mem::take(&mut self.tellers);
        tellers.into_iter().map(|teller| self.runtime.block_on(teller).expect("a client's texts")).collect()
    }
}

impl Crowd {
    /// What `server` says of its load; `None` if it does not answer.
    pub(super) fn load(&self, server: &Server) -> Option<Load> {
        let (watcher, peer, address) = (self.watcher.clone(), server.peer, server.address.clone());
        let asked = self.runtime.spawn(async move { watcher.info_of(peer, &address).await });
        self.runtime.block_on(asked).expect("an answer or none").ok().map(|info| info.announcement.load)
    }

    /// The clients go; nothing of them may stay.
    pub(super) fn go(self) {
        let Self { runtime, watcher, tellers, .. } = self;
        drop((watcher, tellers));
        eventually("all tasks of the clients end", || (runtime.metrics().num_alive_tasks() == 0).then_some(()));
    }
}

async fn keep_telling(client: Client, line: &Line, enough: &AtomicBool) -> Telling {
    let mut telling = Telling::default();
    let mut session = None;
    for turn in line.turns.iter().cycle() {
        if enough.load(Ordering::Relaxed) {
            break;
        }
        let capacity = if line.chat { line.room() } else { turn.prompt.len() + turn.most };
        let telling_one = async {
            let mut running = match session.take() {
                Some(session) => session,
                None => client.model.text_session_for(&turn.prompt, capacity).await?,
            };
            let told = tell_turn(&mut running, turn, &mut telling).await;
            session = line.chat.then_some(running);
            told
        };
        let told = tokio::time::timeout(TEXT_DEADLINE, telling_one).await;
        let what = format!("\"{}\", text {}, after {:?}", line.name, telling.texts, telling.reroutes);
        let told: Result<Vec<u32>, SessionError> = told.unwrap_or_else(|_| panic!("{what}: it does not end"));
        let told = told.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(told, turn.expected, "{what}: the text differs");
        telling.texts += 1;
    }
    telling
}

/// One answer, or as much of it as is wanted.
async fn tell_turn(session: &mut TextSession, turn: &Turn, telling: &mut Telling) -> Result<Vec<u32>, SessionError> {
    let config = GenerationConfig { max_tokens: turn.most, sampling: turn.sampling.clone(), ..Default::default() };
    let mut generation = session.generate(&turn.prompt, config)?;
    let (mut tokens, mut since) = (Vec::new(), Instant::now());
    while let Some(event) = generation.next().await? {
        match event {
            GenerationEvent::Token { id, .. } => {
                tokens.push(id);
                telling.longest_wait = telling.longest_wait.max(since.elapsed());
                if turn.stop_after == Some(tokens.len()) {
                    break;
                }
                tokio::time::sleep(PACE).await;
                since = Instant::now();
            }
            GenerationEvent::Reroute { lost, reason, .. } => telling.reroutes.push(format!("{lost}: {reason}")),
            GenerationEvent::Done(summary) => assert_eq!(summary.tokens, tokens, "stream and end tell different ids"),
            GenerationEvent::Route { .. } | GenerationEvent::Trace(_) => {}
        }
    }
    Ok(tokens)
}
