//! S3's driver against a test server for S3, and against invalid responses.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::domain::hex;
use crate::storage::ObjectStore;
use crate::storage::http::testing::{
    Objects, ReceivedRequest, Reply, TestServer, check_pages, names, ok, options, read_all, short_timeouts, status,
};

const HASH: &str = "0cc175b9c0f1b6a831c399e269772661";

fn listing(names: &[&str], next: Option<&str>) -> String {
    let objects: String = names
        .iter()
        .map(|name| {
            let key = encode(name);
            format!("<Contents><Key>{key}</Key><LastModified>2026-11-22T10:00:00.5Z</LastModified><ETag>\"{HASH}\"</ETag><Size>1</Size></Contents>")
        })
        .collect();
    let next = next.map(|next| format!("<NextContinuationToken>{next}</NextContinuationToken>")).unwrap_or_default();
    format!(
        "<?xml version=\"1.0\"?><ListBucketResult><IsTruncated>{}</IsTruncated><EncodingType>url</EncodingType>{next}{objects}</ListBucketResult>",
        !next.is_empty()
    )
}

fn error(status: u16, code: &str) -> Reply {
    Reply::Response(
        status,
        vec![("Content-Type", "application/xml".to_owned())],
        format!("<Error><Code>{code}</Code><Message>m</Message></Error>").into_bytes(),
    )
}

fn good(bytes: &str) -> Reply {
    ok(
        &[("ETag", &format!("\"{HASH}\"")), ("Last-Modified", "Sun, 22 Nov 2026 10:00:00 GMT"), ("Content-Type", "binary/octet-stream")],
        bytes,
    )
}

/// A bucket `b` with three objects, listed by two.
fn s3(request: &ReceivedRequest) -> Reply {
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    if !request.header("authorization").starts_with("AWS4-HMAC-SHA256 Credential=access/") {
        return error(403, "InvalidAccessKeyId");
    }
    match (path, query) {
        ("/b", "encoding-type=url&list-type=2&prefix=v%2Fp-") => ok(&[], listing(&["v/p-1", "v/p-2"], Some("t=1"))),
        ("/b", "continuation-token=t%3D1&encoding-type=url&list-type=2&prefix=v%2Fp-") => ok(&[], listing(&["v/p-3 +ü"], None)),
        ("/b", _) => ok(&[], listing(&[], None)),
        ("/b/v/p-1", _) if request.header("range") == "bytes=0-99" => {
            Reply::Response(206, vec![("ETag", format!("\"{HASH}\"")), ("Content-Range", "bytes 0-0/1".to_owned())], b"a".to_vec())
        }
        ("/b/v/p-1", _) if request.method == "HEAD" => good("a"),
        ("/b/v/p-1" | "/b/v/p-3%20%2B%C3%BC", _) => good("a"),
        _ if request.method == "HEAD" => status(404),
        _ if path.starts_with("/b/") => error(404, "NoSuchKey"),
        _ => error(404, "NoSuchBucket"),
    }
}

fn client(server: &TestServer, more: &[(&str, &str)]) -> Result<Arc<Client>, StorageError> {
    let conf =
        format!("backup_s3_endpoint_url = {}\nbackup_s3_store_access_key = access\nbackup_s3_store_secret_key = pa55word", server.url);
    Client::new(&options(&conf, more), &short_timeouts())
}

fn hostile(response: impl Fn(&ReceivedRequest) -> Reply + Send + Sync + 'static) -> (TestServer, S3Store) {
    let server = TestServer::new(response);
    let store = client(&server, &[]).unwrap().bucket("b").unwrap();
    (server, store)
}

#[test]
fn a_bucket_is_listed_and_read() {
    let server = TestServer::new(s3);
    let client = client(&server, &[]).unwrap();
    assert!(client.warnings().is_empty());
    let store = client.bucket("b").unwrap();
    assert_eq!(store.location(), format!("{}/b", server.url));
    assert_eq!(names(&store, "v/p-").unwrap(), ["v/p-1", "v/p-2", "v/p-3 +ü"]);
    assert_eq!(names(&store, "none").unwrap(), [""; 0]);
    let info = store.stat("v/p-1").unwrap().unwrap();
    assert_eq!((info.size, info.md5, info.modified), (1, hex::decode(HASH), Some("2026-11-22T10:00:00Z".parse().unwrap())));
    assert_eq!(read_all(&store, "v/p-3 +ü", None).unwrap(), b"a");
    assert_eq!(read_all(&store, "v/p-1", Some(0..100)).unwrap(), b"a");
    assert_eq!(read_all(&store, "v/p-1", Some(7..7)).unwrap(), b"");
    assert_eq!(store.stat("v/p-9").unwrap(), None);
    assert_eq!(read_all(&store, "v/p-9", None).unwrap_err().kind, StorageErrorKind::NoObject);
    let none = client.bucket("none").unwrap();
    for error in [names(&none, "p").unwrap_err(), none.stat("x").unwrap_err(), read_all(&none, "x", None).unwrap_err()] {
        assert_eq!(error.kind, StorageErrorKind::NoContainer, "{error}");
    }
}

#[test]
fn a_customers_key_is_sent_for_every_object_and_its_etags_are_not_digests() {
    let server = TestServer::new(|request| {
        let object = request.target.starts_with("/b/");
        let key = "x-amz-server-side-encryption-customer-key";
        assert_eq!(request.headers.contains_key(key), object);
        if object {
            assert_eq!(request.header(key), "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=");
            assert_eq!(request.header("x-amz-server-side-encryption-customer-key-md5"), "hRasmdxgYDKV3nvbahU1MA==");
            assert!(
                request
                    .header("authorization")
                    .contains("x-amz-server-side-encryption-customer-key;x-amz-server-side-encryption-customer-key-md5")
            );
        }
        s3(request)
    });
    let sse = [("backup_s3_sse_customer_algorithm", "AES256"), ("backup_s3_sse_customer_key", "0123456789abcdef0123456789abcdef")];
    let store = client(&server, &sse).unwrap().bucket("b").unwrap();
    assert_eq!(read_all(&store, "v/p-1", None).unwrap(), b"a");
    assert_eq!(store.stat("v/p-1").unwrap().unwrap().md5, None);
    let mut digests = Vec::new();
    store
        .list("v/p-", &mut |object| {
            digests.push(object.md5);
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(digests, [None; 3]);
    let half = client(&server, &sse[..1]).unwrap();
    assert!(half.warnings().iter().any(|warning| warning.contains("encrypts nothing")));
}

#[test]
fn etags_with_the_key_service_are_not_digests() {
    for (how, trusted) in [("AES256", true), ("aws:kms", false), ("aws:kms:dsse", false)] {
        let (server, store) = hostile(move |request| {
            if request.method == "HEAD" {
                return ok(&[("ETag", &format!("\"{HASH}\"")), ("x-amz-server-side-encryption", how)], "a");
            }
            s3(request)
        });
        let mut digests = Vec::new();
        store
            .list("v/p-", &mut |object| {
                digests.push(object.md5.is_some());
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(digests, [trusted; 3], "{how}");
        assert_eq!(server.requests().iter().filter(|request| request.method == "HEAD").count(), 1, "one HEAD for the listing");
    }
}

#[test]
fn the_signature_is_for_the_region_that_the_server_asks_for() {
    let malformed = "<Error><Code>AuthorizationHeaderMalformed</Code><Message>wrong</Message><Region>eu-central-1</Region></Error>";
    let (server, store) = hostile(move |request| {
        if !request.header("authorization").contains("/eu-central-1/s3/") {
            return Reply::Response(400, Vec::new(), malformed.as_bytes().to_vec());
        }
        s3(request)
    });
    assert_eq!(names(&store, "v/p-").unwrap().len(), 3);
    assert_eq!(read_all(&store, "v/p-1", None).unwrap(), b"a");
    assert_eq!(
        server.requests().iter().filter(|request| request.header("authorization").contains("us-east-1")).count(),
        1,
        "the region is kept"
    );
    let (server, store) = hostile(move |_| Reply::Response(400, Vec::new(), malformed.as_bytes().to_vec()));
    assert_eq!(names(&store, "v/p-").unwrap_err().kind, StorageErrorKind::Configuration);
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn every_error_has_a_kind() {
    for (status, code, kind) in [
        (403, "AccessDenied", StorageErrorKind::Permission),
        (403, "InvalidAccessKeyId", StorageErrorKind::Authentication),
        (403, "SignatureDoesNotMatch", StorageErrorKind::Authentication),
        (403, "RequestTimeTooSkewed", StorageErrorKind::Configuration),
        (403, "InvalidObjectState", StorageErrorKind::Permission),
        (400, "InvalidRequest", StorageErrorKind::Configuration),
        (400, "RequestTimeout", StorageErrorKind::Transient),
        (503, "SlowDown", StorageErrorKind::Transient),
        (500, "InternalError", StorageErrorKind::Transient),
        (404, "NoSuchBucket", StorageErrorKind::NoContainer),
        (301, "PermanentRedirect", StorageErrorKind::Protocol),
        (418, "Teapot", StorageErrorKind::Protocol),
    ] {
        let (_server, store) = hostile(move |request| if request.method == "HEAD" { self::status(status) } else { error(status, code) });
        for error in [names(&store, "p").unwrap_err(), store.stat("x").unwrap_err(), read_all(&store, "x", None).unwrap_err()] {
            assert_eq!(error.kind, kind, "{code}: {error}");
            assert!(!error.text.contains("pa55word"), "{error}");
        }
    }
}

#[test]
fn what_is_missing_is_named() {
    let url = "backup_s3_endpoint_url = http://127.0.0.1:1";
    let keys = "backup_s3_store_access_key = a\nbackup_s3_store_secret_key = b";
    for (conf, named) in [
        (keys.to_owned(), "backup_s3_endpoint_url"),
        (format!("{url}\nbackup_s3_store_secret_key = b"), "backup_s3_store_access_key"),
        (format!("{url}\nbackup_s3_store_access_key = a"), "backup_s3_store_secret_key"),
        (format!("{url}\n{keys}\nbackup_s3_timeout = soon"), "backup_s3_timeout"),
        (format!("{url}\n{keys}\nbackup_s3_https_proxy = gopher://x:y@z"), "backup_s3_https_proxy"),
        (format!("{url}\n{keys}\nbackup_s3_ca_cert_file = /nowhere"), "/nowhere"),
        (format!("{keys}\nbackup_s3_endpoint_url = s3.example.org"), "http or https"),
    ] {
        let error = Client::new(&options(&conf, &[]), &short_timeouts()).unwrap_err();
        assert_eq!(error.kind, StorageErrorKind::Configuration);
        assert!(error.text.contains(named), "{conf}: {error}");
    }
    let conf = format!("{keys}\nbackup_s3_endpoint_url = https://127.0.0.1:1\nbackup_s3_verify_ssl = false\nbackup_s3_timeout = 1.5");
    let client = Client::new(&options(&conf, &[]), &short_timeouts()).unwrap();
    assert_eq!((client.warnings().len(), client.settings.timeout), (1, Some(std::time::Duration::from_millis(1500))));
    for name in ["", "a/b", "..", "."] {
        assert_eq!(client.bucket(name).unwrap_err().kind, StorageErrorKind::Configuration);
    }
}

#[test]
fn html_is_neither_an_object_nor_a_listing_nor_a_proof_of_absence() {
    for code in [200, 404] {
        let headers = || vec![("Content-Type", "text/html".to_owned()), ("ETag", format!("\"{HASH}\""))];
        let (_server, store) = hostile(move |_| Reply::Response(code, headers(), b"<html>Please log in</html>".to_vec()));
        for error in [names(&store, "p").unwrap_err(), store.stat("x").unwrap_err(), read_all(&store, "x", None).unwrap_err()] {
            assert_eq!(error.kind, StorageErrorKind::Protocol, "{error}");
        }
    }
}

#[test]
fn an_endless_listing_is_detected() {
    let tokens = AtomicUsize::new(0);
    let number = move || tokens.fetch_add(1, Ordering::SeqCst);
    type Make = Box<dyn Fn() -> String + Send + Sync>;
    let pages: Vec<Make> = vec![
        Box::new(|| listing(&["p-1"], Some("same"))),
        Box::new(|| listing(&[], Some("same"))),
        Box::new(|| listing(&["p-2", "p-1"], None)),
        Box::new(|| listing(&["other"], None)),
        Box::new(move || listing(&[], Some(&number().to_string()))),
        Box::new(|| listing(&["p-1"], None).replace("false", "true")),
        Box::new(|| format!("<!DOCTYPE a [<!ENTITY b \"c\">]>{}", listing(&[], None))),
    ];
    for page in pages {
        let (server, store) = hostile(move |_| ok(&[], page()));
        let error = names(&store, "p-").unwrap_err();
        assert_eq!(error.kind, StorageErrorKind::Protocol, "{error}");
        assert!(server.requests().len() <= 110, "{}", server.requests().len());
    }
}

#[test]
fn a_huge_page_is_refused() {
    let (_server, store) = hostile(|_| Reply::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n<".to_vec()));
    assert_eq!(names(&store, "p-").unwrap_err().kind, StorageErrorKind::Protocol);
    // Made beforehand: on a busy machine this would take longer than the timeout of the client.
    let mut page = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2000000\r\n".to_vec();
    page.extend(vec![b' '; 0x200_0000]);
    let (_server, store) = hostile(move |_| Reply::Bytes(page.clone()));
    assert_eq!(names(&store, "p-").unwrap_err().kind, StorageErrorKind::Protocol);
}

/// A bucket `b` with the objects of the conformance test.
fn conforming(request: &ReceivedRequest, objects: &Objects) -> Reply {
    let (path, query) = request.path_and_query();
    let name = path.strip_prefix("/b").unwrap().trim_start_matches('/');
    if name.is_empty() {
        let of = |name: &str| query.get(name).map_or("", String::as_str);
        let (page, next) = objects.page(of("prefix"), of("continuation-token").max(of("start-after")));
        let next = next.map(|name| name.replace('&', "&amp;").replace('<', "&lt;"));
        let entry = |(name, size): &(String, usize)| {
            format!("<Contents><Key>{}</Key><Size>{size}</Size><LastModified>2026-11-22T10:00:00Z</LastModified></Contents>", encode(name))
        };
        let contents: String = page.iter().map(entry).collect();
        return ok(&[], listing(&[], next.as_deref()).replace("</ListBucketResult>", &format!("{contents}</ListBucketResult>")));
    }
    match objects.get(name, request, vec![("ETag", HASH.to_owned())]) {
        Reply::Response(404, ..) if request.method != "HEAD" => error(404, "NoSuchKey"),
        reply => reply,
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
