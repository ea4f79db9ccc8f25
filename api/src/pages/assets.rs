//! The files of the page, as they are in this program.

/// The document; a server of blocks shows it without the chat.
pub(super) const DOCUMENT: &str = include_str!("files/index.html");

/// A file that the document uses.
pub(super) struct Asset {
    pub(super) name: &'static str,
    /// Its media type.
    pub(super) kind: &'static str,
    pub(super) text: &'static str,
}

const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

macro_rules! asset {
    ($name:literal, $kind:expr) => {
        Asset { name: $name, kind: $kind, text: include_str!(concat!("files/", $name)) }
    };
}

/// All of them.
pub(super) const ASSETS: &[Asset] = &[
    asset!("base.css", CSS),
    asset!("chat.css", CSS),
    asset!("map.css", CSS),
    asset!("icon.svg", SVG),
    asset!("main.js", SCRIPT),
    asset!("dom.js", SCRIPT),
    asset!("format.js", SCRIPT),
    asset!("http.js", SCRIPT),
    asset!("theme.js", SCRIPT),
    asset!("tips.js", SCRIPT),
    asset!("live.js", SCRIPT),
    asset!("map.js", SCRIPT),
    asset!("map_blocks.js", SCRIPT),
    asset!("map_side.js", SCRIPT),
    asset!("map_table.js", SCRIPT),
    asset!("chat.js", SCRIPT),
    asset!("completion.js", SCRIPT),
    asset!("conversation.js", SCRIPT),
    asset!("markdown.js", SCRIPT),
    asset!("message.js", SCRIPT),
    asset!("settings.js", SCRIPT),
];
