//! Hashes of lines: the one that the next record carries, and the digest at the end of each record.
//!
//! No later record has the hash of the last one, so only its own digest shows that it was changed. The digest is the last member of
//! the line, `,"digest":"sha256:…"}`: the SHA-256 of the line without this member. Logs of earlier versions have none. Pure; depends on
//! `domain::hex` only.

use sha2::{Digest, Sha256};

use crate::domain::hex;

const FRAME: &str = ",\"digest\":\"sha256:";
/// A SHA-256 in hex.
const HEX: usize = 64;
const END: &str = "\"}";

/// The SHA-256 of a line in lower-case hex, without its line feed if it has one.
pub fn digest(line: &[u8]) -> String {
    hex_of(Sha256::new_with_prefix(line.strip_suffix(b"\n").unwrap_or(line)))
}

/// The digest in lower-case hex.
pub(super) fn hex_of(hasher: Sha256) -> String {
    hex::encode(&hasher.finalize())
}

/// The digest at the end of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LineDigest {
    /// The record has none.
    Missing,
    /// It matches the record.
    Right,
    /// It does not match, or only a part of it is left.
    Wrong,
}

/// Adds the digest to a line of JSON that has no line feed.
pub(super) fn with_digest(mut line: String) -> String {
    let digest = digest(line.as_bytes());
    line.pop();
    [line.as_str(), FRAME, &digest, END].concat()
}

/// Checks the digest of a record, given without its line feed.
pub(super) fn check(line: &[u8]) -> LineDigest {
    let (content, tail) = line.split_at(line.len().saturating_sub(FRAME.len() + HEX + END.len()));
    match tail.strip_prefix(FRAME.as_bytes()).and_then(|tail| tail.strip_suffix(END.as_bytes())) {
        Some(stated) if hex_of(Sha256::new_with_prefix(content).chain_update(b"}")).as_bytes() == stated => LineDigest::Right,
        None if digest_len(line).is_none() => LineDigest::Missing,
        _ => LineDigest::Wrong,
    }
}

/// Whether a line that is not a record ends in a complete digest. Such a line was written completely and is not cut off.
pub(super) fn is_complete(line: &[u8]) -> bool {
    digest_len(line).is_some_and(|length| length > HEX + 1)
}

/// How many bytes follow the frame of the digest. Half of the frame is enough to recognize it: otherwise a change of the frame would
/// make the record look like one of an earlier version. Inside a JSON string the quotes would be escaped.
fn digest_len(line: &[u8]) -> Option<usize> {
    let tail = line.get(line.len().saturating_sub(2 * HEX)..)?;
    let after = |mark: &str, more: usize| {
        let at = tail.windows(mark.len()).position(|window| window == mark.as_bytes())?;
        Some(tail.len().saturating_sub(at + mark.len() + more))
    };
    after(":\"sha256:", 0).or_else(|| after("\"digest\"", ":\"sha256:".len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_half_of_the_frame_shows_that_there_is_a_digest() {
        let line = with_digest("{\"event\":\"end\"}".to_owned());
        let made = digest(b"{\"event\":\"end\"}");
        assert_eq!(line, format!("{{\"event\":\"end\",\"digest\":\"sha256:{made}\"}}"));
        assert_eq!(check(line.as_bytes()), LineDigest::Right);
        for at in 0..line.len() {
            let mut changed = line.clone().into_bytes();
            changed.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1);
            assert_eq!(check(&changed), LineDigest::Wrong, "{at}");
        }
        for without in ["{}", "", "{\"event\":\"torn\",\"bytes\":1,\"sha256\":\"00\"}", r#"{"reason":"\"digest\":\"sha256:00"}"#] {
            assert_eq!(check(without.as_bytes()), LineDigest::Missing, "{without}");
        }
    }

    #[test]
    fn a_line_that_was_cut_off_has_no_complete_digest() {
        let line = with_digest("{\"event\":\"end\"}".to_owned());
        for cut in 0..line.len() {
            assert!(!line.get(..cut).is_some_and(|line| is_complete(line.as_bytes())), "{cut}");
        }
        for whole in [line.clone(), line.replace("\"}", "\" "), format!("{line}x")] {
            assert!(is_complete(whole.as_bytes()), "{whole}");
        }
    }
}
