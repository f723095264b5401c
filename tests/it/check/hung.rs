//! Servers that accept a connection and send nothing, or a byte now and then. A check ends when it has received nothing useful for
//! `--storage-timeout`, for every request and any number of backups.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::{Duration, Instant};

use cinder_backup_repair::db::Engine;
use serde_json::{Value, json};

use super::{OBJECTS, Site, TWO_HOURS, new_id, prefix_of, problems};
use crate::program::Answer;
use crate::servers::root;

const TIMEOUT: Duration = Duration::from_secs(4);
/// The time-out, plus a margin for single steps and a busy machine. Without a common limit these checks took minutes: five attempts of a
/// minute each, backup after backup.
const MOST: Duration = Duration::from_secs(25);

const S3: &str = "cinder.backup.drivers.s3.S3BackupDriver";
const SWIFT: &str = "cinder.backup.drivers.swift.SwiftBackupDriver";
const GOOGLE: &str = "cinder.backup.drivers.gcs.GoogleBackupDriver";
const CEPH: &str = "cinder.backup.drivers.ceph.CephBackupDriver";

/// A server that handles each connection in its own thread; returns its address.
fn server(handle: impl Fn(TcpStream) + Clone + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let handle = handle.clone();
            thread::spawn(move || handle(stream));
        }
    });
    address
}

/// Reads the head of the next request; returns its target.
fn request(reader: &mut BufReader<&TcpStream>) -> Option<String> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let target = line.split_whitespace().nth(1)?.to_owned();
    while line.trim_end() != "" {
        line.clear();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    }
    Some(target)
}

/// Waits until the other side disconnects, or for longer than any test takes.
fn hang(stream: &TcpStream) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(600)));
    let _ = BufReader::new(stream).read_until(0, &mut Vec::new());
}

/// A site with `backups` backups of a driver, each in the container that `container` names.
fn site(service: &str, backups: usize, container: &dyn Fn(usize) -> String, conf: &str) -> Site {
    let site = Site::on(Engine::Sqlite);
    for number in 0..backups {
        let (id, volume) = (new_id(), new_id());
        site.database.backup(|row| {
            let row = row.id(&id).volume_id(&volume).display_name(None::<&str>).service(service).container(container(number));
            row.service_metadata((service != CEPH).then(|| prefix_of(&id, &volume))).object_count(OBJECTS as i64).age(TWO_HOURS)
        });
    }
    fs::write(site.program.path("cinder.conf"), format!("[DEFAULT]\nreport_interval = 1\n{conf}")).unwrap();
    site
}

fn s3(url: &str) -> String {
    format!("backup_s3_endpoint_url = {url}\nbackup_s3_store_access_key = a\nbackup_s3_store_secret_key = s\n")
}

/// Checks all backups within [`MOST`]; all must be unverifiable, with the cause in the text.
#[track_caller]
fn check(site: &Site, what: &str, args: &[&str]) -> Value {
    let seconds = format!("{}s", TIMEOUT.as_secs());
    let begun = Instant::now();
    let document = site.program.json(4, &[&["check", "--all", "--storage-timeout", &seconds], args].concat());
    let took = begun.elapsed();
    println!("{what}: {took:?}");
    assert!(took < MOST, "{what}: {took:?}");
    assert_eq!(document["summary"]["unverifiable"].as_u64(), document["results"].as_array().map(|all| all.len() as u64), "{document:#}");
    let results = document["results"].as_array().unwrap();
    assert!(results.iter().flat_map(problems).all(|code| ["storage-away", "storage-unreachable", "storage-unavailable"].contains(&code)));
    let said = results.iter().filter(|result| result["problems"].to_string().contains("storage unreachable, giving up after 4 s")).count();
    assert!(said * 2 > results.len(), "{what}: {document:#}");
    document
}

#[test]
fn a_server_that_never_answers_costs_one_time_out() {
    let address = server(|stream| hang(&stream));
    let keystone = |version: &str, path: &str| {
        format!(
            "backup_swift_auth = single_user\nbackup_swift_auth_version = {version}\nbackup_swift_auth_url = http://{address}{path}\n\
             backup_swift_user = test:tester\nbackup_swift_key = secret\nbackup_swift_project = p\n"
        )
    };
    let same = |_: usize| "c".to_owned();
    for (what, service, conf) in [
        ("s3", S3, s3(&format!("http://{address}"))),
        // The handshake of TLS.
        ("s3 by https", S3, s3(&format!("https://{address}")) + "backup_s3_verify_ssl = false\n"),
        ("swift's own login", SWIFT, keystone("1", "/auth/v1.0")),
        ("keystone", SWIFT, keystone("3", "/v3")),
    ] {
        let site = site(service, 20, &same, &conf);
        for level in ["quick", "deep"] {
            check(&site, &format!("{what}, {level}"), &["--level", level]);
        }
    }
}

#[test]
fn a_login_that_never_answers_costs_one_time_out() {
    let address = server(|stream| hang(&stream));
    let site = site(GOOGLE, 20, &|_| "c".to_owned(), "");
    let account = json!({
        "type": "service_account", "project_id": "p", "private_key_id": "k", "client_email": "b@p.iam.gserviceaccount.com",
        "private_key": fs::read_to_string(root().join("src/storage/gcs/testdata/key.pem")).unwrap(),
        "token_uri": format!("http://{address}/token"),
    });
    fs::write(site.program.path("account.json"), account.to_string()).unwrap();
    let file = format!("backup_gcs_credential_file={}", site.path("account.json"));
    check(&site, "gcs", &["--gcs-endpoint", &format!("http://{address}"), "--storage-option", &file]);
}

#[test]
fn a_server_that_sends_a_byte_a_second_costs_one_time_out() {
    let drip = |head: &'static str| {
        server(move |mut stream| {
            if request(&mut BufReader::new(&stream)).is_some() {
                let _ = stream.write_all(head.as_bytes());
                while stream.write_all(b" ").is_ok() {
                    thread::sleep(Duration::from_millis(500));
                }
            }
        })
    };
    for (what, head) in [
        ("in the head", "HTTP/1.1 200 OK\r\nX-Slow: "),
        ("in the body", "HTTP/1.1 200 OK\r\nETag: \"x\"\r\nContent-Length: 1000000\r\n\r\n"),
    ] {
        let address = drip(head);
        for level in ["quick", "deep"] {
            let site = site(S3, 12, &|_| "c".to_owned(), &s3(&format!("http://{address}")));
            check(&site, &format!("a drip {what}, {level}"), &["--level", level]);
        }
    }
}

#[test]
fn many_containers_of_a_server_that_never_answers_cost_one_time_out() {
    let address = server(|stream| hang(&stream));
    let site = site(S3, 60, &|number| format!("bucket{number}"), &s3(&format!("http://{address}")));
    check(&site, "many buckets", &[]);
}

/// The server answers requests for all other buckets.
#[test]
fn a_bucket_that_never_answers_does_not_affect_the_others() {
    let address = server(|stream| {
        let mut reader = BufReader::new(&stream);
        while let Some(target) = request(&mut reader) {
            if target.starts_with("/bad") {
                return hang(&stream);
            }
            let body = match target.contains("list-type") {
                true => "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>",
                false => "<Error><Code>NoSuchKey</Code><Message>no</Message></Error>",
            };
            let status = if target.contains("list-type") { 200 } else { 404 };
            let head = format!("HTTP/1.1 {status} x\r\nContent-Type: application/xml\r\nContent-Length: {}\r\n\r\n", body.len());
            // The answer to HEAD has no body.
            if (&stream).write_all(format!("{head}{body}").as_bytes()).is_err() {
                return;
            }
        }
    });
    let site =
        site(S3, 24, &|number| if number % 3 == 0 { "bad".to_owned() } else { "good".to_owned() }, &s3(&format!("http://{address}")));
    for level in ["quick", "deep"] {
        let document = site.program.json(9, &["check", "--all", "--storage-timeout", "10s", "--level", level]);
        assert_eq!((&document["summary"]["missing"], &document["summary"]["unverifiable"]), (&16.into(), &8.into()), "{document:#}");
    }
}

#[test]
fn a_ceph_whose_commands_hang_costs_one_time_out() {
    let site = site(CEPH, 6, &|_| "backups".to_owned(), "");
    let programs = site.program.path("bin");
    fs::create_dir(&programs).unwrap();
    for name in ["rbd", "rados"] {
        let path = programs.join(name);
        fs::write(&path, "#!/bin/sh\nexec sleep 600\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    for level in ["quick", "deep"] {
        let mut command = site.program.command(&["check", "--all", "--storage-timeout", "4s", "--level", level, "-f", "json"]);
        command.env("PATH", format!("{}:/usr/bin:/bin", programs.display()));
        let begun = Instant::now();
        let answer: Answer = crate::program::answer(&mut command);
        assert!(begun.elapsed() < MOST, "{:?}", begun.elapsed());
        assert_eq!(answer.code, Some(4), "{}", answer.stderr);
        let document = answer.json();
        assert_eq!(document["summary"]["unverifiable"], 6, "{document:#}");
        assert!(document.to_string().contains("storage unreachable, giving up after 4 s"), "{document:#}");
    }
}

#[test]
fn a_storage_time_out_of_zero_is_refused() {
    let site = site(S3, 1, &|_| "c".to_owned(), "");
    let said = site.program.expect(2, &["check", "--all", "--storage-timeout", "0s"]).stderr;
    assert!(said.contains("must be at least 1 s"), "{said}");
}
