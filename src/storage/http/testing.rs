//! A server for tests. It can send any bytes, as a hostile or broken server would.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::{ControlFlow, Range};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use super::Network;
use crate::config::{CinderConf, StorageOptions};
use crate::storage::{ObjectStore, StorageError, conformance};

/// A request that the server received.
#[derive(Debug, Clone)]
pub(in crate::storage) struct ReceivedRequest {
    pub(in crate::storage) method: String,
    /// Path and query, not decoded.
    pub(in crate::storage) target: String,
    /// Names in lower case.
    pub(in crate::storage) headers: BTreeMap<String, String>,
    pub(in crate::storage) body: Vec<u8>,
}

impl ReceivedRequest {
    pub(in crate::storage) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

impl ReceivedRequest {
    /// Returns the path and the values of the query, decoded.
    pub(in crate::storage) fn path_and_query(&self) -> (String, BTreeMap<String, String>) {
        let decode = |text: &str| percent_decode_str(text).decode_utf8().unwrap().into_owned();
        let (path, query) = self.target.split_once('?').unwrap_or((&self.target, ""));
        (
            decode(path),
            query.split('&').filter_map(|part| part.split_once('=')).map(|(name, value)| (name.to_owned(), decode(value))).collect(),
        )
    }
}

/// The objects of the conformance test.
pub(in crate::storage) struct Objects(BTreeMap<String, Vec<u8>>);

impl Objects {
    /// Names on a page.
    pub(in crate::storage) const PAGE: usize = 400;

    pub(in crate::storage) fn new() -> Self {
        Self(conformance::content(true))
    }

    /// Returns a page of names and sizes.
    pub(in crate::storage) fn page(&self, prefix: &str, after: &str) -> Vec<(String, usize)> {
        let wanted = self.0.iter().filter(|(name, _)| name.starts_with(prefix) && name.as_str() > after);
        wanted.take(Self::PAGE).map(|(name, bytes)| (name.clone(), bytes.len())).collect()
    }

    pub(in crate::storage) fn size(&self, name: &str) -> Option<usize> {
        self.0.get(name).map(Vec::len)
    }

    /// Returns an object, or the requested range of it.
    pub(in crate::storage) fn get(&self, name: &str, request: &ReceivedRequest, mut headers: Vec<(&'static str, String)>) -> Reply {
        let Some(bytes) = self.0.get(name) else { return status(404) };
        headers.push(("Last-Modified", "Sun, 22 Nov 2026 10:00:00 GMT".to_owned()));
        let Some((first, last)) = request.header("range").strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
            return Reply::Response(200, headers, bytes.clone());
        };
        let (first, last): (u64, u64) = (first.parse().unwrap(), last.parse().unwrap());
        let size = bytes.len() as u64;
        if first >= size {
            return status(416);
        }
        let last = last.min(size - 1);
        headers.push(("Content-Range", format!("bytes {first}-{last}/{size}")));
        Reply::Response(206, headers, bytes.get(first as usize..=last as usize).unwrap().to_vec())
    }
}

/// What the server does with a request.
pub(in crate::storage) enum Reply {
    /// Sends status, headers and body, with the right length.
    Response(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// Sends these bytes and closes the connection.
    Bytes(Vec<u8>),
    /// Sends these bytes and stalls.
    Stall(Vec<u8>),
    /// Sends these bytes, and then one more after each pause.
    Drip(Vec<u8>, Duration),
}

/// A response with status 200.
pub(in crate::storage) fn ok(headers: &[(&'static str, &str)], body: impl Into<Vec<u8>>) -> Reply {
    Reply::Response(200, headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(), body.into())
}

/// A response with a status only.
pub(in crate::storage) fn status(status: u16) -> Reply {
    Reply::Response(status, Vec::new(), Vec::new())
}

/// A server on loopback. Its threads end with the process.
pub(in crate::storage) struct TestServer {
    pub(in crate::storage) url: String,
    seen: Arc<Mutex<Vec<ReceivedRequest>>>,
    connections: Arc<AtomicUsize>,
}

impl TestServer {
    pub(in crate::storage) fn new(response: impl Fn(&ReceivedRequest) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(AtomicUsize::new(0));
        let (kept, response, count) = (Arc::clone(&seen), Arc::new(response), Arc::clone(&connections));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                count.fetch_add(1, Ordering::SeqCst);
                let (kept, response) = (Arc::clone(&kept), Arc::clone(&response));
                thread::spawn(move || {
                    while let Some(request) = read(&stream) {
                        kept.lock().unwrap().push(request.clone());
                        if !write(&stream, response(&request), request.method == "HEAD") {
                            break;
                        }
                    }
                });
            }
        });
        Self { url, seen, connections }
    }

    /// Returns the number of connections so far.
    pub(in crate::storage) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Returns the requests so far.
    pub(in crate::storage) fn requests(&self) -> Vec<ReceivedRequest> {
        self.seen.lock().unwrap().clone()
    }
}

fn read(stream: &TcpStream) -> Option<ReceivedRequest> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let mut body = vec![0; headers.get("content-length").map_or(0, |length| length.parse().unwrap())];
    reader.read_exact(&mut body).ok()?;
    Some(ReceivedRequest { method, target, headers, body })
}

/// Sends a reply. Returns whether the connection stays open.
fn write(mut stream: &TcpStream, reply: Reply, head: bool) -> bool {
    match reply {
        Reply::Response(status, headers, body) => {
            let mut text = format!("HTTP/1.1 {status} Whatever\r\n");
            for (name, value) in &headers {
                text.push_str(&format!("{name}: {value}\r\n"));
            }
            if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
                text.push_str(&format!("Content-Length: {}\r\n", body.len()));
            }
            text.push_str("\r\n");
            let mut bytes = text.into_bytes();
            if !head {
                bytes.extend(body);
            }
            stream.write_all(&bytes).is_ok()
        }
        Reply::Bytes(bytes) => {
            let _ = stream.write_all(&bytes);
            false
        }
        Reply::Stall(bytes) => {
            let _ = stream.write_all(&bytes);
            thread::sleep(Duration::from_secs(60));
            false
        }
        Reply::Drip(bytes, pause) => {
            let _ = stream.write_all(&bytes);
            while stream.write_all(b"x").is_ok() {
                thread::sleep(pause);
            }
            false
        }
    }
}

/// Returns short timeouts, for tests of servers that stall.
pub(in crate::storage) fn short_timeouts() -> Network {
    Network {
        connect: Duration::from_millis(1000),
        stall: Duration::from_millis(300),
        pause: Duration::from_millis(1),
        ..Network::default()
    }
}

/// Returns the options of a cinder.conf with those of the command line.
pub(in crate::storage) fn options(conf: &str, overrides: &[(&str, &str)]) -> StorageOptions {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cinder.conf");
    std::fs::write(&path, format!("[DEFAULT]\n{conf}\n")).unwrap();
    let overrides: Vec<String> = overrides.iter().map(|(name, value)| format!("{name}={value}")).collect();
    StorageOptions::new(CinderConf::load(&[path], &[]).unwrap(), &overrides).unwrap()
}

/// Returns all names with a prefix.
pub(in crate::storage) fn names(store: &dyn ObjectStore, prefix: &str) -> Result<Vec<String>, StorageError> {
    let mut names = Vec::new();
    store.list(prefix, &mut |object| {
        names.push(object.name);
        ControlFlow::Continue(())
    })?;
    Ok(names)
}

/// Returns all bytes, or the storage error inside the error of the stream.
pub(in crate::storage) fn read_all(store: &dyn ObjectStore, name: &str, range: Option<Range<u64>>) -> Result<Vec<u8>, StorageError> {
    let mut bytes = Vec::new();
    match store.open(name, range)?.read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(StorageError::of_io(&error).unwrap_or_else(|| panic!("not the storage's: {error}")).clone()),
    }
}
