//! Who vouches for a document.

use serde::{Deserialize, Serialize};

/// A signature of a document's `sha256`, which is no part of what that is the digest of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// Always `ed25519`.
    pub algorithm: String,
    /// The public key in Base64, for people: what it is verified with is given by whoever reads the document.
    pub public_key: String,
    /// The signature, in Base64, of the 64 characters of `sha256`.
    pub value: String,
}
