//! Mixtral (Jiang et al. 2024). Like Mistral, but every feed-forward part is a mixture of experts: the two best of eight by the
//! router's logits, weighed by a softmax over those two. An expert's matrices are called w1 (gate), w3 (up) and w2 (down).

use super::base::{SILENT, Silent, no_biases, plain, set_experts, set_windows, window};
use super::names::{ExpertNames, LLAMA, TensorNames};
use super::{Entry, Family};
use crate::config::{Experts, ModelConfig};
use crate::config_keys::ConfigKeys;
use crate::error::ModelError;

pub(super) const ENTRY: Entry =
    Entry { architectures: &["MixtralForCausalLM"], model_types: &["mixtral"], read, names: &NAMES };

const MIXTRAL: Silent = Silent { positions: 4096 * 32, rms_eps: 1e-5, rope_theta: 1e6, ..SILENT };

const NAMES: TensorNames = TensorNames {
    experts: ExpertNames {
        router: "block_sparse_moe.gate",
        prefix: "block_sparse_moe.experts",
        gate: "w1",
        up: "w3",
        down: "w2",
        stacked: None,
    },
    ..LLAMA
};

fn read(keys: &ConfigKeys<'_>) -> Result<ModelConfig, ModelError> {
    let mut config = plain(keys, Family::Mixtral, &MIXTRAL)?;
    no_biases(keys)?;
    let window = window(keys)?;
    set_windows(&mut config, keys, window, |_| window.is_some())?;
    let (intermediate, mxfp4) = (config.intermediate, false);
    let experts = Experts { count: 0, chosen: 2, intermediate, normalised: true, biases: false, mxfp4 };
    set_experts(&mut config, keys, ("num_local_experts", Some(8)), experts)?;
    Ok(config)
}
