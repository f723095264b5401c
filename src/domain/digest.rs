//! SHA-256 over a document.

use std::io;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::hex;

/// SHA-256, in hex, over the compact JSON of a document. The JSON is never in memory as a whole, as a document can have some hundred MiB.
///
/// If a value cannot be written as JSON (a map with keys that are not strings), the digest covers what is before it. No document has one.
pub fn of_json(document: &impl Serialize) -> String {
    let mut hasher = Hasher(Sha256::new());
    let mut gathered = io::BufWriter::with_capacity(64 * 1024, &mut hasher);
    // The hasher accepts everything, so dropping the buffer loses nothing.
    let _ = serde_json::to_writer(&mut gathered, document).map_err(io::Error::from).and_then(|()| io::Write::flush(&mut gathered));
    drop(gathered);
    hex::encode(&hasher.0.finalize())
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
