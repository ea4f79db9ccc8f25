//! How models of the Hugging Face hub are fetched: flags, and what is shown meanwhile.

use std::sync::{Arc, Mutex, PoisonError};

use clap::Args;
use clap::builder::FalseyValueParser;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use swarm_hub::HubConfig;

/// The time between two pictures of something that turns.
const SPIN: std::time::Duration = std::time::Duration::from_millis(120);

use super::units::bytes;

/// What MODEL may be.
pub(crate) const MODEL_HELP: &str = "\
`demo`; a directory with config.json, *.safetensors and tokenizer.json; a .gguf file; or org/name[@revision][:FILE.gguf] on the \
Hugging Face hub, of which only what is needed is fetched";

/// How models of the hub are fetched. HF_HOME, HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE are heard too.
#[derive(Debug, Args)]
pub(crate) struct HubArgs {
    /// Fetch nothing: use what is cached of a model of the hub
    #[arg(long, env = "SWARM_OFFLINE", value_parser = FalseyValueParser::new())]
    pub(crate) offline: bool,
    /// The most that models fetched by swarm-node may take in the cache, for example 80GB: those used least recently go first
    /// [default: as much as the disk has]
    #[arg(long, env = "SWARM_MAX_DISK", value_name = "SIZE", value_parser = bytes)]
    pub(crate) max_disk: Option<u64>,
}

impl HubArgs {
    /// What the environment says, with these flags.
    pub(crate) fn config(&self) -> HubConfig {
        let config = HubConfig::of_environment();
        HubConfig { offline: self.offline || config.offline, max_disk: self.max_disk, ..config }
    }
}

/// A bar of bytes on stderr that shows one stage after the other, on terminals only.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bar(Arc<Mutex<Option<(&'static str, ProgressBar)>>>);

impl Bar {
    /// Shows that `done` of `all` bytes of `stage` are done.
    pub(crate) fn show(&self, stage: &'static str, done: u64, all: u64) {
        let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let another = shown.as_ref().is_none_or(|(of, _)| *of != stage);
        if another && let Some((_, bar)) = shown.replace((stage, new_bar(stage, all))) {
            bar.finish_and_clear();
        }
        if let Some((_, bar)) = shown.as_ref() {
            bar.set_length(all);
            bar.set_position(done);
        }
    }

    /// Shows that something is being done of which nobody knows how long it takes.
    pub(crate) fn spin(&self, stage: &'static str) {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let bar = bar.with_style(ProgressStyle::default_spinner()).with_message(stage);
        bar.enable_steady_tick(SPIN);
        let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, former)) = shown.replace((stage, bar)) {
            former.finish_and_clear();
        }
    }

    /// Takes the bar away.
    pub(crate) fn done(&self) {
        if let Some((_, bar)) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            bar.finish_and_clear();
        }
    }
}

fn new_bar(stage: &'static str, all: u64) -> ProgressBar {
    // Draws nothing where stderr is no terminal.
    let bar = ProgressBar::with_draw_target(Some(all), ProgressDrawTarget::stderr());
    let template =
        format!("{stage:<9} {{decimal_bytes}}/{{decimal_total_bytes}} {{wide_bar}} {{decimal_bytes_per_sec}} {{eta}}");
    bar.with_style(ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}
