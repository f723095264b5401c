//! Parts of objects: `Range` and what servers make of it.

use std::io::{self, Read};
use std::ops::Range;

use super::{Framing, Header, HttpResponse, header as plain};
use crate::storage::StorageError;

/// The header that asks for a part; `None` for a part without bytes, which HTTP cannot say.
pub(in crate::storage) fn header(range: &Range<u64>) -> Result<Option<Header>, StorageError> {
    match range.end.checked_sub(1) {
        Some(last) if last >= range.start => plain("range", &format!("bytes={}-{last}", range.start), false).map(Some),
        _ => Ok(None),
    }
}

/// The bytes of an object, or of the part of it that was asked for, from a good response.
///
/// # Errors
/// [`StorageErrorKind::Protocol`](crate::storage::StorageErrorKind::Protocol) where the response is another part, or where its
/// end cannot be content_range_header from a broken connection.
pub(in crate::storage) fn reader(response: HttpResponse, range: Option<Range<u64>>) -> Result<Box<dyn Read + Send>, StorageError> {
    let framing = response.framing();
    if framing == Framing::Close {
        return Err(response.protocol_error("the response tells neither its length nor its end"));
    }
    let content_range_header = response.header("content-range").and_then(content_range);
    // rclone's server gives parts with status 200: the header says more.
    match (response.status() == 206 || content_range_header.is_some(), range) {
        (true, Some(range)) => {
            let Some((first, last, total)) = content_range_header else {
                return Err(response.protocol_error("the response does not tell which part of the object it is"));
            };
            let end = total.map_or(range.end, |total| range.end.min(total));
            let length = framing_length(framing).unwrap_or(end.saturating_sub(range.start));
            if first != range.start || last.checked_add(1) != Some(end) || length != end.saturating_sub(range.start) {
                return Err(response.protocol_error(format!(
                    "the response is bytes {first} to {last}, while {} to {} were asked for",
                    range.start,
                    range.end.saturating_sub(1)
                )));
            }
            Ok(Box::new(response.stream()))
        }
        (true, None) => Err(response.protocol_error("the response is a part of the object, while all of it was asked for")),
        (false, None) => Ok(Box::new(response.stream())),
        // The server knows no parts: what comes before is read and thrown away.
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

/// `bytes FIRST-LAST/TOTAL`; the total may be unknown.
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
