//! URLs and configurations without a usable database.

use std::fs;

use super::Refusals;
use crate::program::Program;

#[test]
fn urls_without_a_database_are_refused() {
    let program = Program::on("unused");
    let mut refusals = Refusals::of(&program);
    for url in [
        "",
        "cinder",
        "mongodb://h/cinder",
        "mysql://u@h",
        "mysql://u:s3cr3t@h:99999/cinder",
        "postgresql+psycopg2://u:s3cr3t@[::1/cinder",
        "sqlite://",
        "sqlite:///:memory:",
    ] {
        let said = refusals.refuse_bare(2, &["scan", "--database-url", url]);
        assert!(!said.contains("s3cr3t"), "{said}");
    }
    insta::assert_snapshot!(refusals.said, @r#"
    $ scan --database-url ''
    error: --database-url: this is not a database URL; use mysql+pymysql://USER:PASSWORD@HOST/cinder, postgresql://USER:PASSWORD@HOST/cinder or sqlite:////PATH
    $ scan --database-url cinder
    error: --database-url: this is not a database URL; use mysql+pymysql://USER:PASSWORD@HOST/cinder, postgresql://USER:PASSWORD@HOST/cinder or sqlite:////PATH
    $ scan --database-url mongodb://h/cinder
    error: --database-url: mongodb:// is not a database that Cinder supports; use mysql+pymysql://USER:PASSWORD@HOST/cinder, postgresql://USER:PASSWORD@HOST/cinder or sqlite:////PATH
    $ scan --database-url mysql://u@h
    error: --database-url: the URL names no database; end its path with the name, for example /cinder
    $ scan --database-url mysql://u:s3cr3t@h:99999/cinder
    error: --database-url: the port must be a number from 1 to 65535; if it is a part of the password, write :, @ and / there as %3A, %40 and %2F
    $ scan --database-url postgresql+psycopg2://u:s3cr3t@[::1/cinder
    error: --database-url: the [ of the host in the URL has no ]
    $ scan --database-url sqlite://
    error: --database-url: the URL names a SQLite database in memory; use sqlite:////absolute/path
    $ scan --database-url sqlite:///:memory:
    error: --database-url: the URL names a SQLite database in memory; use sqlite:////absolute/path
    "#);
}

#[test]
fn an_unreadable_configuration_is_refused() {
    let program = Program::on("unused");
    let mut refusals = Refusals::of(&program);
    let write = |name: &str, text: &str| fs::write(program.path(name), text).unwrap();
    write("syntax.conf", "[DEFAULT]\ndebug = true\nthis is no option\n");
    write("section.conf", "[DEFAULT]\n[database\nconnection = sqlite:////x\n");
    write("none.conf", "[DEFAULT]\ndebug = true\n");
    write("scheme.conf", "[database]\nconnection = oracle://u:s3cr3t@h/cinder\n");
    write("loop.conf", "[database]\nconnection = $connection\n");
    write("number.conf", "[DEFAULT]\nservice_down_time = soon\n[database]\nconnection = sqlite:////x\n");
    fs::create_dir(program.path("folder")).unwrap();
    for name in ["absent.conf", "folder", "syntax.conf", "section.conf", "none.conf", "scheme.conf", "loop.conf", "number.conf"] {
        let said = refusals.refuse_bare(2, &["scan", "--config-file", name]);
        assert!(!said.contains("s3cr3t"), "{said}");
    }
    refusals.refuse_bare(2, &["scan", "--config-dir", "absent"]);
    refusals.refuse_bare(2, &["scan", "--database-url", "mysql://u@h/cinder", "--password-file", "absent"]);
    refusals.refuse_bare(2, &["scan", "--database-url", "mysql://u@h/cinder", "--password-file", "folder"]);
    refusals.refuse_bare(2, &["scan", "--database-url", "mysql://u@h/cinder", "--tls-ca", "absent"]);
    insta::assert_snapshot!(refusals.said, @r#"
    $ scan --config-file absent.conf
    error: cannot read absent.conf: No such file or directory (os error 2)
    $ scan --config-file folder
    error: cannot read folder: Is a directory (os error 21)
    $ scan --config-file syntax.conf
    error: syntax.conf:3: neither a section nor an option: the line has no = or :
    $ scan --config-file section.conf
    error: section.conf:2: a section must end with ] and nothing after it
    $ scan --config-file none.conf
    error: no Cinder database is configured: CINDER_DATABASE_URL is not set and there is no [database] connection in none.conf; give --database-url URL or --config-file FILE
    $ scan --config-file scheme.conf
    error: scheme.conf:2 [database] connection: oracle:// is not a database that Cinder supports; use mysql+pymysql://USER:PASSWORD@HOST/cinder, postgresql://USER:PASSWORD@HOST/cinder or sqlite:////PATH
    $ scan --config-file loop.conf
    error: loop.conf:2 [database] connection: its value refers to itself through connection
    $ scan --config-file number.conf
    error: number.conf:2 [DEFAULT] service_down_time: "soon" is not an integer
    $ scan --config-dir absent
    error: cannot read absent: No such file or directory (os error 2)
    $ scan --database-url mysql://u@h/cinder --password-file absent
    error: --password-file: cannot read absent: No such file or directory (os error 2)
    $ scan --database-url mysql://u@h/cinder --password-file folder
    error: --password-file: cannot read folder: Is a directory (os error 21)
    $ scan --database-url mysql://u@h/cinder --tls-ca absent
    error: --tls-ca: cannot read the CA certificates absent: No such file or directory (os error 2); if the path is that of a container, give --tls-ca FILE
    "#);
    // Many cinder.conf files have a % that escapes nothing. It is taken literally, with a warning.
    write("percent.conf", "[database]\nconnection = mysql://u:%zz@127.0.0.1:1/cinder\n");
    let said = refusals.refuse_bare(10, &["scan", "--config-file", "percent.conf"]);
    assert!(said.contains("percent.conf:2 [database] connection: a % in the password of the URL does not begin an escape"), "{said}");
    // The default locations.
    let said = refusals.refuse_bare(2, &["scan"]);
    for place in
        ["CINDER_DATABASE_URL", "/etc/cinder/cinder.conf", "/etc/kolla/cinder-backup/cinder.conf", "--database-url", "--config-file"]
    {
        assert!(said.contains(place), "{place} is not named in {said}");
    }
}
