//! Swift's driver against a test server for Swift and Keystone, and against invalid responses.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::storage::ObjectStore;
use crate::storage::http::testing::{
    Objects, ReceivedRequest, Reply, TestServer, check_pages, names, ok, options, read_all, short_timeouts, status,
};

const HASH: &str = "0cc175b9c0f1b6a831c399e269772661";

fn id() -> (&'static str, &'static str) {
    ("X-Trans-Id", "tx1")
}

/// A 404 or 410 from Swift.
fn gone(status: u16) -> Reply {
    Reply::Response(
        status,
        vec![("X-Trans-Id", "tx1".to_owned()), ("Content-Type", "text/html".to_owned())],
        b"<html>Not Found</html>".to_vec(),
    )
}

fn listing(names: &[&str]) -> String {
    let entries = names.iter().map(
        |name| serde_json::json!({"name": name, "bytes": 1, "hash": HASH, "last_modified": "2026-11-22T15:21:43.393480", "content_type": "x"}),
    );
    serde_json::Value::from_iter(entries).to_string()
}

/// Tempauth, and a container `c` with the objects `p-1` to `p-3`, listed by two.
fn swift(request: &ReceivedRequest) -> Reply {
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    if path == "/auth/v1.0" {
        if request.header("x-auth-key") != "secret" {
            return status(401);
        }
        let url = format!("http://{}/v1/AUTH_test", request.header("host"));
        return ok(&[("X-Storage-Url", &url), ("X-Auth-Token", "token-1")], "");
    }
    if request.header("x-auth-token") != "token-1" {
        return status(401);
    }
    match (request.method.as_str(), path) {
        ("HEAD", "/v1/AUTH_test") => Reply::Response(204, vec![("X-Account-Container-Count", "1".to_owned())], Vec::new()),
        ("HEAD", "/v1/AUTH_test/c") => Reply::Response(204, vec![("X-Container-Object-Count", "3".to_owned())], Vec::new()),
        ("GET", "/v1/AUTH_test/c") => match query {
            "format=json&prefix=p-" => ok(&[id()], listing(&["p-1", "p-2"])),
            "format=json&prefix=p-&marker=p-2" => ok(&[id()], listing(&["p-3"])),
            _ => ok(&[id()], "[]"),
        },
        ("HEAD", "/v1/AUTH_test/c/p-1") => {
            let headers = [id(), ("ETag", HASH), ("Last-Modified", "Sun, 22 Nov 2026 10:00:00 GMT"), ("Content-Length", "1")];
            ok(&headers, "")
        }
        ("GET", "/v1/AUTH_test/c/p-1") if request.header("range") == "bytes=0-4095" => Reply::Response(
            206,
            vec![("X-Trans-Id", "t".to_owned()), ("ETag", HASH.to_owned()), ("Content-Range", "bytes 0-0/1".to_owned())],
            vec![b'a'],
        ),
        ("GET", "/v1/AUTH_test/c/p-1") => ok(&[id(), ("ETag", HASH)], "a"),
        _ => gone(404),
    }
}

fn single(server: &TestServer, more: &[(&str, &str)]) -> Result<Arc<Client>, StorageError> {
    let conf = format!(
        "backup_swift_auth = single_user\nbackup_swift_auth_url = {}/auth/v1.0\nbackup_swift_user = test:tester\nbackup_swift_key = secret",
        server.url
    );
    Client::new(&options(&conf, more), &short_timeouts())
}

#[test]
fn a_container_is_listed_and_read() {
    let server = TestServer::new(swift);
    let account = single(&server, &[]).unwrap();
    let store = account.container(None, "c").unwrap();
    let location = format!("Swift container c, by {}/auth/v1.0", server.url);
    assert_eq!(store.location(), location);
    assert_eq!(names(&store, "p-").unwrap(), ["p-1", "p-2", "p-3"]);
    assert_eq!(store.location(), location, "a login changes nothing");
    assert_eq!(store.place(), format!("{}/v1/AUTH_test/c", server.url));
    let info = store.stat("p-1").unwrap().unwrap();
    assert_eq!((info.size, info.md5, info.modified), (1, hex::decode(HASH), Some("2026-11-22T10:00:00Z".parse().unwrap())));
    assert_eq!(read_all(&store, "p-1", None).unwrap(), b"a");
    assert_eq!(read_all(&store, "p-1", Some(0..4096)).unwrap(), b"a");
    assert_eq!(read_all(&store, "p-1", Some(5..5)).unwrap(), b"");
    assert_eq!(store.stat("p-9").unwrap(), None);
    assert_eq!(read_all(&store, "p-9", None).unwrap_err().kind, StorageErrorKind::NoObject);
    let none = account.container(None, "none").unwrap();
    for error in [names(&none, "p").unwrap_err(), none.stat("x").unwrap_err(), read_all(&none, "x", None).unwrap_err()] {
        assert_eq!(error.kind, StorageErrorKind::NoContainer, "{error}");
    }
    assert_eq!(server.requests().iter().filter(|request| request.target.starts_with("/auth")).count(), 1, "one login for all");
}

#[test]
fn locations_of_earlier_versions_are_recognised() {
    for (noted, name, is_it) in [
        ("http://h/v1/AUTH_t/c", "c", true),
        ("https://h/v1/AUTH_t/a%20c", "a c", true),
        ("http://h/v1/AUTH_t/cc", "c", false),
        ("http://h/v1/AUTH_t/c", "cc", false),
        ("Swift container c, by http://h/c", "c", false),
        ("/srv/c", "c", false),
    ] {
        assert_eq!(is_url_of(noted, name), is_it, "{noted} {name}");
    }
}

#[test]
fn times_and_digests_of_a_listing_are_parsed() {
    assert_eq!(time("2026-11-22T15:21:43.393480"), Some("2026-11-22T15:21:43.39348Z".parse().unwrap()));
    assert_eq!(time("2026-11-22T15:21:43.393Z"), Some("2026-11-22T15:21:43.393Z".parse().unwrap()));
    assert_eq!(time("yesterday"), None);
    let entry = |text: &str| serde_json::from_str::<Entry>(text).unwrap().info();
    let plain = format!(r#"{{"name":"n","bytes":5,"hash":"{HASH}","content_type":"x"}}"#);
    assert_eq!(entry(&plain).md5, hex::decode(HASH));
    assert_eq!(entry(&plain.replace(r#""bytes":5"#, r#""bytes":5,"slo_etag":"x""#)).md5, None);
    assert_eq!(entry(&plain.replace(r#""bytes":5"#, r#""bytes":0"#)).md5, None);
    assert_eq!(entry(&plain.replace(HASH, "d41d8cd98f00b204e9800998ecf8427e-3")).md5, None);
}

#[test]
fn an_expired_token_is_renewed_once_by_many_threads() {
    let logins = AtomicUsize::new(0);
    let server = TestServer::new(move |request| {
        if request.target == "/auth/v1.0" {
            let token = format!("token-{}", 1 + logins.fetch_add(1, Ordering::SeqCst));
            let url = format!("http://{}/v1/AUTH_test", request.header("host"));
            return ok(&[("X-Storage-Url", &url), ("X-Auth-Token", &token)], "");
        }
        // The first token is valid for one request.
        let good = request.header("x-auth-token") == "token-2" || request.target.ends_with("/first");
        if good { ok(&[id(), ("ETag", HASH)], "a") } else { status(401) }
    });
    let store = single(&server, &[]).unwrap().container(None, "c").unwrap();
    assert_eq!(read_all(&store, "first", None).unwrap(), b"a");
    std::thread::scope(|scope| {
        for number in 0..8 {
            let store = &store;
            scope.spawn(move || assert_eq!(read_all(store, &format!("p-{number}"), None).unwrap(), b"a"));
        }
    });
    assert_eq!(server.requests().iter().filter(|request| request.target == "/auth/v1.0").count(), 2);
}

#[test]
fn a_key_need_not_be_ascii() {
    let server = TestServer::new(|request| {
        assert!(request.target != "/auth/v1.0" || request.header("x-auth-key") == "pass-wörd+%/&=?", "{request:?}");
        ok(&[("X-Storage-Url", "http://127.0.0.1:1/v1/AUTH_test"), ("X-Auth-Token", "t")], "")
    });
    let store = single(&server, &[("backup_swift_key", "pass-wörd+%/&=?")]).unwrap().container(None, "c").unwrap();
    assert!(store.stat("x").unwrap_err().text.contains("refused"), "the login succeeds, and the storage is unreachable");
    let broken = single(&server, &[("backup_swift_key", "two\u{7}")]).unwrap().container(None, "c").unwrap();
    assert_eq!(broken.stat("x").unwrap_err().kind, StorageErrorKind::Configuration);
}

#[test]
fn refused_credentials_are_tried_once() {
    let server = TestServer::new(swift);
    let account = single(&server, &[("backup_swift_key", "wrong")]).unwrap();
    let store = account.container(None, "c").unwrap();
    for _ in 0..3 {
        let error = store.stat("p-1").unwrap_err();
        assert_eq!(error.kind, StorageErrorKind::Authentication);
        assert!(error.text.contains("backup_swift_key") && !error.text.contains("wrong"), "{error}");
    }
    assert_eq!(server.requests().len(), 1);
}

/// Keystone's version 3, with two regions.
fn keystone(request: &ReceivedRequest) -> Reply {
    let host = format!("http://{}", request.header("host"));
    if request.target == "/v3/auth/tokens" {
        let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
        let auth = &body["auth"];
        let user = &auth["identity"]["password"]["user"];
        assert_eq!((&user["name"], &user["password"]), (&"backup".into(), &"secret".into()));
        let project = match (&auth["scope"]["project"]["id"], &auth["scope"]["project"]["name"]) {
            (serde_json::Value::String(id), _) => id.clone(),
            (_, serde_json::Value::String(_)) => "11aa".to_owned(),
            _ => panic!("no scope"),
        };
        let endpoint = |region: &str, interface: &str| serde_json::json!({"region": region, "interface": interface, "url": format!("{host}/{region}/{interface}/AUTH_{project}")});
        let endpoints = [endpoint("one", "internal"), endpoint("one", "public"), endpoint("two", "public")];
        let service = serde_json::json!({"type": "object-store", "name": "swift", "endpoints": endpoints});
        let body = serde_json::json!({"token": {"project": {"id": project}, "catalog": [{"type": "identity"}, service]}}).to_string();
        return Reply::Response(201, vec![("X-Subject-Token", format!("token-{project}"))], body.into_bytes());
    }
    if request.target == "/v2.0/tokens" {
        let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
        assert_eq!(body["auth"]["tenantName"], "ops");
        let endpoints = serde_json::json!([{"region": "one", "publicURL": format!("{host}/v2/AUTH_ops"), "internalURL": "http://never"}]);
        let token = serde_json::json!({"id": "token-v2", "tenant": {"id": "11aa", "name": "ops"}});
        let body = serde_json::json!({"access": {"token": token, "serviceCatalog": [{"type": "object-store", "endpoints": endpoints}]}});
        return ok(&[], body.to_string());
    }
    ok(&[id()], "[]")
}

#[test]
fn keystone_gives_the_account_of_the_project() {
    let server = TestServer::new(keystone);
    let user = "backup_swift_user = backup\nbackup_swift_key = secret";
    let project = "backup_swift_project = ops";
    let single = "backup_swift_auth = single_user\nbackup_swift_auth_version = 3";
    let cases = [
        // The first public endpoint of the catalogue; the region of cinder.conf is ignored.
        (format!("{single}\n{project}\nbackup_swift_region_name = two"), None, vec![], "/one/public/AUTH_11aa/c"),
        (format!("{single}\n{project}"), None, vec![("backup_swift_region_name", "two")], "/two/public/AUTH_11aa/c"),
        (format!("{single}\nbackup_swift_tenant = ops"), None, vec![], "/one/public/AUTH_11aa/c"),
        (format!("{single}\n{project}"), None, vec![("backup_swift_url", "URL/fixed/AUTH_x")], "/fixed/AUTH_x/c"),
        // With per_user the backup's project replaces that of the operator.
        (project.to_owned(), Some("22bb"), vec![], "/one/public/AUTH_22bb/c"),
        (format!("{project}\nbackup_swift_region_name = two"), Some("22bb"), vec![], "/two/public/AUTH_22bb/c"),
        (format!("{project}\nswift_catalog_info = object-store:swift:internalURL"), Some("22bb"), vec![], "/one/internal/AUTH_22bb/c"),
        (format!("{project}\nbackup_swift_url = URL/fix/AUTH_"), Some("22bb"), vec![], "/fix/AUTH_22bb/c"),
        // Without a project of the operator the login is for that of the backup.
        (String::new(), Some("22bb"), vec![], "/one/public/AUTH_22bb/c"),
        (format!("{single}\nbackup_swift_auth_version = 2\nbackup_swift_tenant = ops"), None, vec![], "/v2/AUTH_ops/c"),
    ];
    for (conf, project_id, more, path) in cases {
        let version = if conf.contains("version = 2") { "" } else { "/v3" };
        let conf = format!("{user}\nbackup_swift_auth_url = {}{version}\n{conf}", server.url).replace("URL/", &format!("{}/", server.url));
        let more: Vec<_> = more.into_iter().map(|(name, value)| (name, value.replace("URL/", &format!("{}/", server.url)))).collect();
        let more: Vec<_> = more.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let account = Client::new(&options(&conf, &more), &short_timeouts()).unwrap();
        let store = account.container(project_id, "c").unwrap();
        assert_eq!(names(&store, "").unwrap_or_else(|error| panic!("{conf}: {error}")), [""; 0]);
        assert_eq!(store.place(), format!("{}{path}", server.url), "{conf} {more:?}");
    }
}

#[test]
fn what_is_missing_is_named() {
    let url = "backup_swift_auth_url = http://127.0.0.1:1/v3";
    let user = "backup_swift_user = u\nbackup_swift_key = k";
    for (conf, named) in [
        ("", "reseller admin"),
        ("backup_swift_auth = single_user", "backup_swift_auth_url"),
        (&format!("backup_swift_auth = single_user\n{url}"), "backup_swift_user"),
        (&format!("{url}\nbackup_swift_user = u"), "backup_swift_key"),
        (&format!("backup_swift_auth = single_user\nbackup_swift_auth_version = 3\n{url}\n{user}"), "backup_swift_project"),
        (&format!("backup_swift_auth_version = 4\n{url}\n{user}"), "use 1, 2 or 3"),
        (&format!("swift_catalog_info = swift\n{url}\n{user}"), "swift_catalog_info"),
        (&format!("backup_swift_ca_cert_file = /nowhere\n{url}\n{user}"), "/nowhere"),
        (&format!("{}\n{user}", url.replace("http:", "gopher:")), "http or https"),
    ] {
        let error = Client::new(&options(conf, &[]), &short_timeouts()).unwrap_err();
        assert_eq!(error.kind, StorageErrorKind::Configuration);
        assert!(error.text.contains(named), "{conf}: {error}");
    }
    let account = Client::new(&options(&format!("{url}\n{user}\nbackup_swift_auth_insecure = true"), &[]), &short_timeouts()).unwrap();
    assert_eq!(account.warnings().len(), 1);
    assert!(account.container(None, "c").unwrap_err().text.contains("project"));
    for name in ["", "a/b", "..", "."] {
        assert_eq!(account.container(Some("p"), name).unwrap_err().kind, StorageErrorKind::Configuration);
    }
}

/// A server whose login works and that otherwise sends `response`.
fn hostile(response: impl Fn(&ReceivedRequest) -> Reply + Send + Sync + 'static) -> (TestServer, SwiftStore) {
    let server = TestServer::new(move |request| if request.target == "/auth/v1.0" { swift(request) } else { response(request) });
    let store = single(&server, &[]).unwrap().container(None, "c").unwrap();
    (server, store)
}

#[test]
fn html_is_neither_an_object_nor_a_listing_nor_a_proof_of_absence() {
    let page = || ok(&[("Content-Type", "text/html"), ("ETag", "\"abc\""), ("X-Container-Object-Count", "")], "<html>Please log in</html>");
    let (_server, store) = hostile(move |_| page());
    for error in [names(&store, "p").unwrap_err(), store.stat("p-1").unwrap_err(), read_all(&store, "p-1", None).unwrap_err()] {
        assert_eq!(error.kind, StorageErrorKind::Protocol, "{error}");
    }
    // A proxy that answers 404 to everything proves nothing about an object.
    let (_server, store) = hostile(|request| if request.target.ends_with("/c") { ok(&[], "<html>hello</html>") } else { status(404) });
    assert_eq!(store.stat("p-1").unwrap_err().kind, StorageErrorKind::Protocol);
}

/// The errors of a listing, a stat and a read.
fn kinds(store: &SwiftStore) -> [Option<StorageErrorKind>; 3] {
    let kind = |error: StorageError| error.kind;
    [names(store, "p-").err().map(kind), store.stat("p-1").err().map(kind), read_all(store, "p-1", None).err().map(kind)]
}

#[test]
fn only_swift_itself_proves_that_a_container_is_missing() {
    use StorageErrorKind::{Configuration, NoContainer, NoObject, Permission, Protocol, Transient};
    for status in [404, 410] {
        // A proxy that knows nothing at this URL.
        let page = move || Reply::Response(status, vec![("Content-Type", "text/html".to_owned())], b"<html>nginx</html>".to_vec());
        let (_server, store) = hostile(move |_| page());
        assert_eq!(kinds(&store), [Some(Protocol); 3], "{status}");
        // A missing account has no containers. Swift may show it as an empty one.
        let (_server, store) = hostile(move |_| gone(status));
        assert_eq!(kinds(&store), [Some(Configuration); 3], "{status}");
        assert!(names(&store, "p-").unwrap_err().text.contains("/v1/AUTH_test: no such Swift account; check the project"));
        for (account, kind) in [
            (Reply::Response(204, vec![("X-Account-Container-Count", "0".to_owned())], Vec::new()), Configuration),
            (Reply::Response(204, vec![("X-Account-Container-Count", "7".to_owned())], Vec::new()), NoContainer),
            (Reply::Response(204, Vec::new(), Vec::new()), Protocol),
            (page(), Protocol),
            (crate::storage::http::testing::status(403), Permission),
            (crate::storage::http::testing::status(503), Transient),
        ] {
            let account = std::sync::Mutex::new(account);
            let (_server, store) = hostile(move |request| match (request.target.as_str(), &*account.lock().unwrap()) {
                ("/v1/AUTH_test", Reply::Response(status, headers, body)) => Reply::Response(*status, headers.clone(), body.clone()),
                _ => gone(status),
            });
            assert_eq!(kinds(&store), [Some(kind); 3], "{status}");
        }
        // Only the object is missing.
        let (_server, store) = hostile(move |request| if request.target.ends_with("/p-1") { gone(status) } else { swift(request) });
        assert_eq!(kinds(&store), [None, None, Some(NoObject)], "{status}");
        let (_server, store) = hostile(move |request| if request.target.ends_with("/p-1") { page() } else { swift(request) });
        assert_eq!(kinds(&store), [None, Some(Protocol), Some(Protocol)], "{status}");
    }
}

#[test]
fn no_content_is_not_an_empty_container() {
    let (_server, store) = hostile(|_| status(204));
    assert_eq!(kinds(&store), [Some(StorageErrorKind::Protocol); 3]);
    let (_server, store) = hostile(|_| Reply::Response(204, vec![("X-Trans-Id", "tx1".to_owned())], Vec::new()));
    assert_eq!(names(&store, "p-").unwrap(), [""; 0]);
}

#[test]
fn an_encoded_response_is_not_an_object() {
    let (_server, store) = hostile(|_| ok(&[id(), ("ETag", HASH), ("Content-Encoding", "gzip")], "[]"));
    assert_eq!(kinds(&store), [Some(StorageErrorKind::Protocol); 3]);
    assert!(names(&store, "p-").unwrap_err().text.contains("encoding \"gzip\", which was not requested"));
    for plain in ["identity", "aws-chunked", ""] {
        let (_server, store) = hostile(move |_| ok(&[id(), ("ETag", HASH), ("Content-Encoding", plain)], "[]"));
        assert_eq!(kinds(&store), [None; 3], "{plain}");
    }
}

#[test]
fn an_endless_listing_is_detected() {
    for page in [&["p-1", "p-2"][..], &["p-1", "p-1"], &["p-2", "p-1"], &["q-1"]] {
        let (server, store) = hostile(move |_| ok(&[id()], listing(page)));
        let error = names(&store, "p-").unwrap_err();
        assert_eq!(error.kind, StorageErrorKind::Protocol, "{error}");
        assert!(server.requests().len() <= 3);
    }
    // An endless listing that the caller ends.
    let counter = AtomicUsize::new(0);
    let (_server, store) = hostile(move |_| ok(&[id()], listing(&[format!("p-{:09}", counter.fetch_add(1, Ordering::SeqCst)).as_str()])));
    let mut left = 20;
    let stop = |_| {
        left -= 1;
        if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    store.list("p-", &mut { stop }).unwrap();
}

#[test]
fn a_huge_page_is_refused() {
    let (_server, store) = hostile(|_| Reply::Bytes(b"HTTP/1.1 200 OK\r\nX-Trans-Id: t\r\nContent-Length: 99999999999\r\n\r\n[".to_vec()));
    assert_eq!(names(&store, "p-").unwrap_err().kind, StorageErrorKind::Protocol);
    for nonsense in ["{", "{}", "[1]", r#"[{"name":1,"bytes":2}]"#, r#"[{"name":"p-1","bytes":-2}]"#, r#"[{"bytes":2}]"#, "\u{0}"] {
        let (_server, store) = hostile(move |_| ok(&[id()], nonsense));
        assert_eq!(names(&store, "p-").unwrap_err().kind, StorageErrorKind::Protocol, "{nonsense}");
    }
}

/// A container `c` with the objects of the conformance test.
fn conforming(request: &ReceivedRequest, objects: &Objects) -> Reply {
    let (path, query) = request.path_and_query();
    let name = path.strip_prefix("/v1/AUTH_test/c").unwrap().trim_start_matches('/');
    if name.is_empty() && request.method == "HEAD" {
        return Reply::Response(204, vec![("X-Container-Object-Count", "1".to_owned())], Vec::new());
    }
    if name.is_empty() {
        let of = |name: &str| query.get(name).map_or("", String::as_str);
        let (page, _) = objects.page(of("prefix"), of("marker"));
        let entry =
            |(name, size): (String, usize)| serde_json::json!({"name": name, "bytes": size, "last_modified": "2026-11-22T10:00:00.250000"});
        return ok(&[id()], serde_json::Value::from_iter(page.into_iter().map(entry)).to_string());
    }
    match objects.size(name) {
        Some(_) => objects.get(name, request, vec![("X-Trans-Id", "t".to_owned()), ("ETag", HASH.to_owned())]),
        None => gone(404),
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
