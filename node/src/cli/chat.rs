//! `swarm-node chat`: a conversation through the swarm.

use std::io::{self, IsTerminal, Write};

use anyhow::{Result, anyhow, bail};
use clap::Args;
use console::style;
use swarm_client::{ClientConfig, GenerationConfig, GenerationEvent, Model, Swarm, TextSession};
use swarm_model::{ChatMessage, ModelSpec};
use swarm_protocol::model_id::WeightFormat;
use swarm_protocol::trace_context::SPANS;
use tokio::io::{AsyncBufReadExt, BufReader};
use tracing::{Instrument, info_span};

use super::common::{SwarmArgs, join};
use super::formats::or_other_formats;
use super::generate::{COMPUTING, LOOKING, open_model};
use super::hub::{Bar, HubArgs, MODEL_HELP};
use super::output::{Printer, print_error};
use super::peers::PeerArgs;
use super::sampling::SamplingArgs;
use super::stop::Interruptions;
use super::text_view::TextView;

/// Room that a conversation reserves on every hop, in tokens, where the model's context allows it: some twenty turns.
const DEFAULT_CONTEXT: usize = 2048;

/// Chat with a model, through the servers of a swarm.
///
/// Each line of stdin is a message; Ctrl-C stops an answer, /new starts over, /quit ends. In a pipe only the answers are printed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  swarm-node chat --model demo \\
    --bootstrap /ip4/127.0.0.1/tcp/4001/p2p/12D3KooW...
  swarm-node chat --model ./llama --bootstrap ... \\
    --system \"Answer in one sentence.\" --temperature 0.7")]
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
    #[arg(long, env = "SWARM_CONTEXT", allow_negative_numbers = true, value_parser = super::values::context)]
    context: Option<usize>,
}

/// What can be said to the program itself.
const COMMANDS: &str = "Ctrl-C stops an answer, /new starts over, /quit ends";

/// Runs the command.
pub(crate) async fn run(args: ChatArgs) -> Result<()> {
    let (mut interruptions, stop) = Interruptions::listen()?;
    let conversation = async {
        let mut chat = tokio::select! {
            chat = Chat::open(args) => chat?,
            () = interruptions.next() => bail!("interrupted"),
        };
        let ended = chat.run(&mut interruptions).await;
        tokio::select! {
            () = chat.swarm.leave() => {}
            () = interruptions.next() => {}
        }
        ended
    };
    tokio::select! {
        ended = conversation => ended,
        () = stop.wait() => Err(anyhow!("told to stop")),
    }
}

struct Chat {
    swarm: Swarm,
    model: Model,
    session: TextSession,
    config: GenerationConfig,
    system: Option<String>,
    messages: Vec<ChatMessage>,
    /// Somebody sits at a terminal.
    person: bool,
}

/// How the answer to a message ended.
#[derive(Debug, PartialEq, Eq)]
enum Answered {
    Whole,
    Interrupted,
}

impl Chat {
    async fn open(args: ChatArgs) -> Result<Self> {
        let config = args.sampling.config()?;
        let client = ClientConfig { hub: args.hub.config(), ..args.peers.config()? };
        let swarm = join(args.swarm.network_config()?, client).await?;
        let model = open_model(&swarm, &args.model, args.format).await?;
        model.check(&config)?;
        let most = model.max_positions();
        let context = args.context.unwrap_or(DEFAULT_CONTEXT).min(most);
        if args.context.is_some_and(|wanted| wanted > most) {
            Printer::new(false).note(format_args!("note: the context of {} has room for {most} tokens", model.name()));
        }
        let looking = Bar::default();
        looking.spin(LOOKING);
        let session = model.text_session(context).await.map_err(Into::into);
        looking.done();
        let session = or_other_formats(&swarm, &model, session).await?;
        // A model without a template is found out before anything is typed.
        model.encode_chat(&[ChatMessage::new("user", "hello")])?;
        let person = io::stdin().is_terminal() && io::stderr().is_terminal();
        Ok(Self { swarm, model, session, config, system: args.system, messages: Vec::new(), person })
    }

    /// Answers line by line.
    async fn run(&mut self, interruptions: &mut Interruptions) -> Result<()> {
        self.start_over();
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        self.remark(format_args!("chatting with {}; {COMMANDS}", self.model.name()));
        loop {
            if self.person {
                let _ = write!(io::stderr(), "{} ", style("you>").bold().for_stderr());
            }
            // One that came as the answer ended was for the answer.
            interruptions.forget();
            let line = tokio::select! {
                line = lines.next_line() => line?,
                () = interruptions.next() => None,
            };
            let Some(line) = line else {
                if self.person {
                    let _ = writeln!(io::stderr());
                }
                return Ok(());
            };
            match line.trim() {
                "" => {}
                "/quit" | "/exit" => return Ok(()),
                "/new" => {
                    self.start_over();
                    self.remark("a new conversation");
                }
                "/help" | "/?" if self.person => self.remark(COMMANDS),
                message => self.say(message, interruptions).await?,
            }
        }
    }

    fn start_over(&mut self) {
        self.messages = self.system.iter().map(|text| ChatMessage::new("system", text)).collect();
    }

    /// Tells a person something that is no answer.
    fn remark(&self, words: impl std::fmt::Display) {
        if self.person {
            let _ = writeln!(io::stderr(), "{}", style(words).dim().for_stderr());
        }
    }

    async fn say(&mut self, message: &str, interruptions: &mut Interruptions) -> Result<()> {
        let answered = self.answer(message, interruptions).instrument(info_span!(target: SPANS, "chat turn")).await;
        match answered {
            // The conversation is not lost: the session looks for servers again with the next message.
            Err(error) if self.person => {
                print_error(&error);
                self.messages.pop();
            }
            Ok(Answered::Interrupted) if self.person => self.remark("stopped"),
            Ok(Answered::Interrupted) => bail!("interrupted"),
            answered => {
                answered?;
            }
        }
        Ok(())
    }

    async fn answer(&mut self, message: &str, interruptions: &mut Interruptions) -> Result<Answered> {
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
        let mut said = String::new();
        let answered = loop {
            let next = tokio::select! {
                next = generation.next() => next,
                () = interruptions.next() => {
                    waiting.done();
                    view.end_line();
                    break Answered::Interrupted;
                }
            };
            waiting.done();
            let Some(event) = next.inspect_err(|_| view.end_line())? else { break Answered::Whole };
            view.show(&event)?;
            match event {
                GenerationEvent::Token { text, .. } => said.push_str(&text),
                GenerationEvent::Done(summary) => {
                    said = summary.text;
                    break Answered::Whole;
                }
                _ => {}
            }
        };
        // The next answer follows what a person has read.
        match said.is_empty() && answered == Answered::Interrupted {
            true => drop(self.messages.pop()),
            false => self.messages.push(ChatMessage::new("assistant", said)),
        }
        Ok(answered)
    }
}
