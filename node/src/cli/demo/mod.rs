//! `swarm-node demo`: a whole swarm on this machine, and what happens when one of its servers dies.

mod process;
mod stage;
mod view;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use swarm_client::{ClientConfig, GenerationConfig, GenerationEvent, HopInfo, Model, Summary, Swarm};
use swarm_model::ModelSpec;
use swarm_protocol::p2p::NetworkConfig;

use self::stage::Stage;
use self::view::View;

/// A prompt that the bundled model continues well.
const PROMPT: &str = "Once upon a time, there was a brave fox named Luna.";

/// Tokens of the story at most; it ends by itself before.
const MAX_TOKENS: usize = 300;

/// Tokens after which a server is killed: in the middle of the story.
const KILL_AFTER: usize = 60;

/// On a terminal the story appears at the pace it is read; measured is the second run, which is not held back.
const READING_PACE: Duration = Duration::from_millis(20);

/// One telling of the story.
struct Telling {
    summary: Summary,
    route: Vec<HopInfo>,
    /// From the kill to the next token, where one was killed.
    lost: Option<Duration>,
}

/// Runs the demo.
///
/// # Errors
/// If a process does not start, a text does not end, or the two texts differ.
pub(crate) async fn run() -> Result<()> {
    let mut view = View::new();
    view.title();
    let mut stage = Stage::set(&mut view).await?;
    let swarm = Swarm::join(NetworkConfig::client("demo".parse()?, vec![stage.entry_point()]), ClientConfig::default());
    let swarm = swarm.await?;
    let model = swarm.open_model(&ModelSpec::Demo, None).await?;

    view.heading("A story, told through the chain");
    let disturbed = tell(&model, &mut view, Some(&mut stage)).await?;
    view.heading("The same story without a failure, to compare");
    let undisturbed = tell(&model, &mut view, None).await?;
    swarm.leave().await;

    if disturbed.summary.reroutes == 0 {
        bail!("the story ended before a server could be killed");
    }
    if disturbed.summary.tokens != undisturbed.summary.tokens || disturbed.summary.text != undisturbed.summary.text {
        view.different(&disturbed.summary.text, &undisturbed.summary.text);
        bail!("the text with a failure differs from the text without one");
    }
    view.results(&stage, &disturbed, &undisturbed);
    Ok(())
}

/// Tells the story; with a stage, kills the last server of the route on the way and shows it live.
async fn tell(model: &Model, view: &mut View, mut stage: Option<&mut Stage>) -> Result<Telling> {
    let prompt = model.encode(PROMPT)?;
    let mut session = model.text_session(prompt.len() + MAX_TOKENS).await?;
    let config = GenerationConfig { max_tokens: MAX_TOKENS, ..GenerationConfig::default() };
    let mut generation = session.generate(&prompt, config)?;
    let (mut told, mut route, mut killed, mut lost) = (0, Vec::new(), None, None);
    let live = stage.is_some();
    while let Some(event) = generation.next().await? {
        match event {
            GenerationEvent::Route { hops, .. } => {
                view.route(&hops, told > 0);
                if told == 0 && live {
                    view.story(PROMPT);
                }
                route = hops;
            }
            GenerationEvent::Token { text, .. } => {
                told += 1;
                lost = lost.or(killed.take().map(|at: Instant| at.elapsed()));
                if live {
                    view.story(&text);
                    if view.is_terminal() {
                        tokio::time::sleep(READING_PACE).await;
                    }
                }
                if let Some(stage) = stage.as_mut().filter(|_| told == KILL_AFTER) {
                    let victim = route.last().context("the route has no hop")?;
                    stage.kill(victim, view).await?;
                    killed = Some(Instant::now());
                }
            }
            GenerationEvent::Reroute { reason, took, .. } => view.rerouted(&reason, took),
            GenerationEvent::Trace(_) => {}
            GenerationEvent::Done(summary) => {
                view.end_of_story(live);
                return Ok(Telling { summary, route, lost });
            }
        }
    }
    bail!("the story has no end");
}
