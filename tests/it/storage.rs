//! Tests of the storage servers that the other tests use.

use std::fs;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::Pid;
use serde_json::{Value, json};
use ureq::Agent;
use ureq::http::Response;
use ureq::{Body, RequestBuilder};

use crate::cinder::program;
use crate::servers::storage::{PASSWORD, listens};
use crate::servers::{self, gcs, is_alive, keystone, swift};

fn agent() -> Agent {
    Agent::config_builder().http_status_as_error(false).max_redirects(0).timeout_global(Some(Duration::from_secs(60))).build().into()
}

fn header(response: &Response<Body>, name: &str) -> String {
    let value = response.headers().get(name).unwrap_or_else(|| panic!("no {name} in {response:?}"));
    value.to_str().expect("a header in ASCII").to_owned()
}

fn auth_v1(url: &str, user: &str, key: &str) -> Response<Body> {
    agent().get(url).header("X-Auth-User", user).header("X-Auth-Key", key).call().expect("Swift answers")
}

/// A token of Keystone's and the catalogue.
fn auth_v3(keystone: &keystone::Keystone, user: &str, project: &str, domain: &str) -> Result<(String, Value), u16> {
    let user = json!({"name": user, "domain": {"name": domain}, "password": PASSWORD});
    let scope = json!({"project": {"name": project, "domain": {"name": domain}}});
    let body = json!({"auth": {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope}});
    let url = format!("{}/auth/tokens", keystone.url());
    let mut response = agent().post(url).content_type("application/json").send(body.to_string()).expect("Keystone answers");
    if response.status() != 201 {
        return Err(response.status().as_u16());
    }
    let token = header(&response, "X-Subject-Token");
    let body: Value = serde_json::from_reader(response.body_mut().as_reader()).expect("JSON");
    Ok((token, body["token"]["catalog"].clone()))
}

fn status<B>(request: RequestBuilder<B>, token: &str) -> u16
where
    RequestBuilder<B>: Call,
{
    request.header("X-Auth-Token", token).status()
}

/// A request without a body.
trait Call {
    fn status(self) -> u16;
}

impl Call for RequestBuilder<ureq::typestate::WithoutBody> {
    fn status(self) -> u16 {
        self.call().expect("an answer").status().as_u16()
    }
}

impl Call for RequestBuilder<ureq::typestate::WithBody> {
    fn status(self) -> u16 {
        self.send_empty().expect("an answer").status().as_u16()
    }
}

#[test]
fn swift_knows_its_users_and_pages_its_listings() {
    let swift = servers::swift();
    let refused = auth_v1(&swift.auth_url(), swift::USER, "wrong");
    assert_eq!(refused.status(), 401);
    let admitted = auth_v1(&swift.auth_url(), swift::USER, PASSWORD);
    assert_eq!(admitted.status(), 200);
    assert_eq!(header(&admitted, "X-Storage-Url"), swift.storage_url());
    let token = header(&admitted, "X-Auth-Token");
    let container = format!("{}/pages", swift.storage_url());
    assert_eq!(status(agent().put(&container), &token), 201);
    for number in 0..251 {
        assert_eq!(status(agent().put(format!("{container}/{number:03}")), &token), 201);
    }
    let list = |query: &str| {
        let url = format!("{container}?format=json{query}");
        let mut response = agent().get(url).header("X-Auth-Token", &token).call().expect("Swift answers");
        let list: Value = serde_json::from_reader(response.body_mut().as_reader()).expect("JSON");
        list.as_array().expect("a list").len()
    };
    assert_eq!(list(""), 250);
    assert_eq!(list("&marker=249"), 1);
    let reader = header(&auth_v1(&swift.auth_url(), swift::READER, PASSWORD), "X-Auth-Token");
    assert_eq!(status(agent().get(&container), &reader), 403);
}

#[test]
fn keystone_scopes_its_users() {
    let keystone = servers::keystone();
    assert_eq!(auth_v3(keystone, "cinder", "backups", "Default").err(), Some(401), "a client must name the domain");
    assert_eq!(auth_v3(keystone, "cinder", "customer", keystone::DOMAIN).err(), Some(401));
    let account = |project: &str| format!("{}{}", keystone.swift_url(), keystone.project(project));
    let (cinder, catalogue) = auth_v3(keystone, "cinder", "backups", keystone::DOMAIN).expect("cinder may");
    let stores = catalogue.as_array().expect("a list").iter().find(|service| service["type"] == "object-store").expect("a store");
    let first = &stores["endpoints"][0];
    assert_eq!((first["region"].as_str(), first["url"].as_str()), (Some(keystone::REGION), Some(account("backups").as_str())));
    assert_eq!(status(agent().head(account("backups")), &cinder) / 100, 2);
    assert_eq!(status(agent().head(account("customer")), &cinder), 403);
    let (operator, _) = auth_v3(keystone, "operator", "backups", keystone::DOMAIN).expect("operator may");
    assert_eq!(status(agent().head(account("customer")), &operator) / 100, 2);
    assert_eq!(status(agent().head(account("customer")), "no-token"), 401);
}

#[test]
fn tokens_that_have_expired_are_refused() {
    let swift = swift::start(&swift::Settings { token_life: 1, ..swift::Settings::default() });
    let token = header(&auth_v1(&swift.auth_url(), swift::USER, PASSWORD), "X-Auth-Token");
    let begun = Instant::now();
    while status(agent().get(swift.storage_url()), &token) != 401 {
        assert!(begun.elapsed() < Duration::from_secs(60), "the token does not expire");
        sleep(Duration::from_millis(100));
    }
}

#[test]
fn google_requires_a_token_and_pages_its_listings() {
    let gcs = gcs::start(&gcs::Settings { page: 3, ..gcs::Settings::default() });
    let refused = agent().get(format!("{}storage/v1/b", gcs.url())).call().expect("an answer");
    assert_eq!(refused.status(), 401);
    // The front must work with Google's own client.
    let script = "
import sys
from google.oauth2 import service_account
from google.auth.transport.requests import AuthorizedSession
url, path = sys.argv[1:]
credentials = service_account.Credentials.from_service_account_file(path, scopes=['https://www.googleapis.com/auth/devstorage.read_write'])
session = AuthorizedSession(credentials)
session.post(url + 'storage/v1/b?project=tests', json={'name': 'pages'}).raise_for_status()
for number in range(7):
    session.post(f'{url}upload/storage/v1/b/pages/o?uploadType=media&name=dir/{number}', data=b'x').raise_for_status()
seen, token = [], None
while True:
    page = session.get(url + 'storage/v1/b/pages/o', params={'prefix': 'dir/', **({'pageToken': token} if token else {})}).json()
    seen.append(len(page['items']))
    token = page.get('nextPageToken')
    if not token:
        break
print(seen)
";
    let shown = servers::run(Command::new(program("python")).args(["-c", script, &gcs.url()]).arg(gcs.credentials()));
    assert_eq!(shown.trim(), "[3, 3, 1]");
}

/// The children of a process.
fn children(parent: Pid) -> Vec<Pid> {
    let path = format!("/proc/{0}/task/{0}/children", parent.as_raw_nonzero());
    let text = fs::read_to_string(path).expect("the process runs");
    text.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
}

#[test]
fn child_processes_end_with_their_server() {
    let swift = swift::start(&swift::Settings::default());
    let gcs = gcs::start(&gcs::Settings::default());
    let mut all = children(swift.process.pid().expect("it runs"));
    assert_eq!(all.len(), 6, "memcached, object, container, account, two proxies");
    all.extend(children(gcs.process.pid().expect("it runs")));
    assert_eq!(all.len(), 7);
    swift.process.kill();
    gcs.process.kill();
    let begun = Instant::now();
    while all.iter().any(|pid| is_alive(*pid)) {
        assert!(begun.elapsed() < Duration::from_secs(30), "still running: {all:?}");
        sleep(Duration::from_millis(20));
    }
    assert!(!listens(swift.port) && !listens(swift.tls_port) && !listens(gcs.port));
    // A killed server can be started again on the same ports.
    swift.process.start(&|| listens(swift.port) && auth_v1(&swift.auth_url(), swift::USER, PASSWORD).status() == 200);
}
