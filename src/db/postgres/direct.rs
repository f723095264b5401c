//! Whether a connection leads to the server itself or to a pooler.
//!
//! At login the server names the process that serves the connection, so that a client can cancel a statement. A pooler names another one,
//! because it serves the connection itself. The driver keeps the number for requests to cancel; here it writes one that is not sent.

use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::CancelToken;
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

/// The process that the server named at login.
pub(super) async fn process_of(token: &CancelToken) -> Option<i64> {
    let mut kept = Kept::default();
    token.cancel_query_raw(&mut kept, NoEncryption).await.ok()?;
    process_in(&kept.bytes)
}

/// The process in a request to cancel, the last 16 bytes: length, code, process, key.
fn process_in(bytes: &[u8]) -> Option<i64> {
    let (_, request) = bytes.split_at_checked(bytes.len().checked_sub(16)?)?;
    let process: [u8; 4] = request.get(8..12)?.try_into().ok()?;
    Some(i64::from(i32::from_be_bytes(process)))
}

/// A stream that keeps what is written, and that answers a request for TLS with yes.
#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
}

impl AsyncRead for Kept {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        buffer.put_slice(b"S");
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Kept {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.bytes.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl TlsStream for &mut Kept {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

/// Does not encrypt, because nothing of this stream is sent.
struct NoEncryption;

impl<'k> TlsConnect<&'k mut Kept> for NoEncryption {
    type Stream = &'k mut Kept;
    type Error = io::Error;
    type Future = Ready<Result<&'k mut Kept, io::Error>>;

    fn connect(self, stream: &'k mut Kept) -> Self::Future {
        ready(Ok(stream))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_the_third_number_of_a_request_to_cancel() {
        let request = [0, 0, 0, 16, 0x04, 0xd2, 0x16, 0x2e, 0, 0, 0x12, 0x34, 9, 9, 9, 9];
        assert_eq!(process_in(&request), Some(0x1234));
        assert_eq!(process_in(&[&[1, 2, 3][..], &request].concat()), Some(0x1234));
        assert_eq!(process_in(&request[1..]), None);
    }
}
