//! The messages that cross a stream, and their framing. Pure: reading and writing streams is `p2p`'s part.
//!
//! postcard's order of enum variants is the wire format: variants are only ever appended. The version stands in the
//! protocol's name ([`INFO_VERSION`], [`SESSION_VERSION`], [`EDGES_VERSION`]).

mod chain;
mod edges;
mod frame;
mod info;
mod link_format;
mod prefix;
mod refusal;
mod rows;
mod session;

pub use chain::{Connect, HandOver, Incoming, Input, KvHeader, Lane, MAX_KV_BYTES, MAX_NEXT_ADDRESSES, Next, Output};
pub use edges::{
    COUNTED_ID_BYTES, ChooseToken, ChooseWith, ChosenToken, EdgesOffer, EdgesRefusal, EdgesReply, EdgesRequest,
    MAX_SEEN_IDS, MAX_TOP_TOKENS, OpenEdges, SEEN_ID_BYTES,
};
pub use frame::{FrameError, FrameHead, MAX_HEADER_BYTES, PREFIX_BYTES, Payload, decode, encode};
pub use info::{InfoReply, InfoRequest, ServerInfo};
pub use link_format::{LinkFormat, LinkFormats, UnknownLinkFormat};
pub use prefix::{Keep, MAX_PAGE_KEYS, PAGE_POSITIONS, PageKey, PageScope, Recall};
pub use refusal::{CloseReason, Refusal, StepError};
pub use rows::{
    ElementType, INT8_CELL, INT8_SCALE_BYTES, MAX_HIDDEN, MAX_STEP_ROWS, RowEncoding, RowsError, RowsHeader,
};
pub use session::{Open, SessionReply, SessionRequest, Step, StepDone, StepOutput};

/// Version of the info protocol.
pub const INFO_VERSION: u32 = 2;

/// Version of the session protocol.
pub const SESSION_VERSION: u32 = 6;

/// Version of the edges protocol.
pub const EDGES_VERSION: u32 = 3;

/// Version of the DHT's record format.
pub const KAD_VERSION: u32 = 2;
