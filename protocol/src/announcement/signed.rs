//! A statement with its author's signature.

use libp2p_identity::{DecodingError, Keypair, PublicKey, SigningError};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::PeerId;
use crate::swarm_name::SwarmName;

use super::Statement;

/// The largest encoded statement, in bytes: eight addresses and eight neighbours fit with room to spare.
pub(super) const MAX_STATEMENT_BYTES: usize = 2048;

/// An ed25519 signature's length in bytes.
const SIGNATURE_BYTES: usize = 64;

/// The bytes of a statement as its author signed them. They are kept and passed on as they came: encoding them anew
/// could change them under the signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    statement: Vec<u8>,
    signature: Vec<u8>,
}

/// Why a signed statement is worth nothing.
#[derive(Debug, Error)]
pub enum SignatureError {
    /// Longer than any honest statement.
    #[error("a statement of {0} bytes is over the limit of {MAX_STATEMENT_BYTES}")]
    TooLong(usize),
    /// Not a statement of this version.
    #[error("the statement does not decode: {0}")]
    Malformed(#[from] postcard::Error),
    /// Some list or text in it is over its bound.
    #[error("the statement holds more addresses, neighbours or text than it may")]
    OutOfBounds,
    /// The author's peer id does not hold its public key, so nothing can be verified.
    #[error("the author's peer id {0} holds no public key; only ed25519 identities can announce")]
    NoKey(PeerId),
    /// The key in the author's peer id is damaged.
    #[error("the author's public key does not decode: {0}")]
    BadKey(#[from] DecodingError),
    /// Signed by somebody else, for another swarm, or changed on the way.
    #[error("the signature is not the author's for this swarm")]
    Forged,
    /// The own key cannot sign.
    #[error("signing failed: {0}")]
    Signing(#[from] SigningError),
}

impl Signed {
    /// Signs `statement` for `swarm`.
    ///
    /// # Errors
    /// [`SignatureError`] if the statement is out of bounds or the key cannot sign.
    pub fn new(statement: &Statement, swarm: &SwarmName, keypair: &Keypair) -> Result<Self, SignatureError> {
        if !statement.within_bounds() {
            return Err(SignatureError::OutOfBounds);
        }
        let statement = postcard::to_allocvec(statement)?;
        if statement.len() > MAX_STATEMENT_BYTES {
            return Err(SignatureError::TooLong(statement.len()));
        }
        let signature = keypair.sign(&signed_bytes(swarm, &statement))?;
        Ok(Self { statement, signature })
    }

    /// The statement, if its author signed it for `swarm`.
    ///
    /// # Errors
    /// [`SignatureError`] says what is wrong with it.
    pub fn verify(&self, swarm: &SwarmName) -> Result<Statement, SignatureError> {
        if self.statement.len() > MAX_STATEMENT_BYTES {
            return Err(SignatureError::TooLong(self.statement.len()));
        }
        let statement: Statement = postcard::from_bytes(&self.statement)?;
        if !statement.within_bounds() {
            return Err(SignatureError::OutOfBounds);
        }
        let key = public_key(statement.peer())?;
        let genuine = self.signature.len() == SIGNATURE_BYTES
            && key.verify(&signed_bytes(swarm, &self.statement), &self.signature);
        if !genuine {
            return Err(SignatureError::Forged);
        }
        Ok(statement)
    }

    /// The size of the encoded statement with its signature, in bytes.
    pub fn encoded_len(&self) -> usize {
        // Two length prefixes of at most two bytes each.
        self.statement.len() + self.signature.len() + 4
    }
}

/// What is signed: a statement made for one swarm says nothing in another.
fn signed_bytes(swarm: &SwarmName, statement: &[u8]) -> Vec<u8> {
    let mut bytes = swarm.protocol("statement", 1).into_bytes();
    bytes.push(0);
    bytes.extend_from_slice(statement);
    bytes
}

/// The public key that an ed25519 peer id is made of.
fn public_key(peer: PeerId) -> Result<PublicKey, SignatureError> {
    /// The multihash code of data that is carried as it is.
    const IDENTITY: u64 = 0;
    let hash = peer.as_ref();
    if hash.code() != IDENTITY {
        return Err(SignatureError::NoKey(peer));
    }
    Ok(PublicKey::try_decode_protobuf(hash.digest())?)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::tests_support::announcement;
    use super::*;

    #[test]
    fn only_the_author_of_the_same_swarm_is_believed() {
        let keys = Keypair::generate_ed25519();
        let swarm: SwarmName = "a".parse().unwrap();
        let statement = Statement::Announcement(announcement(&keys, 7));
        let signed = Signed::new(&statement, &swarm, &keys).unwrap();
        assert_eq!(signed.verify(&swarm).unwrap(), statement);

        let other_swarm = "b".parse().unwrap();
        assert!(matches!(signed.verify(&other_swarm), Err(SignatureError::Forged)));

        let thief = Keypair::generate_ed25519();
        let forged = Signed::new(&statement, &swarm, &thief).unwrap();
        assert!(matches!(forged.verify(&swarm), Err(SignatureError::Forged)));

        for place in 0..signed.statement.len() {
            let mut changed = signed.clone();
            changed.statement[place] ^= 1;
            assert!(changed.verify(&swarm).is_err(), "byte {place}");
        }
    }

    #[test]
    fn out_of_bounds_is_refused_on_both_sides() {
        let keys = Keypair::generate_ed25519();
        let swarm = SwarmName::default();
        for name in ["x".repeat(super::super::MAX_NAME_BYTES + 1), "\u{1b}[2J".to_string()] {
            let mut lying = announcement(&keys, 1);
            lying.name = Some(name);
            let statement = Statement::Announcement(lying);
            assert!(matches!(Signed::new(&statement, &swarm, &keys), Err(SignatureError::OutOfBounds)));
            let bytes = postcard::to_allocvec(&statement).unwrap();
            let signature = keys.sign(&signed_bytes(&swarm, &bytes)).unwrap();
            let smuggled = Signed { statement: bytes, signature };
            assert!(matches!(smuggled.verify(&swarm), Err(SignatureError::OutOfBounds)));
        }
    }
}
