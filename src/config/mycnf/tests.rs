//! The first table was produced by MariaDB's `my_print_defaults`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use proptest::prelude::*;
use secrecy::ExposeSecret;

use super::super::testing::{World, mode};
use super::*;

fn load(text: &str, dialect: Dialect) -> Result<MyCnf, ConfigError> {
    let world = World::new();
    MyCnf::load(&world.write("/root/.my.cnf", text), dialect, &world.env)
}

#[test]
fn reads_what_the_client_library_reads() {
    for (line, key, value) in [
        ("user = cinder   # trailing", "user", Some("cinder")),
        ("password = \"pa#ss'\\\"w\"   # c", "password", Some("pa#ss'\"w")),
        ("host='h o'  ", "host", Some("h o")),
        ("port=3307", "port", Some("3307")),
        ("socket=/run/a\\sb\\\\c.sock", "socket", Some("/run/a b\\c.sock")),
        ("ssl_ca=/x", "ssl-ca", Some("/x")),
        ("ssl-verify-server-cert", "ssl-verify-server-cert", None),
        ("  indented = yes", "indented", Some("yes")),
        ("loose_ssl-mode=REQUIRED", "ssl-mode", Some("REQUIRED")),
        ("a = x#y", "a", Some("x")),
        ("b = x #y", "b", Some("x")),
        ("c = 'it\\'s'", "c", Some("it's")),
        ("d = a\\nb\\tc\\qd", "d", Some("a\nb\tc\\qd")),
        ("e = \"unclosed", "e", Some("\"unclosed")),
        ("f = \"x\" y", "f", Some("\"x\" y")),
        ("g = 'a' 'b'", "g", Some("a' 'b")),
        ("h =", "h", Some("")),
        ("i=''", "i", Some("")),
        ("j = a;b ; c", "j", Some("a;b ; c")),
        ("k : v", "k : v", None),
    ] {
        let file = load(&format!("[client]\n; c\n # c2\n{line}\n"), Dialect::Library).unwrap();
        let setting = file.get(&["client"], key).unwrap_or_else(|| panic!("{line:?}"));
        assert_eq!(setting.value.as_deref(), value, "{line:?}");
        assert_eq!(setting.origin.to_string(), format!("~/.my.cnf:4 [client] {key}"), "{line:?}");
    }
}

#[test]
fn reads_what_pymysql_reads() {
    for (line, value) in
        [("password = pa#ss # word", "pa#ss # word"), ("password = 'a\\sb'", "a\\sb"), ("Password : x", "x"), ("password = \"x", "\"x")]
    {
        let file = load(&format!("[client]\n{line}\n!include /nonsense\n"), Dialect::Python).unwrap();
        assert_eq!(file.password(&["client"]).unwrap().value.expose_secret(), value, "{line:?}");
    }
}

#[test]
fn the_last_value_in_the_file_counts_for_any_of_the_groups() {
    let file = load("[client-mariadb] # c\nuser=a\n[client]\nuser=b\n[mysql]\nuser=c\n[ client ]\nuser=d\n", Dialect::Library).unwrap();
    assert_eq!(file.get(&["client", "client-mariadb"], "user").unwrap().value.as_deref(), Some("b"));
    assert_eq!(file.get(&["client-mariadb"], "user").unwrap().value.as_deref(), Some("a"));
}

#[test]
fn includes_are_read_in_place() {
    let world = World::new();
    world.write("/inc/b.cnf", "[client]\nhost=b\n");
    world.write("/inc/a.cnf", "[client]\nhost=a\nport=1\n");
    world.write("/inc/x.txt", "[client]\nhost=x\n");
    let open = world.write("/inc/z.cnf", "[client]\nhost=z\n");
    mode(&open, 0o666);
    let text = format!(
        "[client]\nuser=one\n!includedir {}\npassword=after\n!include {}\n!frob\n",
        world.path("/inc").display(),
        world.path("/nope.cnf").display()
    );
    let file = MyCnf::load(&world.write("/my.cnf", &text), Dialect::Library, &world.env).unwrap();
    let get = |key| file.get(&["client"], key).unwrap().value.clone().unwrap();
    assert_eq!([get("user"), get("host"), get("port"), get("password")], ["one", "b", "1", "after"]);

    let path = world.path("/self.cnf");
    world.write("/self.cnf", &format!("[client]\nuser=x\n!include {}\n", path.display()));
    assert!(MyCnf::load(&path, Dialect::Library, &world.env).is_ok(), "a file that includes itself does not recurse without end");
}

#[test]
fn errors_name_the_line() {
    for (text, error) in [
        ("user=1\n[client]\n", "~/.my.cnf:1: an option before the first [group]"),
        ("\n[client\n", "~/.my.cnf:2: a group name must end with ]"),
    ] {
        assert_eq!(load(text, Dialect::Library).err().unwrap().to_string(), error);
    }
    let file = load("[client]\nssl=maybe\n", Dialect::Library).unwrap();
    assert_eq!(file.get_bool(&["client"], "ssl").unwrap_err().to_string(), "~/.my.cnf:2 [client] ssl: ssl must be 0 or 1");
}

proptest! {
    #[test]
    fn no_line_makes_it_panic(line in "\\PC{0,40}", quoted in "[\\\\'\"#=a ]{0,20}") {
        for text in [&line, &quoted] {
            let _ = without_comment(text);
            let _ = split_library(text);
            let _ = split_python(text);
        }
    }
}
