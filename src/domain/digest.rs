//! SHA-256 over a document.

use std::io;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::hex;

/// SHA-256, in hex, over the compact JSON of a document that is in memory.
///
/// If a value cannot be written as JSON (a map with keys that are not strings), the digest is empty. No document has one.
pub fn of_json(document: &impl Serialize) -> String {
    try_of_json(document).unwrap_or_default()
}

/// The same for a document that is read while it is written. The JSON is never in memory as a whole, as a document can have some hundred
/// MiB.
///
/// # Errors
/// Those of reading the document.
pub fn try_of_json(document: &impl Serialize) -> io::Result<String> {
    let mut hasher = Hasher(Sha256::new());
    let mut gathered = io::BufWriter::with_capacity(64 * 1024, &mut hasher);
    serde_json::to_writer(&mut gathered, document)?;
    io::Write::flush(&mut gathered)?;
    drop(gathered);
    Ok(hex::encode(&hasher.0.finalize()))
}

/// 16 bytes of the SHA-256 over some texts, for sets of many.
pub fn short(texts: &[&str]) -> u128 {
    let mut hasher = Sha256::new();
    for text in texts {
        hasher.update((text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    hasher.finalize().iter().take(16).fold(0, |number, byte| number << 8 | u128::from(*byte))
}

struct Hasher(Sha256);

impl io::Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_that_of_the_compact_text() {
        let long = "x".repeat(200_000);
        let document = serde_json::json!({ "a": [1, long], "b": null });
        assert_eq!(of_json(&document), hex::encode(&Sha256::digest(document.to_string().as_bytes())));
    }
}
