//! The signature of a document.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A signature of a document's `sha256`. The digest does not cover the signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// Always `ed25519`.
    pub algorithm: String,
    /// The public key in Base64, for people. Verification uses the key that the reader gives, never this one.
    pub public_key: String,
    /// The signature, in Base64, of the 64 characters of `sha256`.
    pub value: String,
}
