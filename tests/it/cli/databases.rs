//! Files that are not a Cinder database, and servers that refuse the connection.

use std::fs;
use std::net::TcpListener;

use cinder_backup_repair::db::Engine;

use super::Refusals;
use crate::database::Database;
use crate::program::{Program, bare};
use crate::schemas::{Columns, fresh};
use crate::servers::{self, ADMIN};

#[test]
fn files_that_are_not_a_cinder_database_are_refused() {
    let program = Program::on("unused");
    let mut refusals = Refusals::of(&program);
    let at = |name: &str| format!("sqlite:///{}", program.path(name).display());
    let make = |name: &str, sql: &str| rusqlite::Connection::open(program.path(name)).unwrap().execute_batch(sql).unwrap();
    make("foreign.db", "CREATE TABLE invoices (id, total)");
    make("icehouse.db", "CREATE TABLE backups (id, status)");
    fs::write(program.path("empty.db"), "").unwrap();
    fs::write(program.path("text.db"), "SQLite is what this is not\n").unwrap();
    fs::create_dir(program.path("folder.db")).unwrap();
    let whole = fresh(Engine::Sqlite, Columns::Full);
    let bytes = fs::read(whole.path()).unwrap();
    fs::write(program.path("cut.db"), &bytes[..9_000]).unwrap();
    for (code, name) in
        [(10, "absent.db"), (10, "folder.db"), (14, "empty.db"), (14, "text.db"), (14, "foreign.db"), (14, "icehouse.db"), (14, "cut.db")]
    {
        refusals.refuse_bare(code, &["scan", "--database-url", &at(name)]);
    }
    insta::assert_snapshot!(refusals.said, @r#"
    $ scan --database-url sqlite:///DIR/absent.db
    error: there is no SQLite database DIR/absent.db, and this program never creates one; check the path in the URL
    hint: the database is sqlite:///DIR/absent.db, from --database-url
    $ scan --database-url sqlite:///DIR/folder.db
    error: DIR/folder.db is not a file
    hint: the database is sqlite:///DIR/folder.db, from --database-url
    $ scan --database-url sqlite:///DIR/empty.db
    error: DIR/empty.db is not a SQLite database
    hint: the database is sqlite:///DIR/empty.db, from --database-url
    $ scan --database-url sqlite:///DIR/text.db
    error: DIR/text.db is not a SQLite database
    hint: the database is sqlite:///DIR/text.db, from --database-url
    $ scan --database-url sqlite:///DIR/foreign.db
    error: not a Cinder database: the table backups is missing in sqlite:DIR/foreign.db; check the database name, and that this account may read the table
    hint: the database is sqlite:///DIR/foreign.db, from --database-url
    $ scan --database-url sqlite:///DIR/icehouse.db
    error: not a Cinder database of Icehouse or later: the column backups.deleted is missing in sqlite:DIR/icehouse.db; check the database name, and that this account may read the table
    hint: the database is sqlite:///DIR/icehouse.db, from --database-url
    $ scan --database-url sqlite:///DIR/cut.db
    error: cannot open DIR/cut.db: the database file is damaged (database disk image is malformed); check it with PRAGMA integrity_check
    hint: the database is sqlite:///DIR/cut.db, from --database-url
    "#);
}

#[test]
fn servers_that_refuse_the_connection_are_explained() {
    let program = Program::on("unused");
    let mut refusals = Refusals::of(&program);
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for scheme in ["mysql+pymysql", "postgresql"] {
        let said = refusals.refuse_bare(10, &["scan", "--database-url", &format!("{scheme}://u@127.0.0.1:{closed}/cinder")]);
        assert!(said.contains("refused") && said.contains(&closed.to_string()), "{said}");
        let said = refusals.refuse_bare(10, &["scan", "--database-url", &format!("{scheme}://u@no-such-host.invalid/cinder")]);
        assert!(said.contains("no-such-host.invalid"), "{said}");
    }
    for engine in [Engine::Mariadb, Engine::Postgresql] {
        let server = servers::server(engine).unwrap();
        let database = fresh(engine, Columns::Full);
        let said = refuse_url(&mut refusals, 12, &server.url(ADMIN, "Wr0ng-s3cr3t", database.name()));
        assert!(said.contains(ADMIN) && !said.contains("Wr0ng-s3cr3t"), "{said}");
        let said = refuse_url(&mut refusals, 12, &server.url("nobody_here", "Wr0ng-s3cr3t", database.name()));
        assert!(said.contains("nobody_here") && !said.contains("Wr0ng-s3cr3t"), "{said}");
        let said = refuse_url(&mut refusals, 14, &server.url(ADMIN, servers::ADMIN_PASSWORD, "no_such_cinder"));
        assert!(said.contains("no_such_cinder"), "{said}");
        // An empty database, and a database of another program.
        let empty = Database::empty(engine, Some(server));
        let said = refuse_url(&mut refusals, 14, &empty.tcp_url());
        assert!(said.contains("not a Cinder database"), "{said}");
        empty.execute("CREATE TABLE invoices (id INTEGER)");
        refuse_url(&mut refusals, 14, &empty.tcp_url());
    }
}

#[track_caller]
fn refuse_url(refusals: &mut Refusals<'_>, code: i32, url: &str) -> String {
    let mut command = bare(&["scan"]);
    command.env("CINDER_DATABASE_URL", url).current_dir(refusals.folder());
    refusals.refuse_command(code, &["scan"], &mut command)
}
