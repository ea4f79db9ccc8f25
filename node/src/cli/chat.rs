//! `swarm-node chat`: a conversation through the swarm.

use std::cell::Cell;
use std::io::{self, IsTerminal, Write};

use anyhow::{Result, bail};
use clap::Args;
use console::style;
use swarm_client::{ClientConfig, GenerationConfig, GenerationEvent, Model, Swarm, TextSession};
use swarm_model::{ChatMessage, ModelSpec};
use swarm_protocol::model_id::WeightFormat;
use swarm_protocol::trace_context::SPANS;
use tokio::io::{AsyncBufReadExt, BufReader};
use tracing::{Instrument, info_span};

use super::common::SwarmArgs;
use super::formats::or_other_formats;
use super::generate::{COMPUTING, LOOKING, open_model};
use super::hub::{Bar, HubArgs, MODEL_HELP};
use super::output::print_error;
use super::peers::PeerArgs;
use super::sampling::SamplingArgs;
use super::stop::or_interrupted_unless;
use super::text_view::TextView;

/// Room that a conversation reserves on every hop, in tokens, where the model's context allows it: some twenty turns.
const DEFAULT_CONTEXT: usize = 2048;

/// Chat with a model, through the servers of a swarm.
///
/// Each line of stdin is a message; /new starts over, /quit ends. In a pipe only the answers are printed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  swarm-node chat --model demo --bootstrap /ip4/127.0.0.1/tcp/4001/p2p/12D3KooW...
  swarm-node chat --model ./llama --bootstrap ... --system \"Answer in one sentence.\" --temperature 0.7")]
pub(crate) struct ChatArgs {
    #[arg(long, env = "SWARM_MODEL", value_name = "MODEL", help = MODEL_HELP)]
    model: ModelSpec,
    #[command(flatten)]
    swarm: SwarmArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    peers: PeerArgs,
    #[command(flatten)]
    hub: HubArgs,
    /// The weight format the servers hold [default: the checkpoint's own]
    #[arg(long, env = "SWARM_FORMAT")]
    format: Option<WeightFormat>,
    /// What the model is told before the first message
    #[arg(long, env = "SWARM_SYSTEM")]
    system: Option<String>,
    /// Tokens the whole conversation may have [default: 2048, or the model's context if that is less]
    #[arg(long, env = "SWARM_CONTEXT")]
    context: Option<usize>,
}

/// Runs the command.
pub(crate) async fn run(args: ChatArgs) -> Result<()> {
    let config = args.sampling.config()?;
    let at_rest = Cell::new(false);
    or_interrupted_unless(&at_rest, async {
        let client = ClientConfig { hub: args.hub.config(), ..args.peers.config()? };
        let swarm = Swarm::join(args.swarm.network_config()?, client).await?;
        let model = open_model(&swarm, &args.model, args.format).await?;
        model.check(&config)?;
        let context = args.context.unwrap_or(DEFAULT_CONTEXT).min(model.max_positions());
        let looking = Bar::default();
        looking.spin(LOOKING);
        let session = model.text_session(context).await.map_err(Into::into);
        looking.done();
        let session = or_other_formats(&swarm, &model, session).await?;
        let mut chat = Chat { model, session, config, system: args.system, messages: Vec::new() };
        let ended = chat.run(&at_rest).await;
        swarm.leave().await;
        ended
    })
    .await
}

struct Chat {
    model: Model,
    session: TextSession,
    config: GenerationConfig,
    system: Option<String>,
    messages: Vec<ChatMessage>,
}

impl Chat {
    /// Answers line by line; sets `at_rest` while it waits for the next one.
    async fn run(&mut self, at_rest: &Cell<bool>) -> Result<()> {
        self.start_over();
        // A model without a template is found out before anything is typed.
        self.model.encode_chat(&[ChatMessage::new("user", "hello")])?;
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        let person = io::stdin().is_terminal() && io::stderr().is_terminal();
        if person {
            let banner = format!("chatting with {}; /new starts over, /quit ends", self.model.name());
            let _ = writeln!(io::stderr(), "{}", style(banner).dim().for_stderr());
        }
        loop {
            if person {
                let _ = write!(io::stderr(), "{} ", style("you>").bold().for_stderr());
            }
            at_rest.set(true);
            let Some(line) = lines.next_line().await? else {
                if person {
                    let _ = writeln!(io::stderr());
                }
                return Ok(());
            };
            at_rest.set(false);
            match line.trim() {
                "" => {}
                "/quit" | "/exit" => return Ok(()),
                "/new" => self.start_over(),
                message => match self.answer(message).instrument(info_span!(target: SPANS, "chat turn")).await {
                    // The conversation is not lost: the session looks for servers again with the next message.
                    Err(error) if person => {
                        print_error(&error);
                        self.messages.pop();
                    }
                    answered => answered?,
                },
            }
        }
    }

    fn start_over(&mut self) {
        self.messages = self.system.iter().map(|text| ChatMessage::new("system", text)).collect();
    }

    async fn answer(&mut self, message: &str) -> Result<()> {
        self.messages.push(ChatMessage::new("user", message));
        let ids = self.model.encode_chat(&self.messages)?;
        if ids.len() >= self.session.capacity() {
            bail!(
                "the conversation has {} tokens, the session has room for {}; begin again with /new, or pass a larger --context",
                ids.len(),
                self.session.capacity()
            );
        }
        let mut view = TextView::new(false, false);
        let mut generation = self.session.generate(&ids, self.config.clone())?;
        let waiting = Bar::default();
        waiting.spin(COMPUTING);
        loop {
            let next = generation.next().await;
            waiting.done();
            let Some(event) = next.inspect_err(|_| view.end_line())? else { break };
            view.show(&event)?;
            if let GenerationEvent::Done(summary) = event {
                self.messages.push(ChatMessage::new("assistant", summary.text));
                break;
            }
        }
        Ok(())
    }
}
