//! The drivers against real servers: every page of a listing and every byte of every object, with every login.

use std::collections::BTreeMap;
use std::io::Read;
use std::ops::ControlFlow;
use std::process::Command;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use cinder_backup_repair::config::{CinderConf, StorageOptions};
use cinder_backup_repair::storage::{
    Network, ObjectInfo, ObjectStore, StorageError, StorageErrorKind, gcs as google, s3, swift as openstack,
};
use md5::{Digest, Md5};
use ureq::Agent;

use crate::cinder::program;
use crate::servers::certificates::Certificates;
use crate::servers::storage::{PASSWORD, percent};
use crate::servers::{self, gcs, keystone, swift};

/// The options of a server's cinder.conf, with those of the command line.
fn options(conf: &[(&'static str, String)], flags: &[(&str, &str)]) -> StorageOptions {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cinder.conf");
    let lines: Vec<String> = conf.iter().map(|(name, value)| format!("{name} = {value}")).collect();
    std::fs::write(&path, format!("[DEFAULT]\n{}\n", lines.join("\n"))).unwrap();
    let flags: Vec<String> = flags.iter().map(|(name, value)| format!("{name}={value}")).collect();
    StorageOptions::new(CinderConf::load(&[path], &[]).unwrap(), &flags).unwrap()
}

fn list(store: &dyn ObjectStore, prefix: &str) -> Result<Vec<ObjectInfo>, StorageError> {
    let mut all = Vec::new();
    store.list(prefix, &mut |object| {
        all.push(object);
        ControlFlow::Continue(())
    })?;
    Ok(all)
}

fn read(store: &dyn ObjectStore, name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    store.open(name, None).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

/// Lists the rest of a container after a name, in pages.
fn rest(store: &dyn ObjectStore, after: &str) -> Vec<ObjectInfo> {
    let mut all: Vec<ObjectInfo> = Vec::new();
    loop {
        let after = all.last().map_or(after, |object| &object.name);
        let page = store.list_page(after).unwrap().unwrap();
        all.extend(page.objects);
        if page.is_last {
            return all;
        }
    }
}

/// Objects for more than two pages, with names of drivers and with unusual ones.
fn objects() -> BTreeMap<String, Vec<u8>> {
    let chunks = (1..=520).map(|number| format!("volume_v/20261122101112/az_nova_backup_b-{number:05}"));
    let odd = ["volume_v/odd a+b ü//d%2f?e#~&=<>\"'", "volume_v/x\ty", "volume_v/\u{1f600}"].map(str::to_owned);
    chunks.chain(odd).map(|name| (name.clone(), name.repeat(3).into_bytes())).collect()
}

/// Checks that the store has exactly these objects.
fn holds(store: &dyn ObjectStore, objects: &BTreeMap<String, Vec<u8>>) {
    let listed = list(store, "volume_v/").unwrap();
    let names: Vec<&str> = listed.iter().map(|object| object.name.as_str()).collect();
    assert_eq!(names, objects.keys().map(String::as_str).collect::<Vec<_>>(), "{}", store.location());
    for object in &listed {
        let bytes = &objects[&object.name];
        assert_eq!(object.size, bytes.len() as u64);
        assert_eq!(object.md5, Some(Md5::digest(bytes).into()), "{}", object.name);
        assert!(object.modified.is_some());
    }
    for after in ["", "volume_v/20261122101112/az_nova_backup_b-00300", "volume_v/x", "volume_w"] {
        assert!(rest(store, after).iter().eq(listed.iter().filter(|object| object.name.as_str() > after)), "after {after:?}");
    }
    // The unusual ones, which are at the end, and some others.
    for object in listed.iter().rev().take(5) {
        assert_eq!(read(store, &object.name), objects[&object.name]);
        let stat = store.stat(&object.name).unwrap().unwrap();
        assert_eq!((stat.size, stat.md5), (object.size, object.md5));
        let mut part = Vec::new();
        store.open(&object.name, Some(3..9)).unwrap().read_to_end(&mut part).unwrap();
        assert_eq!(part, objects[&object.name][3..9]);
    }
    assert_eq!(store.stat("volume_v/none").unwrap(), None);
    assert_eq!(store.open("volume_v/none", None).err().unwrap().kind, StorageErrorKind::NoObject);
}

/// Creates a container with these objects.
pub(crate) fn put(url: &str, token: &str, objects: &BTreeMap<String, Vec<u8>>) {
    let agent: Agent = Agent::config_builder().timeout_global(Some(Duration::from_secs(60))).build().into();
    agent.put(url).header("X-Auth-Token", token).send_empty().expect("a container");
    let all: Vec<_> = objects.iter().collect();
    std::thread::scope(|scope| {
        for part in all.chunks(all.len().div_ceil(4).max(1)) {
            let agent = &agent;
            scope.spawn(move || {
                for (name, bytes) in part {
                    let url = format!("{url}/{}", percent(name, b"/"));
                    agent.put(&url).header("X-Auth-Token", token).send(bytes.as_slice()).expect("an object");
                }
            });
        }
    });
}

pub(crate) fn token(swift: &swift::Swift) -> String {
    let answer = ureq::get(swift.auth_url()).header("X-Auth-User", swift::USER).header("X-Auth-Key", PASSWORD).call().expect("a token");
    answer.headers()["x-auth-token"].to_str().unwrap().to_owned()
}

fn swift_store(
    conf: &[(&'static str, String)],
    flags: &[(&str, &str)],
    project: Option<&str>,
    container: &str,
) -> Result<openstack::SwiftStore, StorageError> {
    openstack::Client::new(&options(conf, flags), &Network::default())?.container(project, container)
}

#[test]
fn swift_and_its_s3_return_the_stored_objects() {
    let swift = servers::swift();
    let objects = objects();
    put(&format!("{}/stores", swift.storage_url()), &token(swift), &objects);
    let conf = swift.swift_options("stores");
    holds(&swift_store(&conf, &[], None, "stores").unwrap(), &objects);
    let error = list(&swift_store(&conf, &[], None, "none").unwrap(), "").unwrap_err();
    assert_eq!(error.kind, StorageErrorKind::NoContainer, "{error}");
    for (name, value, kind) in [
        ("backup_swift_key", "wrong", StorageErrorKind::Authentication),
        ("backup_swift_user", swift::READER, StorageErrorKind::Permission),
    ] {
        let error = list(&swift_store(&conf, &[(name, value)], None, "stores").unwrap(), "").unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
    }

    let ca = Certificates::get().authority();
    let ca = ca.to_str().unwrap();
    let tls_auth = swift.tls_auth_url();
    let tls_s3 = swift.tls_s3_url();
    let s3_store =
        |flags: &[(&str, &str)]| s3::Client::new(&options(&swift.s3_options("stores"), flags), &Network::default())?.bucket("stores");
    holds(&s3_store(&[]).unwrap(), &objects);
    holds(&s3_store(&[("backup_s3_endpoint_url", &tls_s3), ("backup_s3_ca_cert_file", ca)]).unwrap(), &objects);
    let trusting = s3_store(&[("backup_s3_endpoint_url", &tls_s3), ("backup_s3_verify_ssl", "false")]).unwrap();
    assert_eq!(list(&trusting, "volume_v/x").unwrap().len(), 1);
    for (flags, kind) in [
        (vec![("backup_s3_endpoint_url", tls_s3.as_str())], StorageErrorKind::Configuration),
        (vec![("backup_s3_store_secret_key", "wrong")], StorageErrorKind::Authentication),
    ] {
        let error = list(&s3_store(&flags).unwrap(), "").unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
    }
    // The login with TLS. The URL of the objects is from Swift.
    let secure = swift_store(&conf, &[("backup_swift_auth_url", &tls_auth), ("backup_swift_ca_cert_file", ca)], None, "stores").unwrap();
    assert_eq!(list(&secure, "volume_v/x").unwrap().len(), 1);
    let error = list(&swift_store(&conf, &[("backup_swift_auth_url", &tls_auth)], None, "stores").unwrap(), "").unwrap_err();
    assert_eq!(error.kind, StorageErrorKind::Configuration, "{error}");
    let insecure =
        swift_store(&conf, &[("backup_swift_auth_url", &tls_auth), ("backup_swift_auth_insecure", "true")], None, "stores").unwrap();
    assert_eq!(list(&insecure, "volume_v/x").unwrap().len(), 1);
}

#[test]
fn an_expired_swift_token_is_renewed() {
    let swift = swift::start(&swift::Settings { token_life: 2, ..swift::Settings::default() });
    let agent: Agent = Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_secs(60))).build().into();
    let container = format!("{}/short", swift.storage_url());
    // On a busy machine a token may expire before it is used.
    let stored = |token: &str| {
        let made = agent.put(&container).header("X-Auth-Token", token).send_empty().expect("an answer").status();
        let stored = agent.put(format!("{container}/volume_v/1")).header("X-Auth-Token", token).send(b"one").expect("an answer").status();
        made.is_success() && stored.is_success()
    };
    assert!((0..20).any(|_| stored(&token(&swift))), "no token lives long enough");
    let store = Arc::new(swift_store(&swift.swift_options("short"), &[], None, "short").unwrap());
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(7) {
        assert_eq!(read(&*store, "volume_v/1"), b"one");
        sleep(Duration::from_millis(900));
    }
}

#[test]
fn keystone_gives_the_account_of_every_project() {
    let keystone = servers::keystone();
    let objects = BTreeMap::from([("volume_v/1".to_owned(), b"one".to_vec())]);
    let conf = keystone.swift_options("accounts");
    // The drivers only read, so Swift's client creates the containers.
    let script = "
import sys, swiftclient
url, password, domain, user, project = sys.argv[1:]
options = {'user_domain_name': domain, 'project_domain_name': domain, 'project_name': project}
connection = swiftclient.Connection(authurl=url, user=user, key=password, auth_version='3', os_options=options)
connection.put_container('accounts')
connection.put_object('accounts', 'volume_v/1', b'one')
";
    for (user, project) in [("cinder", "backups"), ("customer", "customer")] {
        let arguments = [&keystone.url(), PASSWORD, keystone::DOMAIN, user, project];
        servers::run(Command::new(program("python")).args(["-c", script]).args(arguments));
    }
    holds_one(&swift_store(&conf, &[], None, "accounts").unwrap(), &objects, "127.0.0.1");
    let region = [("backup_swift_region_name", keystone::OTHER_REGION)];
    holds_one(&swift_store(&conf, &region, None, "accounts").unwrap(), &objects, "localhost");

    let customer = keystone.project("customer");
    let operator = [("backup_swift_auth", "per_user"), ("backup_swift_user", "operator")];
    holds_one(&swift_store(&conf, &operator, Some(customer), "accounts").unwrap(), &objects, customer);
    let url = keystone.swift_url();
    let fixed = [operator[0], operator[1], ("backup_swift_url", url.as_str())];
    holds_one(&swift_store(&conf, &fixed, Some(customer), "accounts").unwrap(), &objects, customer);
    // A user of the project, scoped to the project of the backup.
    let own = [("backup_swift_auth", "per_user"), ("backup_swift_user", "customer"), ("backup_swift_project", "")];
    holds_one(&swift_store(&conf, &own, Some(customer), "accounts").unwrap(), &objects, customer);
    let cinder = [("backup_swift_auth", "per_user")];
    let error = list(&swift_store(&conf, &cinder, Some(customer), "accounts").unwrap(), "").unwrap_err();
    assert_eq!(error.kind, StorageErrorKind::Permission, "{error}");
    let error = list(&swift_store(&conf, &[("backup_swift_key", "wrong")], None, "accounts").unwrap(), "").unwrap_err();
    assert_eq!(error.kind, StorageErrorKind::Authentication, "{error}");
}

fn holds_one(store: &dyn ObjectStore, objects: &BTreeMap<String, Vec<u8>>, place: &str) {
    let location = store.location().to_owned();
    holds_some(store, objects);
    assert_eq!(store.location(), location, "a login changes nothing");
    // The location does not depend on a login. An error has the URL.
    let error = store.open("volume_v/none", None).err().unwrap();
    assert!(error.text.contains(place), "{error} is not at {place}");
}

fn holds_some(store: &dyn ObjectStore, objects: &BTreeMap<String, Vec<u8>>) {
    let listed = list(store, "volume_v/").unwrap();
    assert_eq!(listed.len(), objects.len(), "{}", store.location());
    for object in listed {
        assert_eq!(read(store, &object.name), objects[&object.name]);
    }
}

#[test]
fn google_lists_all_pages() {
    let gcs = gcs::start(&gcs::Settings { page: 3, token_life: 2 });
    let script = "
import sys
from google.oauth2 import service_account
from google.auth.transport.requests import AuthorizedSession
url, path = sys.argv[1:]
credentials = service_account.Credentials.from_service_account_file(path, scopes=['https://www.googleapis.com/auth/devstorage.read_write'])
session = AuthorizedSession(credentials)
session.post(url + 'storage/v1/b?project=tests', json={'name': 'all'}).raise_for_status()
for number in range(10):
    session.post(f'{url}upload/storage/v1/b/all/o?uploadType=media&name=volume_v%2F{number}+%2B', data=b'x' * number).raise_for_status()
";
    servers::run(Command::new(program("python")).args(["-c", script, &gcs.url()]).arg(gcs.credentials()));
    let open = |bucket: &str| google_store(&gcs, Some(&gcs.url()), bucket);
    let store = open("all").unwrap();
    let begun = Instant::now();
    // Longer than the life of a token.
    while begun.elapsed() < Duration::from_secs(4) {
        let listed = list(&store, "volume_v/").unwrap();
        assert!(rest(&store, "").iter().eq(&listed) && rest(&store, &listed[3].name).iter().eq(&listed[4..]));
        assert_eq!(listed.len(), 10);
        for (number, object) in listed.iter().enumerate() {
            let bytes = vec![b'x'; number];
            assert_eq!((object.name.as_str(), object.md5), (format!("volume_v/{number} +").as_str(), Some(Md5::digest(&bytes).into())));
            assert_eq!(read(&store, &object.name), bytes);
        }
        sleep(Duration::from_millis(500));
    }
    assert_eq!(store.stat("volume_v/none").unwrap(), None);
    assert_eq!(list(&open("none").unwrap(), "").unwrap_err().kind, StorageErrorKind::NoContainer);
}

fn google_store(gcs: &gcs::Gcs, endpoint: Option<&str>, bucket: &str) -> Result<google::GcsStore, StorageError> {
    google::Client::new(&options(&gcs.options(bucket), &[]), endpoint, &Network::default())?.bucket(bucket)
}
