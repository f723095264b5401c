//! The digest over a plan.

use sha2::{Digest, Sha256};

use super::Plan;
use crate::domain::hex;

/// SHA-256, in hex, over the plan's compact JSON with `sha256` empty: white space in the file does not count.
pub fn of(plan: &Plan) -> String {
    let bare = Plan { sha256: String::new(), ..plan.clone() };
    let text = serde_json::to_vec(&bare).unwrap_or_default();
    hex::encode(&Sha256::digest(&text))
}
