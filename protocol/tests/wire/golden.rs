//! Annotated hexdumps. A part is bytes in hexadecimal, `aa*32` for a byte that repeats, and what they are.

use std::fmt::{Debug, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;
use swarm_protocol::Keypair;

pub(crate) type Part = (&'static str, &'static str);

/// The peer with the secret key 07 07 07 …: 0 = identity multihash, 24 = 36 bytes of a protobuf `PublicKey`
/// (08 01 = ed25519, 12 20 = 32 bytes of key), with the length of it all in front.
pub(crate) const SEVEN: Part =
    ("26 0024 0801 1220 ea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea691446d22c", "peer id of key 7");

/// The peer with the secret key 08 08 08 ….
pub(crate) const EIGHT: Part =
    ("26 0024 0801 1220 1398f62c6d1a457c51ba6a4b5f3dbd2f69fca93216218dc8997e416bd17d93ca", "peer id of key 8");

pub(crate) fn keys(seed: u8) -> Keypair {
    Keypair::ed25519_from_bytes([seed; 32]).unwrap()
}

pub(crate) fn bytes(hex: &str) -> Vec<u8> {
    let token = |token: &str| {
        let (digits, times) = token.split_once('*').unwrap_or((token, "1"));
        assert!(digits.len().is_multiple_of(2), "{token}");
        let pairs = (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap());
        pairs.collect::<Vec<u8>>().repeat(times.parse().unwrap())
    };
    hex.split_whitespace().flat_map(token).collect()
}

/// Fails with the first part that differs. A failure means that the wire format has changed: peers of older releases will
/// no longer be understood. Append variants instead, or raise the version in the protocol's name.
pub(crate) fn assert_layout(found: &[u8], layout: &[Part]) {
    let mut dump = String::new();
    let mut at = 0;
    for (hex, what) in layout {
        let expected = bytes(hex);
        let end = (at + expected.len()).min(found.len());
        let same = found[at..end] == expected[..];
        writeln!(dump, "{} {at:4}  {what}: {hex}", if same { "  " } else { "! " }).unwrap();
        assert!(same, "the wire format has changed:\n{dump}  found {}", to_hex(&found[at..]));
        at = end;
    }
    assert_eq!(at, found.len(), "the wire format has changed:\n{dump}  left over {}", to_hex(&found[at..]));
}

/// Both directions: `message` has these bytes, and these bytes are `message`.
pub(crate) fn assert_golden<M: Serialize + DeserializeOwned + PartialEq + Debug>(message: &M, layout: &[Part]) {
    let encoded = postcard::to_allocvec(message).unwrap();
    assert_layout(&encoded, layout);
    assert_eq!(&postcard::from_bytes::<M>(&encoded).unwrap(), message);
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
