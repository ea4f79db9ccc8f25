//! Mistral (Jiang et al. 2023). Unlike a Llama: a row sees the last `sliding_window` positions only, in every block; later
//! models (0.2 and on) say `null` and see everything.

use super::base::{SILENT, Silent, no_biases, plain, set_windows, window};
use super::names::LLAMA;
use super::{Entry, Family};
use crate::config::ModelConfig;
use crate::config_keys::ConfigKeys;
use crate::error::ModelError;

pub(super) const ENTRY: Entry =
    Entry { architectures: &["MistralForCausalLM"], model_types: &["mistral"], read, names: &LLAMA };

const MISTRAL: Silent = Silent { positions: 4096 * 32, ..SILENT };

fn read(keys: &ConfigKeys<'_>) -> Result<ModelConfig, ModelError> {
    let mut config = plain(keys, Family::Mistral, &MISTRAL)?;
    no_biases(keys)?;
    let window = window(keys)?;
    set_windows(&mut config, keys, window, |_| window.is_some())?;
    Ok(config)
}
