//! The model's chat template: messages to one text, as Hugging Face's `apply_chat_template` does.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value};
use minijinja::{Environment, Error, ErrorKind, State, context};
use minijinja_contrib::{filters, globals, pycompat};
use serde::Deserialize;
use serde_json::{Map, Value as Json};

use crate::chat_json::tojson;
use crate::chat_message::ChatMessage;
use crate::error::ModelError;
use crate::tools::ToolDefinition;

/// What a template is told beside the messages.
#[derive(Debug, Clone, Default)]
pub struct ChatOptions {
    /// The tools that the model may call.
    pub tools: Vec<ToolDefinition>,
    /// What else the template asks for, as `enable_thinking`; what it is always given goes before.
    pub variables: Map<String, Json>,
    /// Whether the conversation stops here, instead of opening the assistant's answer at its end.
    pub closed: bool,
}

/// A parsed chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// The text of the template for conversations with tools.
    source: String,
    bos_token: Option<String>,
    eos_token: Option<String>,
    pad_token: Option<String>,
    unk_token: Option<String>,
}

#[derive(Default, Deserialize)]
struct TokenizerConfig {
    chat_template: Option<Templates>,
    bos_token: Option<SpecialToken>,
    eos_token: Option<SpecialToken>,
    pad_token: Option<SpecialToken>,
    unk_token: Option<SpecialToken>,
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

/// The template's name here, and that of another one for conversations with tools.
const TEMPLATE: &str = "default";
const WITH_TOOLS: &str = "tool_use";

impl ChatTemplate {
    /// From `chat_template.jinja`, which goes before what `tokenizer_config.json` holds.
    pub(crate) fn parse(jinja: Option<&[u8]>, config: Option<&[u8]>) -> Result<Option<Self>, ModelError> {
        let bad = |error: serde_json::Error| ModelError::file("tokenizer_config.json", error);
        let config: TokenizerConfig = config.map(serde_json::from_slice).transpose().map_err(bad)?.unwrap_or_default();
        let jinja = jinja.map(|bytes| Templates::One(String::from_utf8_lossy(bytes).into_owned()));
        let Some(templates) = jinja.or(config.chat_template) else { return Ok(None) };
        let Some(default) = templates.named(TEMPLATE) else { return Ok(None) };
        let with_tools = templates.named(WITH_TOOLS).filter(|_| matches!(templates, Templates::Many(_)));
        Ok(Some(Self {
            environment: environment(default, with_tools).map_err(failed)?,
            source: with_tools.unwrap_or(default).to_string(),
            bos_token: config.bos_token.map(SpecialToken::into_text),
            eos_token: config.eos_token.map(SpecialToken::into_text),
            pad_token: config.pad_token.map(SpecialToken::into_text),
            unk_token: config.unk_token.map(SpecialToken::into_text),
        }))
    }

    /// The text of a conversation; `add_generation_prompt` opens the assistant's answer at its end. Encode it without
    /// special tokens: it holds its own.
    ///
    /// # Errors
    /// [`ModelError::ChatTemplate`] if the template refuses the conversation.
    pub fn render(&self, messages: &[ChatMessage], add_generation_prompt: bool) -> Result<String, ModelError> {
        self.render_with(messages, &ChatOptions { closed: !add_generation_prompt, ..ChatOptions::default() })
    }

    /// The same with tools, and whatever else a template asks for.
    ///
    /// # Errors
    /// [`ModelError::ChatTemplate`] if the template refuses the conversation.
    pub fn render_with(&self, messages: &[ChatMessage], options: &ChatOptions) -> Result<String, ModelError> {
        let render = |always_text| self.render_as(messages, options, always_text);
        let silent = messages.iter().any(|message| message.content.is_empty() && !message.tool_calls.is_empty());
        // Of a message that only calls, some templates want no content, and others stumble over none.
        let text = render(false).or_else(|error| if silent { render(true).map_err(|_| error) } else { Err(error) });
        text.map_err(failed)
    }

    fn render_as(&self, messages: &[ChatMessage], options: &ChatOptions, always_text: bool) -> Result<String, Error> {
        let own = |name: &str| self.environment.templates().any(|(known, _)| known == name);
        let name = if !options.tools.is_empty() && own(WITH_TOOLS) { WITH_TOOLS } else { TEMPLATE };
        let template = self.environment.get_template(name)?;
        let messages: Vec<Json> = messages.iter().map(|message| message.for_template(always_text)).collect();
        let tools = if options.tools.is_empty() { Value::from(()) } else { Value::from(Serde(&options.tools)) };
        let values = context! {
            messages => Serde(&messages),
            add_generation_prompt => !options.closed,
            bos_token => self.bos_token.as_deref().unwrap_or_default(),
            eos_token => self.eos_token.as_deref().unwrap_or_default(),
            pad_token => self.pad_token.as_deref().unwrap_or_default(),
            unk_token => self.unk_token.as_deref().unwrap_or_default(),
            // `apply_chat_template` always passes them: templates ask whether they are none, and not whether they are defined.
            tools,
            documents => (),
            ..Value::from(Serde(&options.variables))
        };
        template.render(values)
    }

    /// The text of the template that shows tools.
    pub(crate) fn source(&self) -> &str {
        &self.source
    }
}

impl Templates {
    /// The one of a name; if there is only one, that.
    fn named(&self, name: &str) -> Option<&str> {
        match self {
            Self::One(source) => Some(source),
            Self::Many(named) => {
                let found = named.iter().find(|template| template.name == name);
                found.map(|template| template.template.as_str())
            }
        }
    }
}

/// Instructions one rendering may take: a conversation of a thousand turns takes some ten thousand, a hostile template all.
const MAX_INSTRUCTIONS: u64 = 10_000_000;

/// Jinja as Hugging Face sets it up: blocks trimmed, Python's methods, `raise_exception`, `strftime_now`, `tojson` as Python's
/// `json.dumps` writes, `break` and `continue`, blocks of `generation`.
fn environment(default: &str, with_tools: Option<&str>) -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(MAX_INSTRUCTIONS));
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
    environment.set_syntax(syntax);
    environment.set_unknown_method_callback(pycompat::unknown_method_callback);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
    environment.add_filter("tojson", tojson);
    environment.add_template_owned(TEMPLATE, without_generation(default))?;
    if let Some(source) = with_tools {
        environment.add_template_owned(WITH_TOOLS, without_generation(source))?;
    }
    Ok(environment)
}

/// Templates mark what the assistant says with `{% generation %}`, for training; to a text it adds nothing.
fn without_generation(source: &str) -> String {
    let mut pieces = source.split("{%");
    let mut text = pieces.next().unwrap_or_default().to_string();
    for piece in pieces {
        let inner = piece.trim_start_matches(['-', '+']).trim_start();
        let (before, rest) = piece.split_at(piece.len() - inner.len());
        let word = rest.split(|letter: char| !letter.is_alphanumeric() && letter != '_').next().unwrap_or_default();
        let (plain, rest) = match word {
            "generation" => ("if true", &rest[word.len()..]),
            "endgeneration" => ("endif", &rest[word.len()..]),
            _ => ("", rest),
        };
        text.extend(["{%", before, plain, rest]);
    }
    text
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
