//! What the storage servers share: their Python environment, and requests that show whether they answer.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

use super::root;

/// The password of every account on every storage, with characters that a client must escape.
pub const PASSWORD: &str = "pass-wörd+%/&=?";

/// The Python of the environment that `tests/run` makes for the storage servers.
pub fn python() -> PathBuf {
    let path = root().join(".cache/storage-venv/bin/python");
    assert!(path.exists(), "{} is missing; tests/run makes it", path.display());
    path
}

/// A server's program.
pub fn script(name: &str) -> PathBuf {
    root().join("tests/storage").join(name)
}

/// The status of a GET; `None` if there is no answer.
pub fn get(port: u16, path: &str) -> Option<u16> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n").ok()?;
    let mut answer = String::new();
    // Only the first line matters; the rest may not be text.
    let _ = stream.read_to_string(&mut answer);
    answer.split(' ').nth(1)?.parse().ok()
}

/// Whether a port accepts connections.
pub fn listens(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

/// A name as a part of a URL; bytes of `plain` stay as they are.
pub fn percent(name: &str, plain: &[u8]) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) || plain.contains(&byte);
    name.bytes().map(|byte| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
