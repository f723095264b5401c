//! The digest that a record carries of itself. Without it a change of the last record would not show: no later record has its hash.
//!
//! It is the last member of the line, `,"digest":"sha256:…"}`: the SHA-256 of the line without this member. Logs of earlier versions
//! have none. Pure.

use sha2::{Digest, Sha256};

use super::chain::{digest, hex};

const FRAME: &str = ",\"digest\":\"sha256:";
/// A SHA-256 in hex.
const HEX: usize = 64;
const END: &str = "\"}";

/// Whether a record has a digest of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seal {
    /// It has none.
    None,
    /// It has one that fits.
    Fits,
    /// It has one that does not match, or only a remnant of one.
    Broken,
}

/// A line of JSON, without line feed, with its digest.
pub(super) fn seal(mut line: String) -> String {
    let made = digest(line.as_bytes());
    line.pop();
    [line.as_str(), FRAME, &made, END].concat()
}

/// Looks at the digest of a line that is a record, without its line feed.
pub(super) fn of(line: &[u8]) -> Seal {
    let (content, tail) = line.split_at(line.len().saturating_sub(FRAME.len() + HEX + END.len()));
    match tail.strip_prefix(FRAME.as_bytes()).and_then(|tail| tail.strip_suffix(END.as_bytes())) {
        Some(stated) if hex(Sha256::new_with_prefix(content).chain_update(b"}")).as_bytes() == stated => Seal::Fits,
        None if behind_mark(line).is_none() => Seal::None,
        _ => Seal::Broken,
    }
}

/// Whether a line that is not a record ends in a whole digest: then it was written completely, and is not cut off.
pub(super) fn was_whole(line: &[u8]) -> bool {
    behind_mark(line).is_some_and(|length| length > HEX + 1)
}

/// How many bytes the digest member takes at the end of the line. Half of the frame is enough to recognize it, so that a change of
/// the frame does not make the record look like one of an earlier version. In a text the quotes would be escaped.
fn behind_mark(line: &[u8]) -> Option<usize> {
    let tail = line.get(line.len().saturating_sub(2 * HEX)..)?;
    let behind = |mark: &str, more: usize| {
        let at = tail.windows(mark.len()).position(|window| window == mark.as_bytes())?;
        Some(tail.len().saturating_sub(at + mark.len() + more))
    };
    behind(":\"sha256:", 0).or_else(|| behind("\"digest\"", ":\"sha256:".len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_known_by_either_half_of_its_frame() {
        let line = seal("{\"event\":\"end\"}".to_owned());
        let made = digest(b"{\"event\":\"end\"}");
        assert_eq!(line, format!("{{\"event\":\"end\",\"digest\":\"sha256:{made}\"}}"));
        assert_eq!(of(line.as_bytes()), Seal::Fits);
        for at in 0..line.len() {
            let mut changed = line.clone().into_bytes();
            changed.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1);
            assert_eq!(of(&changed), Seal::Broken, "{at}");
        }
        for without in ["{}", "", "{\"event\":\"torn\",\"bytes\":1,\"sha256\":\"00\"}", r#"{"reason":"\"digest\":\"sha256:00"}"#] {
            assert_eq!(of(without.as_bytes()), Seal::None, "{without}");
        }
    }

    #[test]
    fn what_was_cut_off_has_no_whole_digest() {
        let line = seal("{\"event\":\"end\"}".to_owned());
        for cut in 0..line.len() {
            assert!(!line.get(..cut).is_some_and(|line| was_whole(line.as_bytes())), "{cut}");
        }
        for whole in [line.clone(), line.replace("\"}", "\" "), format!("{line}x")] {
            assert!(was_whole(whole.as_bytes()), "{whole}");
        }
    }
}
