//! The messages that cross a stream, and their framing. Pure: reading and writing streams is `p2p`'s part.
//!
//! postcard's order of enum variants is the wire format: variants are only ever appended. The version stands in the
//! protocol's name ([`INFO_VERSION`], [`SESSION_VERSION`]).

mod frame;
mod info;
mod rows;
mod session;

pub use frame::{FrameError, FrameHead, MAX_HEADER_BYTES, PREFIX_BYTES, Payload, decode, encode};
pub use info::{InfoReply, InfoRequest, ServerInfo};
pub use rows::{ElementType, MAX_HIDDEN, MAX_STEP_ROWS, RowsError, RowsHeader};
pub use session::{
    CloseReason, Input, Open, Output, OutputRows, Refusal, SessionReply, SessionRequest, Step, StepError, StepOutput,
};

/// Version of the info protocol.
pub const INFO_VERSION: u32 = 1;

/// Version of the session protocol.
pub const SESSION_VERSION: u32 = 1;

/// Version of the DHT's record format.
pub const KAD_VERSION: u32 = 1;
