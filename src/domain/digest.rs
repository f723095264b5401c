//! SHA-256 over what a document says.

use std::io;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::hex;

/// In hex, over the document's compact JSON, which is never in memory as a whole: a plan or a survey can be some hundred MiB.
///
/// What has no form in JSON (a map with keys that are no strings) has the digest of what stands before it; there is none here.
pub fn of_json(document: &impl Serialize) -> String {
    let mut hasher = Hasher(Sha256::new());
    let mut gathered = io::BufWriter::with_capacity(64 * 1024, &mut hasher);
    // The hasher takes everything, so nothing is lost where the buffer is given up.
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
