#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use proptest::prelude::*;
use secrecy::ExposeSecret;

use super::super::testing::{World, mode};
use super::*;
use crate::config::ServerKind;

fn tcp(name: &str) -> Host {
    Host::Tcp(name.to_owned())
}

fn login(host: &Host, database: &str, user: &str) -> ServerTarget {
    ServerTarget::new(ServerKind::Postgresql, host.clone(), 5432, database.to_owned(), Some(user.to_owned()))
}

fn find_in(text: &str, host: &Host, database: &str, user: &str) -> Option<(usize, String)> {
    search(text, &login(host, database, user)).map(|(line, password)| (line, password.expose_secret().to_owned()))
}

#[test]
fn the_first_line_that_matches_has_the_password() {
    let host = tcp("db1");
    for (text, expected) in [
        ("db1:5432:cinder:cinder:secret\n", Some((1, "secret"))),
        ("# comment\n\ndb1:5432:cinder:cinder:secret\r\n", Some((3, "secret"))),
        ("*:*:*:*:any\n", Some((1, "any"))),
        ("db2:*:*:*:no\ndb1:5433:*:*:no\ndb1:*:nova:*:no\ndb1:*:*:nova:no\ndb1:*:*:*:yes\n", Some((5, "yes"))),
        ("*:*:*:cinder:a\\:b\\\\c\\d\n", Some((1, "a:b\\cd"))),
        ("*:*:*:cinder:cut:here\n", Some((1, "cut"))),
        ("*:*:*:cinder: space \n", Some((1, " space "))),
        ("\\*:*:*:*:no\n", None),
        ("db*:*:*:*:no\n", None),
        ("db1:5432:cinder:cinder\n", None),
        ("*:*:*:*:\n", None),
        ("", None),
    ] {
        let found = find_in(text, &host, "cinder", "cinder");
        assert_eq!(found, expected.map(|(line, password)| (line, password.to_owned())), "{text:?}");
    }
    assert_eq!(find_in("db1:*:a\\:b:c\\\\d:x", &host, "a:b", "c\\d"), Some((1, "x".to_owned())));
}

#[test]
fn a_socket_in_the_usual_directory_is_localhost() {
    let socket = |path: &str| Host::Socket(path.into());
    let text = "localhost:*:*:*:l\n/srv/pg:*:*:*:s\n";
    assert_eq!(find_in(text, &socket("/var/run/postgresql"), "d", "u"), Some((1, "l".to_owned())));
    assert_eq!(find_in(text, &socket("/srv/pg"), "d", "u"), Some((2, "s".to_owned())));
}

#[test]
fn a_file_that_others_may_read_is_ignored() {
    let world = World::new();
    let path = world.write("/root/.pgpass", "*:*:*:*:secret\n");
    let host = tcp("db1");
    let login = login(&host, "d", "u");
    let mut warnings = Vec::new();
    let found = find(&login, None, &world.env, &mut warnings).unwrap();
    assert_eq!((found.value.expose_secret(), found.origin.to_string().as_str()), ("secret", "~/.pgpass:1"));
    assert!(warnings.is_empty());
    mode(&path, 0o640);
    assert!(find(&login, None, &world.env, &mut warnings).is_none());
    assert_eq!(warnings, ["the password file ~/.pgpass is ignored because others may read it, as libpq does; run chmod 600 ~/.pgpass"]);
}

#[test]
fn the_variable_names_another_file() {
    let world = World::new();
    world.write("/root/.pgpass", "*:*:*:*:home\n");
    let path = world.write("/srv/pass", "*:*:*:*:variable\n");
    let world = world.var("PGPASSFILE", path.to_str().unwrap());
    let host = tcp("db1");
    let login = login(&host, "d", "u");
    let mut warnings = Vec::new();
    assert_eq!(find(&login, None, &world.env, &mut warnings).unwrap().value.expose_secret(), "variable");
    let named = Setting::new(world.path("/missing"), Origin::Flag("--database-url"));
    assert!(find(&login, Some(&named), &world.env, &mut warnings).is_none());
    assert!(warnings[0].ends_with("/missing does not exist"), "{warnings:?}");
}

proptest! {
    #[test]
    fn an_escaped_field_comes_back(field in "\\PC{0,20}") {
        let escaped = field.replace('\\', "\\\\").replace(':', "\\:");
        let text = format!("{escaped}:rest");
        let (read, rest) = take_field(&text);
        prop_assert_eq!(read, field);
        prop_assert_eq!(rest, Some("rest"));
    }
}
