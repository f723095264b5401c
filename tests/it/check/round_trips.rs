//! The requests of a quick check: a few for each backup, over kept connections, with one login.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use cinder_backup_repair::db::Engine;
use md5::{Digest, Md5};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::json;

use super::slow::SILENT;
use super::{FULL, OBJECTS, Site, TWO_HOURS, VOLUME, new_id, patterns, prefix_of};
use crate::servers::root;

/// The number of backups: so many that requests made once do not matter for the number per backup.
const BACKUPS: usize = 24;
/// Backups that are checked at once.
const AT_ONCE: usize = 8;
/// The most objects on a page of a listing.
const PAGE: usize = 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaks {
    Swift,
    S3,
    Google,
}

/// An object server on loopback that counts requests and connections. Its threads end with the process.
pub(super) struct Counting {
    pub(super) url: String,
    /// Its objects; tests may change them at any time.
    pub(super) objects: Arc<Mutex<Objects>>,
    pub(super) harm: Arc<Mutex<Option<Harm>>>,
    pub(super) requests: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
    /// Milliseconds before each answer; tests may change it at any time.
    pub(super) delay: Arc<AtomicU64>,
    /// Requests whose target contains this text get no answer for [`SILENT`].
    pub(super) silent: Arc<Mutex<Option<String>>>,
    /// The peak number of requests at once.
    pub(super) most: Arc<AtomicUsize>,
}

/// How the server harms objects whose names end in the given text.
pub(super) enum Harm {
    /// One bit is flipped on the network.
    Damaged(&'static str),
    /// The object was rewritten after the listing, in this second.
    Rewritten(&'static str),
    /// The connection ends within the body of each page of a listing: when the page is requested for the first time, which adds it to the
    /// set, or always.
    CutPages(Option<BTreeSet<String>>),
    /// Every page of a listing is the first one.
    SamePage,
}

pub(super) type Objects = BTreeMap<String, Vec<u8>>;
/// Status, headers, body.
type Reply = (u16, Vec<(&'static str, String)>, Vec<u8>);

impl Counting {
    pub(super) fn new(speaks: Speaks, objects: Objects) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let objects = Arc::new(Mutex::new(objects));
        let harm = Arc::default();
        let server = Self {
            url: url.clone(),
            objects: Arc::clone(&objects),
            harm: Arc::clone(&harm),
            requests: Arc::default(),
            connections: Arc::default(),
            delay: Arc::default(),
            silent: Arc::default(),
            most: Arc::default(),
        };
        let (asked, most) = (Arc::new(AtomicUsize::new(0)), Arc::clone(&server.most));
        let (requests, connections, delay) = (Arc::clone(&server.requests), Arc::clone(&server.connections), Arc::clone(&server.delay));
        let silent = Arc::clone(&server.silent);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                connections.fetch_add(1, Ordering::SeqCst);
                let (asked, most, harm, silent) = (Arc::clone(&asked), Arc::clone(&most), Arc::clone(&harm), Arc::clone(&silent));
                let (requests, objects, delay, url) = (Arc::clone(&requests), Arc::clone(&objects), Arc::clone(&delay), url.clone());
                thread::spawn(move || {
                    while serve(&stream, &|target, range| {
                        requests.lock().unwrap().push(target.to_owned());
                        most.fetch_max(asked.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        let is_silent = silent.lock().unwrap().as_ref().is_some_and(|text| target.contains(text));
                        thread::sleep(Duration::from_millis(if is_silent { SILENT } else { delay.load(Ordering::SeqCst) }));
                        asked.fetch_sub(1, Ordering::SeqCst);
                        let mut harm = harm.lock().unwrap();
                        let is_first = |part: &&str| !["marker=", "start-after=", "pageToken="].iter().any(|name| part.starts_with(name));
                        let first: Vec<&str> = target.split('&').filter(is_first).collect();
                        let shown = if matches!(*harm, Some(Harm::SamePage)) { first.join("&") } else { target.to_owned() };
                        let answered = answer(speaks, &objects.lock().unwrap(), &url, &shown, range);
                        harmed(answered, target, harm.as_mut())
                    })
                    .is_some()
                    {}
                });
            }
        });
        server
    }
}

/// Answers one request; `None` at the end of the connection.
fn serve(mut stream: &TcpStream, answer: &dyn Fn(&str, Option<&str>) -> Reply) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let is_head = line.starts_with("HEAD ");
    let target = line.split_whitespace().nth(1)?.to_owned();
    let (mut length, mut range) = (0, None);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        match name.to_lowercase().as_str() {
            "content-length" => length = value.trim().parse().unwrap(),
            "range" => range = Some(value.trim().trim_start_matches("bytes=").to_owned()),
            _ => {}
        }
    }
    reader.read_exact(&mut vec![0; length]).ok()?;
    let (status, headers, body) = answer(&target, range.as_deref());
    let is_cut = headers.iter().any(|(name, _)| *name == "Content-Length");
    let mut head = format!("HTTP/1.1 {status} Whatever\r\n");
    if !is_cut {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let body = if is_head { &[] } else { body.as_slice() };
    stream.write_all(&[head.as_bytes(), b"\r\n", body].concat()).ok().filter(|()| !is_cut)
}

fn harmed((status, mut headers, mut body): Reply, target: &str, harm: Option<&mut Harm>) -> Reply {
    let is_for = |name: &str| status == 200 && target.split('?').next().unwrap().ends_with(name);
    let middle = body.len() / 2;
    match harm {
        Some(Harm::Damaged(name)) if is_for(name) => body[middle] ^= 4,
        Some(Harm::Rewritten(name)) if is_for(name) => {
            body[middle] ^= 4;
            headers.retain(|(name, _)| !["ETag", "Last-Modified"].contains(name));
            headers.push(("ETag", format!("\"{}\"", md5(&body))));
            headers.push((
                "Last-Modified",
                jiff::Zoned::now().with_time_zone(jiff::tz::TimeZone::UTC).strftime("%a, %d %b %Y %H:%M:%S GMT").to_string(),
            ));
        }
        Some(Harm::CutPages(seen)) => {
            let is_cut = is_listing(target) && seen.as_mut().is_none_or(|seen| seen.insert(target.to_owned()));
            if is_cut {
                headers.push(("Content-Length", body.len().to_string()));
                body.truncate(middle);
            }
        }
        _ => {}
    }
    (status, headers, body)
}

fn md5(bytes: &[u8]) -> String {
    Md5::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn answer(speaks: Speaks, objects: &Objects, url: &str, target: &str, range: Option<&str>) -> Reply {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let decode = |text: &str| percent_decode_str(text).decode_utf8().unwrap().into_owned();
    let value =
        |name: &str| query.split('&').filter_map(|part| part.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| decode(value));
    let prefix = value("prefix").unwrap_or_default();
    let after = ["marker", "continuation-token", "start-after", "pageToken"].into_iter().find_map(value).unwrap_or_default();
    let from = value("startOffset").unwrap_or_default();
    let matching = objects.iter().filter(|(name, _)| name.starts_with(&prefix) && **name > after && **name >= from);
    let listed: Vec<(&String, &Vec<u8>)> = matching.clone().take(PAGE).collect();
    let next = matching.clone().nth(PAGE).and(listed.last()).map(|(name, _)| *name);
    let ok = |body: String| {
        let count = ("X-Container-Object-Count", objects.len().to_string());
        (200, vec![("X-Trans-Id", "t".to_owned()), count], body.into_bytes())
    };
    if path == "/auth/v1.0" {
        return (200, vec![("X-Storage-Url", format!("{url}/v1/AUTH_test")), ("X-Auth-Token", "t".to_owned())], Vec::new());
    }
    if path == "/token" {
        return ok(json!({ "access_token": "t", "expires_in": 3600, "token_type": "Bearer" }).to_string());
    }
    let container = match speaks {
        Speaks::Swift => "/v1/AUTH_test/c",
        Speaks::S3 => "/c",
        Speaks::Google => "/storage/v1/b/c/o",
    };
    let Some(name) = path.strip_prefix(container) else { return (404, Vec::new(), Vec::new()) };
    if name.is_empty() {
        return match speaks {
            // The last page is empty.
            Speaks::Swift => {
                let at = "2026-11-22T10:00:00.000000";
                let entry = |(name, bytes): (&String, &Vec<u8>)| json!({ "name": name, "bytes": bytes.len(), "hash": md5(bytes), "last_modified": at });
                ok(listed.into_iter().map(entry).collect::<serde_json::Value>().to_string())
            }
            Speaks::S3 => {
                let entry = |(name, bytes): (&String, &Vec<u8>)| {
                    let key = utf8_percent_encode(name, NON_ALPHANUMERIC);
                    let (tag, size) = (md5(bytes), bytes.len());
                    format!(
                        "<Contents><Key>{key}</Key><LastModified>2026-11-22T10:00:00Z</LastModified><ETag>\"{tag}\"</ETag><Size>{size}</Size></Contents>"
                    )
                };
                let entries: String = listed.into_iter().map(entry).collect();
                let next = next.map(|name| format!("<NextContinuationToken>{name}</NextContinuationToken>"));
                ok(format!(
                    "<ListBucketResult><IsTruncated>{}</IsTruncated><EncodingType>url</EncodingType>{}{entries}</ListBucketResult>",
                    next.is_some(),
                    next.unwrap_or_default()
                ))
            }
            Speaks::Google => {
                let entry = |(name, bytes): (&String, &Vec<u8>)| json!({ "name": name, "size": bytes.len().to_string(), "timeCreated": "2026-11-22T10:00:00Z" });
                ok(json!({ "items": listed.into_iter().map(entry).collect::<Vec<_>>(), "nextPageToken": next }).to_string())
            }
        };
    }
    let Some(bytes) = objects.get(&decode(name.trim_start_matches('/'))) else {
        let body = match speaks {
            Speaks::Swift => String::new(),
            Speaks::S3 => "<Error><Code>NoSuchKey</Code></Error>".to_owned(),
            Speaks::Google => json!({ "error": { "code": 404, "message": "none" } }).to_string(),
        };
        let (_, headers, body) = ok(body);
        return (404, headers, body);
    };
    let mut headers = vec![
        ("ETag", format!("\"{}\"", md5(bytes))),
        ("X-Trans-Id", "t".to_owned()),
        ("x-goog-hash", "crc32c=AAAAAA==".to_owned()),
        ("Last-Modified", "Sun, 22 Nov 2026 10:00:00 GMT".to_owned()),
    ];
    let Some((first, last)) = range.and_then(|range| range.split_once('-')) else { return (200, headers, bytes.clone()) };
    let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap_or(usize::MAX).min(bytes.len() - 1));
    headers.push(("Content-Range", format!("bytes {first}-{last}/{}", bytes.len())));
    (206, headers, bytes[first..=last].to_vec())
}

/// A site whose backups are in the container `c`, and its server.
pub(super) fn site(speaks: Speaks, service: &str, backups: usize) -> (Site, Counting) {
    let site = Site::on(Engine::Sqlite);
    let mut objects = Objects::new();
    for _ in 0..backups {
        let (id, volume) = (new_id(), new_id());
        let prefix = format!("volume_{volume}/20261122100000/az_nova_backup_{id}");
        let replaced = |text: &str| text.replace(&prefix_of(FULL, VOLUME), &prefix).replace(FULL, &id).replace(VOLUME, &volume);
        for (name, bytes) in &patterns().0 {
            let is_side_file = name.ends_with("_metadata") || name.ends_with("_sha256file");
            let content = if is_side_file { replaced(std::str::from_utf8(bytes).unwrap()).into_bytes() } else { bytes.clone() };
            objects.insert(replaced(name), content);
        }
        site.database.backup(|row| {
            let row = row.id(&id).volume_id(&volume).display_name(None::<&str>).service(service).container("c").service_metadata(&prefix);
            row.object_count(OBJECTS as i64).age(TWO_HOURS)
        });
    }
    let server = Counting::new(speaks, objects);
    let url = &server.url;
    let key = fs::read_to_string(root().join("src/storage/gcs/testdata/key.pem")).unwrap();
    let account = json!({
        "type": "service_account", "project_id": "p", "private_key_id": "k", "private_key": key, "client_email": "b@p.iam.gserviceaccount.com",
        "token_uri": format!("{url}/token"),
    });
    fs::write(site.program.path("account.json"), account.to_string()).unwrap();
    let conf = format!(
        "[DEFAULT]\nbackup_swift_auth = single_user\nbackup_swift_auth_url = {url}/auth/v1.0\nbackup_swift_user = test:tester\n\
         backup_swift_key = secret\nbackup_s3_endpoint_url = {url}\nbackup_s3_store_access_key = a\nbackup_s3_store_secret_key = s\n\
         backup_gcs_credential_file = {}\n",
        site.program.path("account.json").display()
    );
    fs::write(site.program.path("cinder.conf"), conf).unwrap();
    (site, server)
}

/// Whether a request is for a listing.
fn is_listing(target: &str) -> bool {
    ["marker=", "start-after=", "startOffset=", "prefix="].iter().any(|parameter| target.contains(parameter))
}

/// Each backup lies between many that are not checked.
#[test]
fn scattered_backups_are_listed_one_by_one() {
    let (site, server) = site(Speaks::S3, "cinder.backup.drivers.s3.S3BackupDriver", BACKUPS);
    let others = server.objects.lock().unwrap().keys().filter(|name| name.ends_with("_metadata")).cloned().collect::<Vec<_>>();
    for name in others {
        server.objects.lock().unwrap().extend((0..PAGE).map(|number| (format!("{name}~{number:05}").replace("/az_", "~/"), Vec::new())));
    }
    let document = site.program.json(0, &["check", "--all"]);
    assert_eq!(document["summary"]["intact"], BACKUPS, "{document:#}");
    let requests = server.requests.lock().unwrap().clone();
    let (alone, pages): (Vec<&String>, Vec<&String>) =
        requests.iter().filter(|target| is_listing(target)).partition(|target| target.contains("prefix="));
    // 8 pages are a trial, and the backups that they list need no other.
    assert!(pages.len() <= 8 && alone.len() + pages.len() <= BACKUPS + 1, "{requests:#?}");
}

#[test]
fn a_quick_check_sends_few_requests_for_each_backup_and_logs_in_once() {
    // The metadata and the sha256file, and the pages of one listing for all backups.
    for (speaks, service, logins) in [
        (Speaks::Swift, "cinder.backup.drivers.swift.SwiftBackupDriver", 1),
        (Speaks::S3, "cinder.backup.drivers.s3.S3BackupDriver", 0),
        (Speaks::Google, "cinder.backup.drivers.gcs.GoogleBackupDriver", 1),
    ] {
        let (site, server) = site(speaks, service, BACKUPS);
        let document = site.program.json(0, &["check", "--all", "--gcs-endpoint", &server.url]);
        assert_eq!(document["summary"]["intact"], BACKUPS, "{document:#}");
        let requests = server.requests.lock().unwrap().clone();
        let login = |target: &String| target.starts_with("/auth/") || target.starts_with("/token");
        assert_eq!(requests.iter().filter(|target| login(target)).count(), logins, "{speaks:?} {requests:#?}");
        // One object shows whether the ETags of a bucket are digests. At most the checks that begin together read one.
        let is_example = |target: &&String| target.rsplit_once("-0000").is_some_and(|(_, number)| number.len() == 1);
        let examples = requests.iter().filter(is_example).count();
        assert!(examples <= if speaks == Speaks::S3 { AT_ONCE } else { 0 }, "{speaks:?} {requests:#?}");
        let others: Vec<&String> = requests.iter().filter(|target| !login(target) && !is_example(target)).collect();
        let distinct: BTreeSet<&String> = others.iter().copied().collect();
        let pages = distinct.iter().filter(|target| is_listing(target)).count();
        // A page begins with a backup. Swift's last page is always empty.
        let most = (BACKUPS * (OBJECTS + 2)).div_ceil(PAGE - (OBJECTS + 2)) + usize::from(speaks == Speaks::Swift);
        assert!(pages <= most && most < BACKUPS / 2, "{speaks:?}: {pages} pages: {requests:#?}");
        assert!(!requests.iter().any(|target| target.contains("prefix=")), "{speaks:?} {requests:#?}");
        assert_eq!(distinct.len() - pages, 2 * BACKUPS, "{speaks:?} {requests:#?}");
        // On a slow machine a connection may be lost and its request repeated.
        assert!(others.len() <= distinct.len() + 2, "{speaks:?}: {} instead of {}: {requests:#?}", others.len(), distinct.len());
        let connections = server.connections.load(Ordering::SeqCst);
        // Such an object may be requested while the listing is still being read.
        assert!(connections <= AT_ONCE + logins + examples, "{speaks:?}: {connections} connections for {} requests", requests.len());
    }
}
