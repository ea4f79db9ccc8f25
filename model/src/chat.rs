//! The model's chat template: messages to one text, as Hugging Face's `apply_chat_template` does.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value};
use minijinja::{Environment, Error, ErrorKind, State, context};
use minijinja_contrib::{filters, globals, pycompat};
use serde::{Deserialize, Serialize};

use crate::error::ModelError;

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatMessage {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// Its text.
    pub content: String,
}

impl ChatMessage {
    /// A message of `role`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }
}

/// A parsed chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos_token: Option<String>,
    eos_token: Option<String>,
}

#[derive(Default, Deserialize)]
struct TokenizerConfig {
    chat_template: Option<Templates>,
    bos_token: Option<SpecialToken>,
    eos_token: Option<SpecialToken>,
}

/// One template, or a list of named ones.
#[derive(Deserialize)]
#[serde(untagged)]
enum Templates {
    One(String),
    Many(Vec<NamedTemplate>),
}

#[derive(Deserialize)]
struct NamedTemplate {
    name: String,
    template: String,
}

/// A token as a text, or as an object with its text in `content`.
#[derive(Deserialize)]
#[serde(untagged)]
enum SpecialToken {
    Text(String),
    Object { content: String },
}

impl SpecialToken {
    fn into_text(self) -> String {
        match self {
            Self::Text(text) | Self::Object { content: text } => text,
        }
    }
}

const TEMPLATE: &str = "chat";

impl ChatTemplate {
    /// From `chat_template.jinja`, which goes before what `tokenizer_config.json` holds.
    pub(crate) fn parse(jinja: Option<&[u8]>, config: Option<&[u8]>) -> Result<Option<Self>, ModelError> {
        let bad = |error: serde_json::Error| ModelError::file("tokenizer_config.json", error);
        let config: TokenizerConfig = config.map(serde_json::from_slice).transpose().map_err(bad)?.unwrap_or_default();
        let jinja = jinja.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let Some(source) = jinja.or(config.chat_template.and_then(default_template)) else {
            return Ok(None);
        };
        Ok(Some(Self {
            environment: environment(source).map_err(failed)?,
            bos_token: config.bos_token.map(SpecialToken::into_text),
            eos_token: config.eos_token.map(SpecialToken::into_text),
        }))
    }

    /// The text of a conversation; `add_generation_prompt` opens the assistant's answer at its end. Encode it without
    /// special tokens: it holds its own.
    ///
    /// # Errors
    /// [`ModelError::ChatTemplate`] if the template refuses the conversation.
    pub fn render(&self, messages: &[ChatMessage], add_generation_prompt: bool) -> Result<String, ModelError> {
        let template = self.environment.get_template(TEMPLATE).map_err(failed)?;
        let values = context! {
            messages => Serde(messages),
            add_generation_prompt,
            bos_token => self.bos_token.as_deref().unwrap_or_default(),
            eos_token => self.eos_token.as_deref().unwrap_or_default(),
        };
        template.render(values).map_err(failed)
    }
}

fn default_template(templates: Templates) -> Option<String> {
    match templates {
        Templates::One(source) => Some(source),
        Templates::Many(named) => {
            let default = named.into_iter().find(|template| template.name == "default");
            default.map(|template| template.template)
        }
    }
}

/// Instructions one rendering may take: a conversation of a thousand turns takes some ten thousand, a hostile template all.
const MAX_INSTRUCTIONS: u64 = 10_000_000;

/// Jinja as Hugging Face sets it up: blocks trimmed, Python's methods, `raise_exception`, `strftime_now`.
fn environment(source: String) -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(MAX_INSTRUCTIONS));
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
    environment.set_syntax(syntax);
    environment.set_unknown_method_callback(pycompat::unknown_method_callback);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
    environment.add_template_owned(TEMPLATE, source)?;
    Ok(environment)
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

/// The current time in UTC; templates use it for the date in a system prompt.
fn strftime_now(state: &State, format: String) -> Result<String, Error> {
    let format = Kwargs::from_iter([("format", Value::from(format))]);
    filters::datetimeformat(state, globals::now(), format)
}

fn failed(error: Error) -> ModelError {
    ModelError::ChatTemplate(error.to_string())
}
