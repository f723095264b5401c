//! Against the real SQLAlchemy 2.1.9: every row of the first table was produced by its `make_url`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use proptest::prelude::*;

use super::*;
use crate::config::testing::World;
use crate::config::*;

type Case = (
    &'static str,
    Option<&'static str>,
    Option<&'static str>,
    Option<&'static str>,
    Option<u16>,
    Option<&'static str>,
    &'static [(&'static str, &'static str)],
);

const CASES: &[Case] = &[
    ("mysql+pymysql://u:p@h/cinder", Some("u"), Some("p"), Some("h"), None, Some("cinder"), &[]),
    (
        "mysql+pymysql://u:p%40w@h:3307/cinder?charset=utf8",
        Some("u"),
        Some("p@w"),
        Some("h"),
        Some(3307),
        Some("cinder"),
        &[("charset", "utf8")],
    ),
    ("mysql://u:a+b@h/d", Some("u"), Some("a+b"), Some("h"), None, Some("d"), &[]),
    ("mysql://u:a%2Bb%20c@h/d", Some("u"), Some("a+b c"), Some("h"), None, Some("d"), &[]),
    ("mysql://us@er:pw@h/d", Some("us@er"), Some("pw"), Some("h"), None, Some("d"), &[]),
    ("mysql://us@er@h/d", Some("us@er"), None, Some("h"), None, Some("d"), &[]),
    ("mysql://u:p/w?x#y@h/d", Some("u"), Some("p/w?x#y"), Some("h"), None, Some("d"), &[]),
    ("mysql://u@h/d", Some("u"), None, Some("h"), None, Some("d"), &[]),
    ("mysql://u:@h/d", Some("u"), Some(""), Some("h"), None, Some("d"), &[]),
    ("mysql://:p@h/d", Some(""), Some("p"), Some("h"), None, Some("d"), &[]),
    ("mysql://@h/d", Some(""), None, Some("h"), None, Some("d"), &[]),
    ("mysql://h/d", None, None, Some("h"), None, Some("d"), &[]),
    ("mysql://h:3306/d", None, None, Some("h"), Some(3306), Some("d"), &[]),
    ("mysql://u:p@[::1]:3307/d", Some("u"), Some("p"), Some("::1"), Some(3307), Some("d"), &[]),
    ("mysql://u:p@/d?unix_socket=/run/m.sock", Some("u"), Some("p"), None, None, Some("d"), &[("unix_socket", "/run/m.sock")]),
    ("mysql:///d", None, None, None, None, Some("d"), &[]),
    ("mysql://", None, None, None, None, None, &[]),
    ("mysql://u:p@h", Some("u"), Some("p"), Some("h"), None, None, &[]),
    ("mysql://u:p@h/", Some("u"), Some("p"), Some("h"), None, Some(""), &[]),
    ("mysql://u:100%sure@h/d", Some("u"), Some("100%sure"), Some("h"), None, Some("d"), &[]),
    ("mysql://u:p@h/d%20b", Some("u"), Some("p"), Some("h"), None, Some("d b"), &[]),
    (
        "mysql://u:p@h/d?a=1&a=2&b=&c=%2B+x&;d=1",
        Some("u"),
        Some("p"),
        Some("h"),
        None,
        Some("d"),
        &[("a", "1"), ("a", "2"), ("c", "+ x"), (";d", "1")],
    ),
    (
        "postgresql+psycopg2://u:p@/d?host=/var/run/postgresql",
        Some("u"),
        Some("p"),
        None,
        None,
        Some("d"),
        &[("host", "/var/run/postgresql")],
    ),
    ("postgresql://u@%2Fvar%2Frun/d", Some("u"), None, Some("%2Fvar%2Frun"), None, Some("d"), &[]),
    ("sqlite:////abs/p.db", None, None, None, None, Some("/abs/p.db"), &[]),
    ("sqlite:///rel.db", None, None, None, None, Some("rel.db"), &[]),
    ("sqlite://", None, None, None, None, None, &[]),
    ("sqlite:////a%20b?timeout=3", None, None, None, None, Some("/a b"), &[("timeout", "3")]),
    ("sqlite+pysqlite:////x", None, None, None, None, Some("/x"), &[]),
    ("MySQL://h/d", None, None, Some("h"), None, Some("d"), &[]),
    ("mysql://u:p@h/a/b", Some("u"), Some("p"), Some("h"), None, Some("a/b"), &[]),
    ("mysql://u:p@h?x=1", Some("u"), Some("p"), Some("h"), None, None, &[("x", "1")]),
    ("mysql://u:p:q@h/d", Some("u"), Some("p:q"), Some("h"), None, Some("d"), &[]),
    ("mysql://u:p@h,h2/d", Some("u"), Some("p"), Some("h,h2"), None, Some("d"), &[]),
    ("mysql://u%3Aa:p@h/d", Some("u:a"), Some("p"), Some("h"), None, Some("d"), &[]),
    ("mysql://u:p@h/d#frag", Some("u"), Some("p"), Some("h"), None, Some("d#frag"), &[]),
    ("mysql://u:p@h/d?ssl_ca=/a;b", Some("u"), Some("p"), Some("h"), None, Some("d"), &[("ssl_ca", "/a;b")]),
    ("mysql://u:p @ h/d", Some("u"), Some("p "), Some(" h"), None, Some("d"), &[]),
    ("mysql://a/b@host/d", None, None, Some("a"), None, Some("b@host/d"), &[]),
];

fn parse(text: &str) -> Result<Url, ConfigError> {
    Url::parse(text, &Origin::Flag("--database-url"))
}

fn refused(text: &str) -> String {
    match parse(text) {
        Ok(_) => panic!("{text:?} was accepted"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn parses_urls_as_sqlalchemy_does() {
    for (text, user, password, host, port, database, query) in CASES {
        let url = parse(text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
        assert_eq!(url.user.as_deref(), *user, "{text:?}");
        assert_eq!(url.password.as_deref(), *password, "{text:?}");
        assert_eq!(url.host.as_deref(), *host, "{text:?}");
        assert_eq!(url.port, *port, "{text:?}");
        assert_eq!(url.database.as_deref(), *database, "{text:?}");
        let options: Vec<(&str, &str)> = url.query.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(options, *query, "{text:?}");
    }
}

#[test]
fn an_at_sign_may_be_part_of_a_password() {
    for (text, password, host) in [("mysql://u:p@ss@h/d", "p@ss", "h"), ("mysql://u:p@s:s@h:3306/d?x=y@z", "p@s:s", "h")] {
        let url = parse(text).unwrap();
        assert_eq!((url.password.as_deref(), url.host.as_deref()), (Some(password), Some(host)), "{text}");
        assert!(url.warnings[0].contains("%40"), "{:?}", url.warnings);
    }
}

#[test]
fn an_invalid_url_is_refused_without_repeating_it() {
    for (text, problem) in [
        ("/var/lib/cinder/cinder.sqlite", "is a path, not a URL"),
        ("secret.db", "is a path, not a URL"),
        ("secret", "not a database URL"),
        ("mysql:u:secret@h/d", "not a database URL"),
        ("mssql://u:secret@h/d", "mssql:// is not a database"),
        ("mysql://u:secret@h:x/d", "port must be a number from 1 to 65535"),
        ("mysql://u:secret@h:/d", "port must be a number"),
        ("mysql://u:secret@h:0/d", "port must be a number"),
        ("mysql://u:secret@h:99999/d", "port must be a number"),
        ("mysql://u:secret@h:+3306/d", "port must be a number"),
        ("mysql://u:secret@::1/d", "must be in brackets"),
        ("mysql://u:secret@[::1/d", "has no ]"),
        ("mysql://u:secret@[]/d", "host in the URL is empty"),
        ("mysql://u:secret@[::1]x/d", "only a :PORT may follow"),
        ("mysql://u:secret%00@h/d", "password of the URL contains a NUL"),
        ("mysql://u:secret%E9@h/d", "password of the URL is not UTF-8"),
        ("mysql://u:secret@h/d?x=%E9", "options of the URL is not UTF-8"),
        ("mysql://u:secret\n@h/d", "line break"),
        ("mysql://u:secret@h/d?ssl_ca=", "ssl_ca has no value"),
        ("postgresql://u:secret@h/d?sslmode", "sslmode has no value"),
    ] {
        let error = refused(text);
        assert!(error.starts_with("--database-url: "), "{error}");
        assert!(error.contains(problem), "{text:?}: {error}");
        assert!(!error.contains("secret"), "{error}");
    }
}

#[test]
fn a_percent_sign_without_an_escape_stays() {
    let url = parse("mysql://u:100%sure@h/d").unwrap();
    assert_eq!(url.password.as_deref(), Some("100%sure"));
    assert_eq!(
        url.warnings,
        ["--database-url: a % in the password of the URL does not begin an escape and was read as it is; write it as %25"]
    );
    assert!(parse("mysql://u:a%25b%2f@h/d").unwrap().warnings.is_empty());
}

#[test]
fn the_zone_of_an_address_is_decoded() {
    assert_eq!(parse("mysql://[fe80::1%25eth0]/d").unwrap().host.as_deref(), Some("fe80::1%eth0"));
}

fn escape(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

proptest! {
    #[test]
    fn no_url_makes_it_panic(text in "(mysql\\+pymysql|postgresql|sqlite|mysql)?(://)?([:@/?&=%\\[\\],]|\\PC|[a-z0-9]){0,40}") {
        let _ = World::new().url(&text).resolve();
    }

    #[test]
    fn random_parts_come_back(
        user in "\\PC{1,12}", password in "\\PC{1,20}", host in "[a-z][a-z0-9.-]{0,12}|::1|2001:db8::7",
        port in 1u16.., database in "\\PC{1,12}", app in "\\PC{1,12}",
    ) {
        let address = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        for scheme in ["mysql+pymysql", "postgresql+psycopg2"] {
            let text = format!(
                "{scheme}://{}:{}@{address}:{port}/{}?application_name={}",
                escape(&user), escape(&password), escape(&database), escape(&app),
            );
            let world = World::new().url(&text);
            let server = world.server();
            prop_assert_eq!((&server.host, server.port), (&Host::Tcp(host.clone()), port));
            prop_assert_eq!((server.port, server.user.as_ref(), &server.database), (port, Some(&user), &database));
            prop_assert_eq!(world.password(), Some((password.clone(), "--database-url".to_owned())));

            // The printed URL names the same database.
            let described = world.resolve().unwrap().database.target.describe();
            prop_assert!(!described.chars().any(char::is_control));
            let again = World::new().url(&described).server();
            prop_assert_eq!((again.host, again.user, again.database), (server.host, server.user, server.database));
        }
    }
}
