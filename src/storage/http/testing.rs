//! A server for tests. It can send any bytes, as a hostile or broken server would.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::{ControlFlow, Range};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use super::Network;
use crate::backoff::Backoff;
use crate::config::{CinderConf, StorageOptions};
use crate::storage::{ObjectStore, RetryPolicy, RetryingStore, StorageError, StorageErrorKind, conformance};

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
pub(in crate::storage) struct Objects {
    all: BTreeMap<String, Vec<u8>>,
    /// Names on a page.
    page: usize,
}

impl Objects {
    pub(in crate::storage) fn new(page: usize) -> Self {
        Self { all: conformance::content(true), page }
    }

    /// Returns a page of names and sizes, and its last name if more follow.
    pub(in crate::storage) fn page(&self, prefix: &str, after: &str) -> (Vec<(String, usize)>, Option<String>) {
        let mut wanted = self.all.iter().filter(|(name, _)| name.starts_with(prefix) && name.as_str() > after);
        let page: Vec<_> = wanted.by_ref().take(self.page).map(|(name, bytes)| (name.clone(), bytes.len())).collect();
        let next = wanted.next().and(page.last()).map(|(name, _)| name.clone());
        (page, next)
    }

    pub(in crate::storage) fn size(&self, name: &str) -> Option<usize> {
        self.all.get(name).map(Vec::len)
    }

    /// Returns an object, or the requested range of it.
    pub(in crate::storage) fn get(&self, name: &str, request: &ReceivedRequest, mut headers: Vec<(&'static str, String)>) -> Reply {
        let Some(bytes) = self.all.get(name) else { return status(404) };
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

/// How a server marks the end of a body.
#[derive(Debug, Clone, Copy)]
enum Framing {
    Length,
    Chunks,
    /// By the end of the connection.
    Nothing,
}

/// Sends a response whose connection ends after `part` quarters of the body, in any case before its last byte.
fn cut(reply: Reply, framing: Framing, part: usize) -> Reply {
    let Reply::Response(status, headers, body) = reply else { panic!("not a page") };
    let mut head = format!("HTTP/1.1 {status} Whatever\r\n");
    headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
    head.push_str(&match framing {
        Framing::Length => format!("Content-Length: {}\r\n\r\n", body.len()),
        Framing::Chunks => format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n", body.len()),
        Framing::Nothing => "Connection: close\r\n\r\n".to_owned(),
    });
    Reply::Bytes([head.as_bytes(), body.get(..(body.len() * part / 4).min(body.len() - 1)).unwrap()].concat())
}

/// What a test server answers.
type Answer = Box<dyn Fn(&ReceivedRequest) -> Reply + Send + Sync>;

/// Checks listings whose pages are cut, short or repeated. `answer` is the right answer of a server, and `open` starts one that may give
/// others.
pub(in crate::storage) fn check_pages<S: ObjectStore>(
    answer: fn(&ReceivedRequest, &Objects) -> Reply,
    open: impl Fn(Answer) -> (TestServer, S),
) {
    const PREFIX: &str = "many-0004";
    // Pages of 4, 4 and 2 names.
    let expected: Vec<String> = (40..50).map(|number| format!("many-{number:05}")).collect();
    let list = |store: S| {
        let backoff = Backoff { first: Duration::from_millis(1), longest: Duration::from_millis(1) };
        let policy = RetryPolicy { attempts: 3, backoff };
        names(&RetryingStore::new(store, policy, Arc::default(), Arc::default(), Arc::default()), PREFIX)
    };
    let is_page = |request: &ReceivedRequest| request.target.contains("prefix=");
    let pages =
        |server: &TestServer| -> Vec<String> { server.requests().into_iter().filter(is_page).map(|request| request.target).collect() };
    let objects = Arc::new(Objects::new(4));
    // Harms one of the pages, `times` times.
    let harmed = |how: Option<(Framing, usize)>, number: usize, times: usize| {
        let (objects, seen) = (Arc::clone(&objects), Mutex::new((Vec::new(), 0)));
        open(Box::new(move |request| {
            let (reply, (targets, harms)) = (answer(request, &objects), &mut *seen.lock().unwrap());
            if is_page(request) && !targets.contains(&request.target) {
                targets.push(request.target.clone());
            }
            if targets.get(number) != Some(&request.target) || *harms == times {
                return reply;
            }
            *harms += 1;
            how.map_or_else(|| status(503), |(framing, part)| cut(reply, framing, part))
        }))
    };
    let framings = [Framing::Length, Framing::Chunks, Framing::Nothing];
    let cuts = framings.into_iter().flat_map(|framing| (0..=4).map(move |part| Some((framing, part))));
    for (how, number) in cuts.chain([None]).flat_map(|how| (0..3).map(move |number| (how, number))) {
        // Once: the page is requested again from the same name, and no other.
        let (server, store) = harmed(how, number, 1);
        assert_eq!(list(store).unwrap(), expected, "{how:?} {number}");
        let mut targets = pages(&server);
        assert_eq!(targets.get(number), targets.get(number + 1), "{how:?} {number}");
        targets.dedup();
        assert_eq!(targets.len(), targets.iter().collect::<BTreeSet<_>>().len(), "{how:?} {number}: {targets:?}");
        // Every time: an error that says so, after a limited number of requests.
        let (server, store) = harmed(how, number, usize::MAX);
        let error = list(store).unwrap_err();
        assert_eq!(error.kind, StorageErrorKind::Transient, "{how:?} {number}: {error}");
        assert!(error.text.contains("GET http://") && error.text.contains("(3 attempts)"), "{error}");
        assert!(pages(&server).len() <= 3 * (3 + number), "{how:?} {number}: {} requests", pages(&server).len());
    }
    // Whole pages that are shorter than others, down to one name.
    for size in 1..=11 {
        let objects = Objects::new(size);
        let (_server, store) = open(Box::new(move |request| answer(request, &objects)));
        let mut listed = vec!["many-00039".to_owned()];
        while listed.len() <= expected.len() {
            let page = store.list_page(listed.last().unwrap()).unwrap().unwrap();
            assert!(!page.is_last && !page.objects.is_empty(), "pages of {size}");
            listed.extend(page.objects.into_iter().map(|object| object.name));
        }
        assert_eq!(listed.get(1..=expected.len()).unwrap(), expected, "pages of {size}");
        assert_eq!(list(store).unwrap(), expected, "pages of {size}");
    }
    // The server sends the first page, or the second one, for ever.
    for (last, later) in [("", &["many-00043", "many-00047"] as &[&str]), ("many-00043", &["many-00047"])] {
        let objects = Arc::clone(&objects);
        let (server, store) = open(Box::new(move |request| {
            let target = later.iter().fold(request.target.clone(), |target, name| target.replace(name, last));
            answer(&ReceivedRequest { target, ..request.clone() }, &objects)
        }));
        let error = list(store).unwrap_err();
        assert_eq!(error.kind, StorageErrorKind::Protocol, "{error}");
        assert!(error.text.contains("it is not in order, or repeats itself") && pages(&server).len() <= 3, "{error}");
    }
}
