//! Which servers a client uses, and what they may keep of its texts.

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use clap::builder::FalseyValueParser;
use clap::{Args, ValueEnum};
use swarm_client::{ClientConfig, EdgesPlace, PeerFilter, PrefixReuse, Wire};
use swarm_protocol::PeerId;
use swarm_protocol::p2p::parse_peer;

use super::otlp;
use super::output::BadUsage;

/// Which servers are used, and how many.
#[derive(Debug, Args)]
pub(crate) struct PeerArgs {
    /// Use only this server (repeatable)
    #[arg(long = "allow-peer", env = "SWARM_ALLOW_PEER", value_name = "PEERID", value_delimiter = ',', value_parser = parse_peer)]
    allowed: Vec<PeerId>,
    /// Never use this server (repeatable)
    #[arg(long = "block-peer", env = "SWARM_BLOCK_PEER", value_name = "PEERID", value_delimiter = ',', value_parser = parse_peer)]
    blocked: Vec<PeerId>,
    /// Keep a second server like each of the route's: a loss then costs one step, and the session twice the servers
    #[arg(long, env = "SWARM_STANDBY", value_parser = FalseyValueParser::new())]
    standby: bool,
    /// Use servers of several numeric classes (kinds of processor) together, if those of one do not cover the model: a text
    /// may then go on differently after a loss
    #[arg(long, env = "SWARM_MIX_CLASSES", value_parser = FalseyValueParser::new())]
    mix_classes: bool,
    /// Have the servers keep nothing of this text. Otherwise they may keep keys and values for a while, for this client alone,
    /// so that a later text that begins alike starts sooner
    #[arg(long, env = "SWARM_NO_PREFIX_REUSE", value_parser = FalseyValueParser::new(), conflicts_with = "prefix_key")]
    no_prefix_reuse: bool,
    /// In which format activations travel: `exact`, as they were computed; `int8`, rounded to eight bits, which halves the
    /// bytes and changes the text; `auto`, as they were computed too,
    /// in fewer bytes where links are slow
    #[arg(long, env = "SWARM_WIRE", value_name = "FORMAT", value_enum, default_value_t)]
    wire: WireArg,
    /// Who holds embedding and head, and chooses the tokens: `own`, this client; `served`, servers started with `serve --edges`, so
    /// that this client loads no weights. Such a server sees the tokens themselves, prompt and answer
    #[arg(long, env = "SWARM_EDGES", value_name = "WHO", value_enum, default_value_t)]
    edges: EdgesArg,
    /// Share what servers keep with all clients that have the same secret in this file; they must trust one another
    #[arg(long, env = "SWARM_PREFIX_KEY", value_name = "FILE")]
    prefix_key: Option<PathBuf>,
}

/// In which format activations travel.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum WireArg {
    #[default]
    Auto,
    Exact,
    Int8,
}

impl From<WireArg> for Wire {
    fn from(wire: WireArg) -> Self {
        match wire {
            WireArg::Auto => Self::Auto,
            WireArg::Exact => Self::Exact,
            WireArg::Int8 => Self::Int8,
        }
    }
}

/// Who holds embedding and head.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum EdgesArg {
    #[default]
    Own,
    Served,
}

impl From<EdgesArg> for EdgesPlace {
    fn from(place: EdgesArg) -> Self {
        match place {
            EdgesArg::Own => Self::Own,
            EdgesArg::Served => Self::Served,
        }
    }
}

/// The shortest secret that is taken: 16 characters are hard to guess.
const LEAST_SECRET: usize = 16;

impl PeerArgs {
    pub(crate) fn config(&self) -> Result<ClientConfig> {
        let allowed = (!self.allowed.is_empty()).then(|| self.allowed.iter().copied().collect());
        let peers = PeerFilter { allowed, blocked: self.blocked.iter().copied().collect() };
        Ok(ClientConfig {
            peers,
            standby: self.standby,
            prefixes: self.prefixes()?,
            wire: self.wire.into(),
            edges: self.edges.into(),
            mixed_classes: self.mix_classes,
            spans: otlp::spans(),
            ..ClientConfig::default()
        })
    }

    fn prefixes(&self) -> Result<PrefixReuse> {
        let Some(file) = &self.prefix_key else {
            return Ok(if self.no_prefix_reuse { PrefixReuse::Off } else { PrefixReuse::Private });
        };
        let secret = std::fs::read_to_string(file);
        let secret = secret.with_context(|| {
            format!("cannot read the secret in {}; make one with `openssl rand -hex 32 > FILE`", file.display())
        });
        let secret = secret.map_err(BadUsage)?;
        let secret = secret.trim();
        if secret.len() < LEAST_SECRET {
            let reason = anyhow!(
                "the secret in {} is shorter than {LEAST_SECRET} characters; make one with `openssl rand -hex 32`",
                file.display()
            );
            return Err(BadUsage(reason).into());
        }
        Ok(PrefixReuse::Shared(secret.to_string()))
    }
}
