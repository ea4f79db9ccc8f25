//! What the HTTP API adds to the client library: a token, and a first token, each way by turns on the same swarm.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};
use swarm_client::{GenerationConfig, GenerationEvent, Model};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::goal::Goal;
use crate::local_swarm::LocalSwarm;
use crate::machine::Machine;
use crate::process::Process;
use crate::report::{Report, Tables};
use crate::stats::{Summary, milliseconds};
use crate::table::Table;
use crate::workload::even_ranges;

/// Milliseconds that HTTP may add to a token.
const GOAL_MS: f64 = 1.0;

/// The bundled model: its tokens are cheap, so that what is added to them shows.
const MODEL: &str = "demo";

/// Its blocks.
const BLOCKS: u32 = 12;

/// What is continued.
const PROMPT: &str = "Once upon a time, there was a brave fox named Luna.";

/// How much is measured.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct Settings {
    /// Servers, with even ranges of the blocks.
    #[arg(long, default_value_t = 2)]
    servers: u32,
    /// Tokens of each text.
    #[arg(long, default_value_t = 100)]
    tokens: usize,
    /// Texts each way, by turns.
    #[arg(long, default_value_t = 24)]
    rounds: usize,
}

/// Milliseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Results {
    /// A token after the first, through the client library.
    library_token: Summary,
    /// The same through HTTP, as its reader sees it.
    http_token: Summary,
    /// The difference, round by round.
    added_token: Summary,
    /// The first token, from the call.
    library_first: Summary,
    /// The same from connecting.
    http_first: Summary,
    /// The difference, round by round.
    added_first: Summary,
}

/// A text and when its pieces came.
struct Told {
    text: String,
    began: Instant,
    times: Vec<Instant>,
}

impl Told {
    fn first(&self) -> f64 {
        self.times.first().map_or(0.0, |first| milliseconds(first.duration_since(self.began)))
    }

    fn token(&self) -> f64 {
        let took = self.times.first().zip(self.times.last()).map(|(first, last)| last.duration_since(*first));
        took.map_or(0.0, |took| milliseconds(took) / self.times.len().saturating_sub(1).max(1) as f64)
    }
}

/// Measures.
///
/// # Errors
/// If a process does not start, or two texts differ.
pub(crate) async fn run(settings: Settings) -> Result<Report<Settings, Results>> {
    let machine = Machine::here();
    let mut swarm = LocalSwarm::start().await?;
    for blocks in even_ranges(BLOCKS, settings.servers)? {
        swarm.serve(Path::new(MODEL), blocks, 1).await?;
    }
    let client = swarm.join().await?;
    let model = client.open_model(&MODEL.parse()?, None).await?;
    let mut arguments = vec!["api", "--model", MODEL, "--http", "127.0.0.1:0", "--json"];
    arguments.extend(swarm.join_arguments());
    let mut api = Process::spawn("the API", swarm.program(), &arguments)?;
    let listening = api.event_of(&["listening"]).await?;
    let address = listening["address"].as_str().and_then(|address| address.strip_prefix("http://"));
    let address = address.context("the API does not say where it listens")?.to_string();
    let (mut library, mut http) = (Vec::new(), Vec::new());
    // The first warms up and is left out.
    for round in 0..=settings.rounds {
        let told = (through_library(&model, settings.tokens).await?, through_http(&address, settings.tokens).await?);
        ensure!(told.0.text == told.1.text, "the two ways give different texts");
        if round > 0 {
            library.push(told.0);
            http.push(told.1);
        }
    }
    api.kill().await?;
    client.leave().await;
    swarm.kill().await?;
    let results = Results::of(&library, &http);
    let goals = vec![Goal::new("HTTP adds to a token", "ms", GOAL_MS, results.added_token.median)];
    Ok(Report { benchmark: "api", machine, settings, results, goals })
}

async fn through_library(model: &Model, tokens: usize) -> Result<Told> {
    let began = Instant::now();
    let ids = model.encode(PROMPT)?;
    let mut session = model.text_session_for(&ids, ids.len() + tokens).await?;
    let config = GenerationConfig { max_tokens: tokens, ..GenerationConfig::default() };
    let mut generation = session.generate(&ids, config)?;
    let mut times = Vec::new();
    loop {
        match generation.next().await?.context("the text has no end")? {
            GenerationEvent::Token { text, .. } if !text.is_empty() => times.push(Instant::now()),
            GenerationEvent::Done(summary) => return Ok(Told { text: summary.text, began, times }),
            _ => {}
        }
    }
}

/// A connection for each text, as a tool without a pool has.
async fn through_http(address: &str, tokens: usize) -> Result<Told> {
    let body = json!({"prompt": PROMPT, "max_tokens": tokens, "temperature": 0, "stream": true}).to_string();
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    let began = Instant::now();
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    stream.write_all(format!("{head}{body}").as_bytes()).await?;
    let mut lines = BufReader::new(stream).lines();
    let (mut text, mut times) = (String::new(), Vec::new());
    // Sizes of chunks are lines of their own, which no event is.
    while let Some(line) = lines.next_line().await? {
        let Some(data) = line.strip_prefix("data: ") else { continue };
        if data == "[DONE]" {
            return Ok(Told { text, began, times });
        }
        let chunk: Value = serde_json::from_str(data)?;
        let piece = chunk["choices"][0]["text"].as_str().with_context(|| format!("the API says {data}"))?;
        if !piece.is_empty() {
            times.push(Instant::now());
            text.push_str(piece);
        }
    }
    anyhow::bail!("the stream broke off after {text:?}")
}

impl Results {
    fn of(library: &[Told], http: &[Told]) -> Self {
        let all = |told: &[Told], part: fn(&Told) -> f64| Summary::of(told.iter().map(part));
        let added =
            |part: fn(&Told) -> f64| Summary::of(library.iter().zip(http).map(|(one, other)| part(other) - part(one)));
        Self {
            library_token: all(library, Told::token),
            http_token: all(http, Told::token),
            added_token: added(Told::token),
            library_first: all(library, Told::first),
            http_first: all(http, Told::first),
            added_first: added(Told::first),
        }
    }
}

impl Tables for Results {
    fn tables(&self) -> Vec<Table> {
        let row = |name: &str, library: Summary, http: Summary, added: Summary| {
            vec![name.to_string(), format!("{library:.3}"), format!("{http:.3}"), format!("{added:.3}")]
        };
        vec![Table {
            title: "Milliseconds, median (quartiles): the bundled model".to_string(),
            header: vec!["", "client library", "HTTP", "added"],
            rows: vec![
                row("a token after the first", self.library_token, self.http_token, self.added_token),
                row("the first token", self.library_first, self.http_first, self.added_first),
            ],
        }]
    }
}
