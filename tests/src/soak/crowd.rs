//! Who uses the swarm: clients that stay, guests, and processes.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use swarm_client::{ClientConfig, GenerationConfig, GenerationEvent, RouteEvent, SessionError, TextSession};
use swarm_model::{ModelSpec, Tensor, activations};
use swarm_protocol::announcement::Load;
use swarm_protocol::block::BlockRange;
use swarm_protocol::p2p::BootstrapPeer;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use super::house::House;
use super::plan::{CLIENTS, Ending, Kind, Plan, Script, Text};
use super::stories::Stories;
use crate::harness::{Client, DEADLINE, Local, PROMPT, Server, eventually};

/// Clients that stay through all rounds; the others of a plan come anew, know nothing, and use every server.
const STAYING: usize = CLIENTS / 2;

/// Threads of all clients together.
const THREADS: usize = 2;

/// How long a session looks for its first servers: some of those it knows may just have died.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// The longest time for one session: longer than it may wait for replacements, several times.
const SESSION_DEADLINE: Duration = Duration::from_secs(3 * DEADLINE.as_secs());

/// Tokens that a process asks for: more than it lives to see.
const PROCESS_TOKENS: &str = "1500";

/// How far a crowd has come.
#[derive(Debug, Default)]
pub(super) struct Progress {
    tokens: AtomicUsize,
    reroutes: AtomicUsize,
}

impl Progress {
    pub(super) fn has_come_to(&self, tokens: usize) -> bool {
        self.tokens.load(Ordering::Relaxed) >= tokens
    }
}

/// What a crowd has seen.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen {
    /// Texts that were told to where they were wanted.
    pub(super) texts: usize,
    /// Sessions that were left in the middle of a step.
    pub(super) left: usize,
    /// Servers that were replaced.
    pub(super) reroutes: usize,
}

/// A crowd that is here.
pub(super) struct Visit {
    sessions: Vec<JoinHandle<Seen>>,
    progress: Arc<Progress>,
}

impl Visit {
    pub(super) fn progress(&self) -> &Progress {
        &self.progress
    }
}

/// All clients of a run.
pub(super) struct Crowd {
    runtime: Runtime,
    /// Looks at servers, and has no session.
    watcher: Arc<Client>,
    /// Those that stay; they learn whom to avoid.
    clients: Vec<Arc<Client>>,
    stories: Arc<Stories>,
}

async fn client(entry: BootstrapPeer) -> Client {
    let config = ClientConfig { start_patience: START_PATIENCE, ..ClientConfig::default() };
    Client::through(entry, &ModelSpec::Demo, None, config).await
}

impl Crowd {
    /// The clients that stay.
    pub(super) fn gather(house: &House, stories: Arc<Stories>) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(THREADS).enable_all().build().expect("a runtime");
        let join = || Arc::new(runtime.block_on(client(house.entry())));
        let (watcher, clients) = (join(), (0..STAYING).map(|_| join()).collect());
        Self { watcher, clients, stories, runtime }
    }

    /// Lets all sessions of `plan` begin.
    pub(super) fn visit(&self, house: &House, plan: &Plan) -> Visit {
        let progress = Arc::new(Progress::default());
        let mut clients = self.clients.clone();
        clients.resize_with(CLIENTS, || Arc::new(self.runtime.block_on(client(house.entry()))));
        let session = |script: &Script| {
            if let (Kind::Process, Ending::Left(after)) = (script.kind, script.ending) {
                let mut process = house.generate(&["--prompt", PROMPT, "--max-tokens", PROCESS_TOKENS]);
                return self.runtime.spawn_blocking(move || {
                    process.tokens(after.max(1));
                    process.process.kill();
                    Seen { left: 1, ..Seen::default() }
                });
            }
            let member = Member {
                client: clients[script.client].clone(),
                entry: house.entry(),
                script: script.clone(),
                stories: self.stories.clone(),
                progress: progress.clone(),
            };
            self.runtime.spawn(member.visit())
        };
        Visit { sessions: plan.scripts.iter().map(session).collect(), progress }
    }

    /// Waits for all of them.
    ///
    /// # Panics
    /// If a session has failed; its own panic has said why.
    pub(super) fn await_end(&self, visit: Visit) -> Seen {
        let ended = visit.sessions.into_iter().map(|session| self.runtime.block_on(session).expect("a session"));
        let add = |all: Seen, one: Seen| Seen { texts: all.texts + one.texts, left: all.left + one.left, ..all };
        let seen = ended.fold(Seen::default(), add);
        Seen { reroutes: visit.progress.reroutes.load(Ordering::Relaxed), ..seen }
    }

    /// What `server` says of its load; `None` if it does not answer.
    pub(super) fn load(&self, server: &Server) -> Option<Load> {
        self.runtime.block_on(self.watcher.info(server)).ok().map(|info| info.announcement.load)
    }

    /// The clients go; nothing of them may stay.
    pub(super) fn go(self) {
        let Self { runtime, watcher, clients, .. } = self;
        drop((watcher, clients));
        eventually("all tasks of the clients end", || (runtime.metrics().num_alive_tasks() == 0).then_some(()));
    }
}

/// Who carries out one script.
struct Member {
    client: Arc<Client>,
    entry: BootstrapPeer,
    script: Script,
    stories: Arc<Stories>,
    progress: Arc<Progress>,
}

impl Member {
    async fn visit(mut self) -> Seen {
        if self.script.kind == Kind::Guest {
            self.client = Arc::new(client(self.entry.clone()).await);
        }
        let carrying_out = async {
            match self.script.kind {
                Kind::Rows => self.feed_rows().await,
                _ => self.tell().await,
            }
        };
        let done = tokio::time::timeout(SESSION_DEADLINE, carrying_out).await;
        let seen = done.unwrap_or_else(|_| panic!("a session does not end: {:?}", self.script));
        seen.unwrap_or_else(|error| panic!("a session failed: {error}: {:?}", self.script))
    }

    async fn tell(&self) -> Result<Seen, SessionError> {
        let mut session = self.client.model.text_session(self.script.room).await?;
        let mut seen = Seen::default();
        for (number, text) in self.script.texts.iter().enumerate() {
            let last = number + 1 == self.script.texts.len();
            let left = match self.script.ending {
                Ending::Left(after) if last => Some(after),
                _ => None,
            };
            self.tell_one(&mut session, text, left).await?;
            seen.texts += usize::from(left.is_none());
            seen.left += usize::from(left.is_some());
        }
        Ok(seen)
    }

    /// One answer, as far as it is wanted; if it is `left` after so many tokens, the next step has begun.
    async fn tell_one(&self, session: &mut TextSession, text: &Text, left: Option<usize>) -> Result<(), SessionError> {
        let story = &self.stories.all[text.story];
        let config = GenerationConfig { max_tokens: text.most, sampling: story.sampling.clone(), ..Default::default() };
        let mut generation = session.generate(&story.until(text.told), config)?;
        let (expected, mut tokens) = (text.expected(story), Vec::new());
        loop {
            if left == Some(tokens.len()) {
                assert_eq!(tokens, expected[..tokens.len()], "the text differs: {text:?}");
                // Dropped as soon as it waits for the servers.
                let _ = futures::poll!(pin!(generation.next()));
                return Ok(());
            }
            if text.stop_after == Some(tokens.len()) {
                break;
            }
            match generation.next().await? {
                Some(GenerationEvent::Token { id, .. }) => {
                    tokens.push(id);
                    self.progress.tokens.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(self.script.pace)).await;
                }
                Some(GenerationEvent::Reroute { .. }) => self.rerouted(),
                Some(GenerationEvent::Done(summary)) => assert_eq!(summary.tokens, tokens, "the end differs"),
                Some(_) => {}
                None => break,
            }
        }
        assert_eq!(tokens, expected, "the text differs: {text:?}");
        Ok(())
    }

    fn rerouted(&self) {
        self.progress.reroutes.fetch_add(1, Ordering::Relaxed);
    }

    async fn feed_rows(&self) -> Result<Seen, SessionError> {
        let Script { blocks, room, .. } = self.script;
        let mut session = self.client.model.session(blocks, room).await?;
        let mut held: Vec<u32> = Vec::new();
        for piece in &self.script.pieces {
            if piece.position < session.position() {
                session.truncate(piece.position);
                held.truncate(piece.position);
            }
            let ids = self.stories.ids.iter().cycle().skip(piece.first_id + piece.position);
            let ids: Vec<u32> = ids.take(piece.rows).copied().collect();
            let output = session.forward(&self.client.model.embed(&ids).await?).await?;
            held.extend(ids);
            let expected = undisturbed(blocks, held.clone(), piece.position).await;
            assert_eq!(bytes(&output), expected, "the rows differ: {:?}", self.script);
            while let Some(event) = session.next_route_event() {
                if matches!(event, RouteEvent::Rerouted { .. }) {
                    self.rerouted();
                }
            }
        }
        Ok(Seen::default())
    }
}

/// What `blocks` make of `ids`, from `position` on.
async fn undisturbed(blocks: BlockRange, ids: Vec<u32>, position: usize) -> Vec<u8> {
    let compute = move || {
        let local = Local::demo();
        let output = local.forward(blocks, &local.embed(&ids));
        bytes(&output.narrow(0, position, ids.len() - position).expect("its last rows"))
    };
    tokio::task::spawn_blocking(compute).await.expect("rows computed here")
}

fn bytes(rows: &Tensor) -> Vec<u8> {
    activations::to_bytes(rows).expect("bytes")
}
