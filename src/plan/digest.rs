//! The digest over a plan.

use super::Plan;
use crate::domain::digest;

/// SHA-256, in hex, over the plan's compact JSON with `sha256` empty and no signature: white space in the file does not count.
pub fn of(plan: &mut Plan) -> String {
    // A plan of many units is too large to be copied for this.
    let (stated, signature) = (std::mem::take(&mut plan.sha256), plan.signature.take());
    let made = digest::of_json(plan);
    (plan.sha256, plan.signature) = (stated, signature);
    made
}
