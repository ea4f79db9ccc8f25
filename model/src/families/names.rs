//! What tensors are called in a family's checkpoints.

/// The names of a block's tensors behind `layers.N.`, and without `.weight` or `.bias`.
pub(crate) struct TensorNames {
    /// Before attention.
    pub(crate) attention_norm: &'static str,
    /// Behind attention, if there are norms there.
    pub(crate) after_attention_norm: &'static str,
    /// Before the feed-forward part.
    pub(crate) feed_forward_norm: &'static str,
    /// Behind it, if there are norms there.
    pub(crate) after_feed_forward_norm: &'static str,
    /// The projections to queries, keys and values.
    pub(crate) query: &'static str,
    pub(crate) key: &'static str,
    pub(crate) value: &'static str,
    /// The one matrix that holds the rows of these three, in this order, where they are stored so.
    pub(crate) query_key_value: Option<&'static str>,
    pub(crate) query_norm: &'static str,
    pub(crate) key_norm: &'static str,
    /// The projection from attended values.
    pub(crate) output: &'static str,
    pub(crate) gate: &'static str,
    pub(crate) up: &'static str,
    /// The one matrix that holds the rows of these two, in this order, where they are stored so.
    pub(crate) gate_up: Option<&'static str>,
    pub(crate) down: &'static str,
    pub(crate) experts: ExpertNames,
}

/// The names of a mixture of experts.
pub(crate) struct ExpertNames {
    pub(crate) router: &'static str,
    /// Before an expert's number.
    pub(crate) prefix: &'static str,
    /// Behind it.
    pub(crate) gate: &'static str,
    pub(crate) up: &'static str,
    pub(crate) down: &'static str,
    /// What comes before `.gate_up_proj` and `.down_proj`, where all experts may be stored in one tensor.
    pub(crate) stacked: Option<&'static str>,
}

/// A Llama's names, which most families share.
pub(super) const LLAMA: TensorNames = TensorNames {
    attention_norm: "input_layernorm",
    after_attention_norm: "",
    feed_forward_norm: "post_attention_layernorm",
    after_feed_forward_norm: "",
    query: "self_attn.q_proj",
    key: "self_attn.k_proj",
    value: "self_attn.v_proj",
    query_key_value: None,
    query_norm: "self_attn.q_norm",
    key_norm: "self_attn.k_norm",
    output: "self_attn.o_proj",
    gate: "mlp.gate_proj",
    up: "mlp.up_proj",
    gate_up: None,
    down: "mlp.down_proj",
    experts: ExpertNames {
        router: "mlp.gate",
        prefix: "mlp.experts",
        gate: "gate_proj",
        up: "up_proj",
        down: "down_proj",
        stacked: None,
    },
};
