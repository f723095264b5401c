//! The client against servers that stall, break off, redirect or send invalid responses.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use ureq::http::Method;

use super::testing::{Reply, TestServer, ok, short_timeouts, status};
use super::*;
use crate::storage::StorageErrorKind;

fn client() -> HttpClient {
    HttpClient::new(short_timeouts(), &trust::authorities(&[]).build())
}

/// Reads the whole response of a server.
fn get(reply: impl Fn() -> Reply + Send + Sync + 'static) -> Result<Vec<u8>, StorageError> {
    let server = TestServer::new(move |_| reply());
    let response = client().send(Method::GET, &format!("{}/x?secret=1", server.url), &[], None)?;
    if !response.is_success() {
        return Err(response.into_error(|_| None));
    }
    let mut bytes = Vec::new();
    match part::reader(response, None)?.read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(StorageError::of_io(&error).unwrap().clone()),
    }
}

#[test]
fn broken_responses_end_soon_with_the_right_kind() {
    let head = |head: &str| format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\nsome bytes").into_bytes();
    let long = head("Content-Length: 1000");
    let stalled = long.clone();
    let dripped = long.clone();
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n".to_vec();
    let half_head = b"HTTP/1.1 200 OK\r\nContent-Le".to_vec();
    let big_head = format!("HTTP/1.1 200 OK\r\nX-Big: {}\r\n\r\n", "x".repeat(2 * LARGEST_HEAD)).into_bytes();
    type Make = Box<dyn Fn() -> Reply + Send + Sync>;
    let cases: Vec<(&str, StorageErrorKind, Make)> = vec![
        ("stall before the response", StorageErrorKind::Transient, Box::new(|| Reply::Stall(Vec::new()))),
        ("stall in the head", StorageErrorKind::Transient, Box::new(move || Reply::Stall(half_head.clone()))),
        ("stall in the body", StorageErrorKind::Transient, Box::new(move || Reply::Stall(stalled.clone()))),
        ("drip", StorageErrorKind::Transient, Box::new(move || Reply::Drip(dripped.clone(), Duration::from_millis(50)))),
        (
            "drip in the head",
            StorageErrorKind::Transient,
            Box::new(|| Reply::Drip(b"HTTP/1.1 200 OK\r\nX: ".to_vec(), Duration::from_millis(50))),
        ),
        ("closed at once", StorageErrorKind::Transient, Box::new(|| Reply::Bytes(Vec::new()))),
        ("broken off", StorageErrorKind::Transient, Box::new(move || Reply::Bytes(long.clone()))),
        ("chunks broken off", StorageErrorKind::Transient, Box::new(move || Reply::Bytes(chunked.clone()))),
        ("no length", StorageErrorKind::Protocol, Box::new(move || Reply::Bytes(head("X: y")))),
        ("no HTTP", StorageErrorKind::Protocol, Box::new(|| Reply::Bytes(b"SSH-2.0-OpenSSH_9.2\r\n\r\n".to_vec()))),
        ("a huge head", StorageErrorKind::Protocol, Box::new(move || Reply::Bytes(big_head.clone()))),
        (
            "an invalid length",
            StorageErrorKind::Protocol,
            Box::new(|| Reply::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello".to_vec())),
        ),
        (
            "an unrequested range",
            StorageErrorKind::Protocol,
            Box::new(|| Reply::Response(206, vec![("Content-Range", "bytes 0-1/5".to_owned())], b"ab".to_vec())),
        ),
        ("too busy", StorageErrorKind::Transient, Box::new(|| Reply::Response(429, vec![("Retry-After", "3".to_owned())], Vec::new()))),
    ];
    for (name, kind, reply) in cases {
        let begun = Instant::now();
        let Err(error) = get(reply) else { panic!("{name}") };
        assert_eq!(error.kind, kind, "{name}: {error}");
        assert!(!error.text.contains("secret"), "{name}: {error}");
        assert_eq!(error.retry_after, (name == "too busy").then_some(3));
        assert!(begun.elapsed() < Duration::from_secs(5), "{name} took {:?}", begun.elapsed());
    }
    assert_eq!(get(|| ok(&[], "hello")).unwrap(), b"hello");
}

#[test]
fn a_slow_reader_is_not_a_slow_server() {
    let server = TestServer::new(|_| ok(&[], vec![7; 4 << 20]));
    let mut stream = client().send(Method::GET, &server.url, &[], None).unwrap().stream();
    let mut buffer = vec![0; 1 << 20];
    let mut read = stream.read(&mut buffer).unwrap();
    std::thread::sleep(Duration::from_millis(700));
    while let n @ 1.. = stream.read(&mut buffer).unwrap() {
        read += n;
    }
    assert_eq!(read, 4 << 20);
}

#[test]
fn credentials_never_follow_a_redirect() {
    let other = TestServer::new(|_| ok(&[], "yours"));
    let elsewhere = format!("{}/stolen?x=1", other.url);
    for code in [301, 302, 303, 307, 308] {
        let elsewhere = elsewhere.clone();
        let server = TestServer::new(move |_| Reply::Response(code, vec![("Location", elsewhere.clone())], Vec::new()));
        for method in [Method::GET, Method::HEAD, Method::POST] {
            let body = (method == Method::POST).then(|| b"{}".to_vec());
            let token = header("x-auth-token", "secret-token", true).unwrap();
            let response = client().send(method, &server.url, &[token], body).unwrap();
            let error = response.into_error(|_| None);
            assert_eq!(error.kind, StorageErrorKind::Protocol);
            assert!(error.text.contains("/stolen") && !error.text.contains("x=1"), "{error}");
        }
    }
    assert_eq!(other.requests().len(), 0, "the second server saw something");
}

#[test]
fn an_unreachable_server_is_transient() {
    let gone = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let error = client().send(Method::GET, &gone, &[], None).err().unwrap();
    assert_eq!(error.kind, StorageErrorKind::Transient);
    assert!(error.text.contains("refused"), "{error}");
    let error = client().send(Method::GET, "http://no-such-host.invalid/", &[], None).err().unwrap();
    assert_eq!(error.kind, StorageErrorKind::Transient, "{error}");
    // TLS to a port with plain HTTP.
    let server = TestServer::new(|_| status(400));
    let error = client().send(Method::GET, &server.url.replace("http:", "https:"), &[], None).err().unwrap();
    assert!(error.text.contains("plain HTTP") || error.kind == StorageErrorKind::Transient, "{error}");
}

#[test]
fn bytes_before_a_range_are_skipped_if_the_server_has_no_ranges() {
    let server = TestServer::new(|_| ok(&[], "0123456789"));
    for (range, bytes) in [(2..5, "234"), (8..99, "89"), (20..30, "")] {
        let asked = part::header(&range).unwrap();
        let response = client().send(Method::GET, &server.url, &[asked], None).unwrap();
        let mut text = String::new();
        part::reader(response, Some(range)).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, bytes);
    }
}

#[test]
fn another_range_than_requested_is_refused() {
    for told in ["bytes 1-4/10", "bytes 0-2/10", "bytes 0-3/4", "bytes 0-9/10", "nothing", ""] {
        let server = TestServer::new(move |_| Reply::Response(206, vec![("Content-Range", told.to_owned())], b"01234".to_vec()));
        let response = client().send(Method::GET, &server.url, &[], None).unwrap();
        assert_eq!(part::reader(response, Some(0..5)).err().unwrap().kind, StorageErrorKind::Protocol, "{told}");
    }
    for status in [206, 200] {
        let server =
            TestServer::new(move |_| Reply::Response(status, vec![("Content-Range", "bytes 3-7/10".to_owned())], b"34567".to_vec()));
        let response = || client().send(Method::GET, &server.url, &[], None).unwrap();
        let mut text = String::new();
        part::reader(response(), Some(3..8)).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "34567");
        assert_eq!(part::reader(response(), None).err().unwrap().kind, StorageErrorKind::Protocol, "all was requested");
    }
}

#[test]
fn connections_are_reused() {
    let server = TestServer::new(|_| ok(&[], "hello"));
    let client = client();
    for _ in 0..3 {
        let mut five = [0; 5];
        let mut stream = client.send(Method::GET, &server.url, &[], None).unwrap().stream();
        // Read up to the last byte, not beyond.
        stream.read_exact(&mut five).unwrap();
    }
    assert_eq!(server.connections(), 1);
}

#[test]
fn a_proxy_gets_a_connect_request() {
    // The proxy reports what was requested.
    let proxy = TestServer::new(|request| Reply::Bytes(format!("HTTP/1.1 403 {}\r\n\r\n", request.target).into_bytes()));
    let proxies = Proxies::fixed(Some(proxy::parse(&proxy.url, &"here").unwrap()), None);
    let client = HttpClient::new(Network { proxies, ..short_timeouts() }, &trust::unverified());
    let error = client.send(Method::GET, "http://storage.invalid:8080/x", &[], None).err().unwrap();
    assert_eq!(error.kind, StorageErrorKind::Configuration, "{error}");
    assert_eq!(
        proxy.requests().first().map(|request| (request.method.clone(), request.target.clone())),
        Some(("CONNECT".to_owned(), "storage.invalid:8080".to_owned()))
    );
}

/// Starts a TLS server for `localhost` with a certificate of a private authority, and returns its port.
fn tls_server() -> u16 {
    let certificate = CertificateDer::from_pem_slice(include_bytes!("testdata/server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("testdata/server.key")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let (config, listener) = (Arc::new(config), TcpListener::bind("127.0.0.1:0").unwrap());
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream);
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                match stream.read(&mut byte) {
                    Ok(1) => head.extend(byte),
                    _ => break,
                }
            }
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecure").and_then(|()| stream.flush());
        }
    });
    port
}

#[test]
fn a_certificate_is_verified_unless_the_operator_disables_it() {
    let port = tls_server();
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, include_str!("testdata/ca.pem")).unwrap();
    let ask = |trust: &TlsConfig, host: &str| {
        let client = HttpClient::new(short_timeouts(), trust);
        client.send(Method::GET, &format!("https://{host}:{port}/"), &[], None)?.read_all(100)
    };
    let own = trust::of_file(&ca, &"here").unwrap();
    assert_eq!(ask(&own, "localhost").unwrap(), b"secure");
    assert_eq!(ask(&trust::unverified(), "127.0.0.1").unwrap(), b"secure");
    for (trust, host) in [(&own, "127.0.0.1"), (&trust::system(), "localhost"), (&trust::authorities(&[]).build(), "localhost")] {
        let error = ask(trust, host).unwrap_err();
        assert_eq!(error.kind, StorageErrorKind::Configuration, "{error}");
        assert!(error.text.contains("certificate"), "{error}");
    }
    for (text, problem) in [("", "no certificate"), ("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", "damaged")] {
        std::fs::write(&ca, text).unwrap();
        assert!(trust::of_file(&ca, &"cinder.conf:7").unwrap_err().text.contains(problem));
    }
}
