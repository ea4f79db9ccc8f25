//! The forms in which families of models write calls.

/// How a family writes calls of tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToolFamily {
    /// `<tool_call>{"name": .., "arguments": {..}}</tool_call>`, any number of them: Hermes, Qwen and those after them.
    Hermes,
    /// `{"name": .., "parameters": {..}}`, often behind `<|python_tag|>`: Llama from 3.1 on.
    Llama,
    /// `[TOOL_CALLS][{"name": .., "arguments": {..}}]`, or `[TOOL_CALLS]name[ARGS]{..}`: Mistral.
    Mistral,
    /// An answer that is `{"name": .., "arguments": {..}}` and nothing else: what models do that were told of tools and have no
    /// form of their own.
    Json,
}

/// What calls stand behind, if it is not the start of the answer.
pub(super) const HERMES_OPEN: &str = "<tool_call>";
pub(super) const HERMES_CLOSE: &str = "</tool_call>";
pub(super) const LLAMA_OPEN: &str = "<|python_tag|>";
pub(super) const MISTRAL_OPEN: &str = "[TOOL_CALLS]";
pub(super) const MISTRAL_ARGUMENTS: &str = "[ARGS]";
pub(super) const MISTRAL_ID: &str = "[CALL_ID]";

impl ToolFamily {
    /// What a call stands behind.
    pub(super) fn open(self) -> Option<&'static str> {
        match self {
            Self::Hermes => Some(HERMES_OPEN),
            Self::Llama => Some(LLAMA_OPEN),
            Self::Mistral => Some(MISTRAL_OPEN),
            Self::Json => None,
        }
    }

    /// What stands behind a call.
    pub(super) fn close(self) -> Option<&'static str> {
        (self == Self::Hermes).then_some(HERMES_CLOSE)
    }

    /// Whether an answer that begins with JSON may be a call without anything around it.
    pub(super) fn is_bare(self) -> bool {
        matches!(self, Self::Llama | Self::Json)
    }

    /// Every text with a meaning in this form.
    pub(super) fn words(self) -> &'static [&'static str] {
        match self {
            Self::Hermes => &[HERMES_OPEN, HERMES_CLOSE],
            Self::Llama => &[LLAMA_OPEN],
            Self::Mistral => &[MISTRAL_OPEN, MISTRAL_ARGUMENTS, MISTRAL_ID],
            Self::Json => &[],
        }
    }
}
