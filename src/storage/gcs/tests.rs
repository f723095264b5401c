//! Google's driver against a test server for its API, and against invalid responses.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use percent_encoding::percent_decode_str;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use serde_json::json;

use super::*;
use crate::domain::hex;
use crate::storage::ObjectStore;
use crate::storage::http::testing::{
    Objects, ReceivedRequest, Reply, TestServer, check_pages, names, ok, options, read_all, short_timeouts, status,
};

/// A key for these tests only.
const KEY: &str = include_str!("testdata/key.pem");

const HASH: &str = "0cc175b9c0f1b6a831c399e269772661";

/// A credential file in a folder that lives as long as the test.
fn credentials(server: &str, change: impl FnOnce(&mut Value)) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let mut document = json!({
        "type": "service_account", "project_id": "p", "private_key_id": "key1", "private_key": KEY,
        "client_email": "backup@p.iam.gserviceaccount.com", "token_uri": format!("{server}/token"),
    });
    change(&mut document);
    let path = dir.path().join("key.json");
    std::fs::write(&path, document.to_string()).unwrap();
    (dir, path)
}

fn client(server: &TestServer) -> Arc<Client> {
    let (_dir, path) = credentials(&server.url, |_| {});
    let options = options(&format!("backup_gcs_credential_file = {}", path.display()), &[]);
    Client::new(&options, Some(&server.url), &short_timeouts()).unwrap()
}

fn item(name: &str) -> Value {
    json!({"name": name, "size": "1", "md5Hash": STANDARD.encode(hex::decode::<16>(HASH).unwrap()), "timeCreated": "2026-11-22T10:00:00.5Z"})
}

fn complaint(code: u16, reason: &str) -> Reply {
    let body = json!({"error": {"code": code, "message": "m", "errors": [{"reason": reason}]}});
    Reply::Response(code, vec![("Content-Type", "application/json".to_owned())], body.to_string().into_bytes())
}

fn grant(token: &str) -> Reply {
    ok(&[], json!({"access_token": token, "expires_in": 3600, "token_type": "Bearer"}).to_string())
}

/// A bucket `b` with three objects, listed by two.
fn google(request: &ReceivedRequest) -> Reply {
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    if path == "/token" {
        return grant("token-1");
    }
    if request.header("authorization") != "Bearer token-1" {
        return complaint(401, "authError");
    }
    let query: BTreeMap<String, String> = query
        .split('&')
        .filter_map(|part| part.split_once('='))
        .map(|(name, value)| (name.to_owned(), percent_decode_str(value).decode_utf8().unwrap().into_owned()))
        .collect();
    let of = |name: &str| query.get(name).map_or("", String::as_str);
    match path {
        "/storage/v1/b/b/o" if of("prefix") == "v/p-" => match of("pageToken") {
            "" => ok(&[], json!({"nextPageToken": "t=/1", "items": [item("v/p-1"), item("v/p-2")]}).to_string()),
            "t=/1" => ok(&[], json!({"items": [item("v/p-3 +ü")]}).to_string()),
            _ => status(400),
        },
        "/storage/v1/b/b/o" => ok(&[], "{}"),
        "/storage/v1/b/b/o/v%2Fp-1" | "/storage/v1/b/b/o/v%2Fp-3%20%2B%C3%BC" => {
            let hash = ("x-goog-hash", "crc32c=AAAAAA==");
            match (of("alt"), request.header("range")) {
                ("media", "bytes=0-99") => {
                    Reply::Response(206, vec![(hash.0, hash.1.to_owned()), ("Content-Range", "bytes 0-0/1".to_owned())], b"a".to_vec())
                }
                ("media", _) => ok(&[hash], "a"),
                _ => ok(&[], item(&percent_decode_str(path.trim_start_matches("/storage/v1/b/b/o/")).decode_utf8().unwrap()).to_string()),
            }
        }
        _ if of("alt") == "media" => Reply::Response(404, Vec::new(), b"No such object: b/x".to_vec()),
        _ => complaint(404, "notFound"),
    }
}

fn hostile(response: impl Fn(&ReceivedRequest) -> Reply + Send + Sync + 'static) -> (TestServer, GcsStore) {
    let server = TestServer::new(move |request| if request.target == "/token" { google(request) } else { response(request) });
    let store = client(&server).bucket("b").unwrap();
    (server, store)
}

#[test]
fn a_bucket_is_listed_and_read() {
    let server = TestServer::new(google);
    let client = client(&server);
    let store = client.bucket("b").unwrap();
    assert_eq!(names(&store, "v/p-").unwrap(), ["v/p-1", "v/p-2", "v/p-3 +ü"]);
    assert_eq!(names(&store, "none").unwrap(), [""; 0]);
    let info = store.stat("v/p-1").unwrap().unwrap();
    assert_eq!((info.size, info.md5, info.modified), (1, hex::decode(HASH), Some("2026-11-22T10:00:00.5Z".parse().unwrap())));
    assert_eq!(read_all(&store, "v/p-3 +ü", None).unwrap(), b"a");
    assert_eq!(read_all(&store, "v/p-1", Some(0..100)).unwrap(), b"a");
    assert_eq!(read_all(&store, "v/p-1", Some(7..7)).unwrap(), b"");
    assert_eq!(store.stat("v/p-9").unwrap(), None);
    assert_eq!(read_all(&store, "v/p-9", None).unwrap_err().kind, StorageErrorKind::NoObject);
    let none = client.bucket("none").unwrap();
    for error in [names(&none, "p").unwrap_err(), none.stat("x").unwrap_err(), read_all(&none, "x", None).unwrap_err()] {
        assert_eq!(error.kind, StorageErrorKind::NoContainer, "{error}");
    }
    assert_eq!(server.requests().iter().filter(|request| request.target == "/token").count(), 1, "one login for all");
    assert_eq!(client.warnings().len(), 1, "plain http: {:?}", client.warnings());
}

#[test]
fn the_assertion_is_that_of_googles_client() {
    let server = TestServer::new(google);
    client(&server).bucket("b").unwrap().stat("v/p-1").unwrap();
    let body = String::from_utf8(server.requests()[0].body.clone()).unwrap();
    let proof = body.strip_prefix("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=").unwrap();
    let (text, signature) = proof.rsplit_once('.').unwrap();
    let rustls::pki_types::PrivateKeyDer::Pkcs8(der) = rustls::pki_types::pem::PemObject::from_pem_slice(KEY.as_bytes()).unwrap() else {
        panic!()
    };
    let pair = ring::signature::RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).unwrap();
    let public: &ring::rsa::PublicKey = ring::signature::KeyPair::public_key(&pair);
    UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public.as_ref())
        .verify(text.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap())
        .unwrap();
    let (header, claims) = text.split_once('.').unwrap();
    let read = |part: &str| serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
    assert_eq!(read(header), json!({"alg": "RS256", "typ": "JWT", "kid": "key1"}));
    let claims = read(claims);
    assert_eq!(
        (&claims["iss"], &claims["aud"]),
        (&json!("backup@p.iam.gserviceaccount.com"), &json!("https://oauth2.googleapis.com/token"))
    );
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 3600);
}

#[test]
fn an_expired_token_is_renewed_once() {
    let logins = AtomicUsize::new(0);
    let server = TestServer::new(move |request| {
        if request.target == "/token" {
            return grant(&format!("token-{}", 1 + logins.fetch_add(1, Ordering::SeqCst)));
        }
        let good = request.header("authorization") == "Bearer token-2" || request.target.contains("/first");
        if good { ok(&[("x-goog-generation", "1")], "a") } else { complaint(401, "authError") }
    });
    let store = client(&server).bucket("b").unwrap();
    for name in ["first", "second", "third"] {
        assert_eq!(read_all(&store, name, None).unwrap(), b"a");
    }
    assert_eq!(server.requests().iter().filter(|request| request.target == "/token").count(), 2);
}

#[test]
fn a_refused_assertion_is_sent_once() {
    let server = TestServer::new(|_| {
        let body = json!({"error": "invalid_grant", "error_description": "Invalid JWT Signature."});
        Reply::Response(400, Vec::new(), body.to_string().into_bytes())
    });
    let store = client(&server).bucket("b").unwrap();
    for _ in 0..3 {
        let error = store.stat("x").unwrap_err();
        assert_eq!(error.kind, StorageErrorKind::Authentication);
        assert!(error.text.contains("Invalid JWT Signature"), "{error}");
    }
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn an_invalid_credential_file_is_reported_without_its_secrets() {
    type Change = fn(&mut Value);
    let changes: [(Change, &str); 5] = [
        (|file| file["type"] = json!("authorized_user"), "another type"),
        (|file| file["private_key"] = json!("-----BEGIN PRIVATE KEY-----\nsecret\n-----END PRIVATE KEY-----\n"), "private_key"),
        (|file| file["private_key"] = json!(["secret"]), "JSON"),
        (|file| file["token_uri"] = json!("ftp://secret@x"), "token_uri"),
        (|file| *file = json!("secret"), "JSON"),
    ];
    for (change, named) in changes {
        let (_dir, path) = credentials("http://127.0.0.1:1", change);
        let options = options(&format!("backup_gcs_credential_file = {}", path.display()), &[]);
        let error = Client::new(&options, None, &short_timeouts()).unwrap_err();
        assert_eq!(error.kind, StorageErrorKind::Configuration);
        assert!(error.text.contains(named) && !error.text.contains("secret"), "{error}");
    }
    let (_dir, path) = credentials("http://127.0.0.1:1", |_| {});
    let file = format!("backup_gcs_credential_file = {}", path.display());
    for (conf, named) in [
        (String::new(), "backup_gcs_credential_file is not set"),
        ("backup_gcs_credential_file = /nowhere".to_owned(), "/nowhere"),
        (format!("{file}\nbackup_gcs_proxy_url = gopher://u:secret@x"), "proxy"),
    ] {
        let error = Client::new(&options(&conf, &[]), None, &short_timeouts()).unwrap_err();
        assert!(error.kind == StorageErrorKind::Configuration && error.text.contains(named) && !error.text.contains("secret"), "{error}");
    }
    let client = Client::new(&options(&file, &[]), None, &short_timeouts()).unwrap();
    assert!(!format!("{client:?}").contains("PRIVATE"));
    assert_eq!(client.bucket("b").unwrap().location(), "https://storage.googleapis.com/storage/v1/b/b");
    for name in ["", "a/b", "..", "."] {
        assert_eq!(client.bucket(name).unwrap_err().kind, StorageErrorKind::Configuration);
    }
}

#[test]
fn every_error_has_a_kind() {
    for (code, reason, kind) in [
        (403, "forbidden", StorageErrorKind::Permission),
        (403, "rateLimitExceeded", StorageErrorKind::Transient),
        (429, "rateLimitExceeded", StorageErrorKind::Transient),
        (503, "backendError", StorageErrorKind::Transient),
        (401, "authError", StorageErrorKind::Authentication),
        (400, "invalid", StorageErrorKind::Protocol),
        (404, "notFound", StorageErrorKind::NoContainer),
    ] {
        let (_server, store) = hostile(move |_| complaint(code, reason));
        for error in [names(&store, "p").unwrap_err(), store.stat("x").unwrap_err(), read_all(&store, "x", None).unwrap_err()] {
            assert_eq!(error.kind, kind, "{code} {reason}: {error}");
            assert!(!error.text.contains("token-1"), "{error}");
        }
    }
}

#[test]
fn html_is_neither_an_object_nor_a_listing_nor_a_proof_of_absence() {
    for code in [200, 404] {
        let (_server, store) =
            hostile(move |_| Reply::Response(code, vec![("Content-Type", "text/html".to_owned())], b"<html>Please log in</html>".to_vec()));
        for error in [names(&store, "p").unwrap_err(), store.stat("x").unwrap_err(), read_all(&store, "x", None).unwrap_err()] {
            assert_eq!(error.kind, StorageErrorKind::Protocol, "{error}");
        }
    }
}

#[test]
fn endless_and_invalid_listings_are_detected() {
    let number = AtomicUsize::new(0);
    type Make = Box<dyn Fn() -> String + Send + Sync>;
    let pages: Vec<Make> = vec![
        Box::new(|| json!({"items": [item("p-1")], "nextPageToken": "same"}).to_string()),
        Box::new(|| json!({"nextPageToken": "same"}).to_string()),
        Box::new(move || json!({"nextPageToken": number.fetch_add(1, Ordering::SeqCst).to_string()}).to_string()),
        Box::new(|| json!({"items": [item("p-2"), item("p-1")]}).to_string()),
        Box::new(|| json!({"items": [item("q")]}).to_string()),
        Box::new(|| json!({"items": [{"name": "p-1", "size": "-1"}]}).to_string()),
        Box::new(|| json!({"items": [{"name": "p-1", "size": 1}]}).to_string()),
        Box::new(|| json!({"items": 7}).to_string()),
        Box::new(|| "[".repeat(100_000)),
    ];
    for page in pages {
        let (server, store) = hostile(move |_| ok(&[], page()));
        let error = names(&store, "p-").unwrap_err();
        assert_eq!(error.kind, StorageErrorKind::Protocol, "{error}");
        assert!(server.requests().len() <= 110, "{}", server.requests().len());
    }
    let (_server, store) = hostile(|_| ok(&[], item("another").to_string()));
    assert_eq!(store.stat("x").unwrap_err().kind, StorageErrorKind::Protocol);
}

/// A bucket `b` with the objects of the conformance test.
fn conforming(request: &ReceivedRequest, objects: &Objects) -> Reply {
    let (path, query) = request.path_and_query();
    let of = |name: &str| query.get(name).map_or("", String::as_str);
    let name = path.strip_prefix("/storage/v1/b/b/o").unwrap().trim_start_matches('/');
    let item = |name: &str, size: usize| json!({"name": name, "size": size.to_string(), "timeCreated": "2026-11-22T10:00:00Z"});
    if name.is_empty() {
        let (page, next) = objects.page(of("prefix"), of("pageToken").max(of("startOffset")));
        let items: Vec<Value> = page.iter().map(|(name, size)| item(name, *size)).collect();
        return ok(&[], json!({"items": items, "nextPageToken": next}).to_string());
    }
    match (of("alt"), objects.size(name)) {
        ("media", _) => objects.get(name, request, vec![("x-goog-generation", "1".to_owned())]),
        (_, Some(size)) => ok(&[], item(name, size).to_string()),
        (_, None) => complaint(404, "notFound"),
    }
}

#[test]
fn conforms_to_the_trait() {
    let objects = Objects::new(400);
    let (_server, store) = hostile(move |request| conforming(request, &objects));
    crate::storage::conformance::check(&store, true);
}

#[test]
fn a_cut_or_short_page_loses_no_object_and_an_endless_listing_ends() {
    check_pages(conforming, hostile);
}
