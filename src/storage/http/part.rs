//! Ranges of objects: the `Range` header, and checks of the response.

use std::io::{self, Read};
use std::ops::Range;

use super::{Framing, Header, HttpResponse, header as plain};
use crate::storage::StorageError;

/// Returns the header for a range; `None` for an empty range, which HTTP cannot express.
pub(in crate::storage) fn header(range: &Range<u64>) -> Result<Option<Header>, StorageError> {
    match range.end.checked_sub(1) {
        Some(last) if last >= range.start => plain("range", &format!("bytes={}-{last}", range.start), false).map(Some),
        _ => Ok(None),
    }
}

/// Returns the bytes of an object, or of the requested range of it, from a successful response.
///
/// # Errors
/// [`StorageErrorKind::Protocol`](crate::storage::StorageErrorKind::Protocol) if the response is another range, or if its end cannot
/// be distinguished from a broken connection.
pub(in crate::storage) fn reader(response: HttpResponse, range: Option<Range<u64>>) -> Result<Box<dyn Read + Send>, StorageError> {
    let framing = response.framing();
    if framing == Framing::Close {
        return Err(response.protocol_error("the response has neither a length nor chunks"));
    }
    let content_range_header = response.header("content-range").and_then(content_range);
    // rclone's server sends ranges with status 200.
    match (response.status() == 206 || content_range_header.is_some(), range) {
        (true, Some(range)) => {
            let Some((first, last, total)) = content_range_header else {
                return Err(response.protocol_error("the response has no valid Content-Range"));
            };
            let end = total.map_or(range.end, |total| range.end.min(total));
            let length = framing_length(framing).unwrap_or(end.saturating_sub(range.start));
            if first != range.start || last.checked_add(1) != Some(end) || length != end.saturating_sub(range.start) {
                return Err(response.protocol_error(format!(
                    "the response has bytes {first} to {last}, but {} to {} were requested",
                    range.start,
                    range.end.saturating_sub(1)
                )));
            }
            Ok(Box::new(response.stream()))
        }
        (true, None) => Err(response.protocol_error("the response is a part of the object, but all of it was requested")),
        (false, None) => Ok(Box::new(response.stream())),
        // The server does not support ranges: the bytes before are discarded.
        (false, Some(range)) => {
            let mut all = response.stream();
            io::copy(&mut (&mut all).take(range.start), &mut io::sink()).map_err(|error| from_io(&error))?;
            Ok(Box::new(all.take(range.end.saturating_sub(range.start))))
        }
    }
}

fn framing_length(framing: Framing) -> Option<u64> {
    match framing {
        Framing::Length(length) => Some(length),
        Framing::Chunked | Framing::Close => None,
    }
}

fn from_io(error: &io::Error) -> StorageError {
    StorageError::of_io(error).cloned().unwrap_or_else(|| StorageError::new(crate::storage::StorageErrorKind::Transient, error.to_string()))
}

/// Parses `bytes FIRST-LAST/TOTAL`. The total may be unknown.
fn content_range(text: &str) -> Option<(u64, u64, Option<u64>)> {
    let (part, total) = text.strip_prefix("bytes")?.trim_start_matches([' ', '=']).split_once('/')?;
    let (first, last) = part.split_once('-')?;
    let total = match total.trim() {
        "*" => None,
        total => Some(total.parse().ok()?),
    };
    Some((first.trim().parse().ok()?, last.trim().parse().ok()?, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_range_is_read() {
        assert_eq!(content_range("bytes 0-9/100"), Some((0, 9, Some(100))));
        assert_eq!(content_range("bytes 5-5/*"), Some((5, 5, None)));
        for wrong in ["", "bytes */100", "items 0-9/100", "bytes 0-9", "bytes a-9/10"] {
            assert_eq!(content_range(wrong), None, "{wrong}");
        }
    }
}
