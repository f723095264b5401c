//! Ranges of objects: the `Range` header, and checks of the response.

use std::io::{self, Read};
use std::ops::Range;

use super::{Header, HttpResponse, HttpStore};
use crate::storage::StorageError;

/// Opens an object or a range of it, as [`ObjectStore::open`](crate::storage::ObjectStore::open).
pub(super) fn open(store: &impl HttpStore, name: &str, range: Option<Range<u64>>) -> Result<Box<dyn Read + Send>, StorageError> {
    let range_header = match &range {
        None => None,
        // HTTP cannot express an empty range.
        Some(range) if range.is_empty() => {
            return store.info(name)?.map(|_| Box::new(io::empty()) as _).ok_or_else(|| StorageError::no_object(name, store.place()));
        }
        Some(range) => Some(header(range)?),
    };
    match store.get(name, range_header)? {
        Some(response) => reader(response, range),
        None => Ok(Box::new(io::empty())),
    }
}

/// Returns the header for a range that is not empty.
pub(in crate::storage) fn header(range: &Range<u64>) -> Result<Header, StorageError> {
    super::header("range", &format!("bytes={}-{}", range.start, range.end.saturating_sub(1)), false)
}

/// Returns the bytes of an object, or of the requested range of it, from a successful response.
///
/// # Errors
/// [`StorageErrorKind::Protocol`](crate::storage::StorageErrorKind::Protocol) if the response is another range, or if its end cannot
/// be distinguished from a broken connection.
pub(super) fn reader(response: HttpResponse, range: Option<Range<u64>>) -> Result<Box<dyn Read + Send>, StorageError> {
    let length = response.body_length();
    if length.is_none() && !response.is_chunked() {
        return Err(response.protocol_error("the response has neither a length nor chunks"));
    }
    let content_range = response.header("content-range").and_then(content_range);
    // rclone's server sends ranges with status 200.
    match (response.status() == 206 || content_range.is_some(), range) {
        (true, Some(range)) => {
            let Some((first, last, total)) = content_range else {
                return Err(response.protocol_error("the response has no valid Content-Range"));
            };
            let end = total.map_or(range.end, |total| range.end.min(total));
            let expected = end.saturating_sub(range.start);
            if first != range.start || last.checked_add(1) != Some(end) || length.unwrap_or(expected) != expected {
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
            io::copy(&mut (&mut all).take(range.start), &mut io::sink()).map_err(StorageError::from_stream)?;
            Ok(Box::new(all.take(range.end.saturating_sub(range.start))))
        }
    }
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
