//! Decisions from flags, environment and files together.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::time::Duration;

use super::testing::{World, mode};
use super::*;

const MYSQL: &str = "mysql+pymysql://cinder:urlpw@db1/cinder?charset=utf8";

fn conf(connection: &str) -> String {
    format!("[DEFAULT]\nservice_down_time = 120\n[database]\nconnection = {connection}\n")
}

fn tls_of(world: &World) -> (TlsMode, Option<String>) {
    let tls = world.server().tls;
    (tls.mode, tls.ca.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()))
}

#[test]
fn the_url_is_taken_from_the_flag_then_the_variable_then_the_file() {
    let mut world = World::new();
    world.write("/etc/cinder/cinder.conf", &conf(MYSQL));
    let resolved = world.resolve().unwrap();
    assert!(resolved.database.origin.to_string().ends_with("/etc/cinder/cinder.conf:4 [database] connection"));
    assert_eq!(resolved.database.target.describe(), "mysql://cinder@db1:3306/cinder");
    assert_eq!(resolved.service.service_down_time, 120);
    assert_eq!(resolved.service.report_interval, 10);
    assert!(resolved.database.warnings.is_empty() && resolved.warnings.is_empty());

    world = world.var("CINDER_DATABASE_URL", "postgresql://v@db2/cinder");
    let resolved = world.resolve().unwrap();
    assert_eq!(resolved.database.origin, Origin::Variable("CINDER_DATABASE_URL"));
    assert_eq!(resolved.database.target.describe(), "postgresql://v@db2:5432/cinder");
    assert_eq!(resolved.service.service_down_time, 120, "the file is still read");

    world = world.url("sqlite:////srv/cinder.db");
    let resolved = world.resolve().unwrap();
    assert_eq!(resolved.database.origin, Origin::Flag("--database-url"));
    assert_eq!(resolved.database.target.describe(), "sqlite:////srv/cinder.db");
}

#[test]
fn the_command_line_overrides_the_environment() {
    let mut world = World::new().var("CINDER_DATABASE_URL", "mysql://cinder:varpw@production/cinder");
    let practice = world.write("/practice.conf", "[database]\nconnection = mysql://cinder:filepw@practice/cinder\n");
    world.flags.config_files = vec![practice];
    let resolved = world.resolve().unwrap();
    assert_eq!(resolved.database.target.describe(), "mysql://cinder@practice:3306/cinder");
    assert_eq!(resolved.database.url, None, "the user gives the file again, not the URL");
    assert_eq!(
        world.warnings(),
        "two databases are configured: mysql://cinder@practice:3306/cinder from /practice.conf:2 [database] connection is used, and \
         mysql://cinder@production:3306/cinder from CINDER_DATABASE_URL is ignored"
    );
    world = world.var("CINDER_DATABASE_PASSWORD", "of production");
    assert_eq!(world.password().unwrap().0, "filepw", "a password is not sent to another server");
    // If the files name no database, the environment does.
    world.write("/practice.conf", "[DEFAULT]\n");
    assert_eq!(world.resolve().unwrap().database.target.describe(), "mysql://cinder@production:3306/cinder");
    assert_eq!(world.warnings(), "");
    // A URL overrides both, and files in the usual places.
    world.flags.config_files.clear();
    world.write("/etc/cinder/cinder.conf", &conf("sqlite:////srv/other.db"));
    world = world.url("mysql://cinder@practice/cinder?charset=utf8&password=hunter2");
    let warnings = world.warnings();
    assert_eq!(
        warnings.matches("two databases are configured: mysql://cinder@practice:3306/cinder from --database-url is used").count(),
        2
    );
    assert!(warnings.contains("sqlite:////srv/other.db from /etc/cinder/cinder.conf:4 [database] connection is ignored"), "{warnings}");
    assert_eq!(world.resolve().unwrap().database.url.as_deref(), Some("mysql://cinder@practice/cinder?charset=utf8"));
    assert!(!warnings.contains("hunter2") && !warnings.contains("varpw"), "{warnings}");
    // An invalid URL may name another database.
    let world = World::new().url("sqlite:////srv/one.db").var("CINDER_DATABASE_URL", "sqlite:////srv/one.db?mode=ro");
    assert!(world.warnings().contains("an invalid URL from CINDER_DATABASE_URL is ignored"), "{}", world.warnings());
}

#[test]
fn two_urls_of_one_database_share_their_password() {
    let world = World::new().var("CINDER_DATABASE_URL", "mysql+pymysql://cinder:p%40ss@db1:3306/cinder?ssl=true");
    let shown = world.resolve().unwrap().database.url.unwrap();
    assert_eq!(shown, "mysql+pymysql://cinder@db1:3306/cinder?ssl=true");
    // As for a suggested command, which the user types in the same shell.
    let world = world.url(&shown);
    assert_eq!(world.warnings(), "");
    assert_eq!(world.password(), Some(("p@ss".into(), "CINDER_DATABASE_URL".into())));
    let world = world.url("mysql+pymysql://other@db1/cinder");
    assert_eq!((world.warnings(), world.password()), (String::new(), None));
    let world = World::new().url("sqlite:////srv/../srv/one.db").var("CINDER_DATABASE_URL", "sqlite:////srv/one.db");
    assert!(world.warnings().contains("two databases"), "missing files are compared by name");
}

#[test]
fn old_names_of_the_connection_are_read_with_a_warning() {
    for (text, origin) in [
        ("[DEFAULT]\nsql_connection = mysql://u:p@h/d\n", "[DEFAULT] sql_connection"),
        ("[DATABASE]\nsql_connection = mysql://u:p@h/d\n", "[DATABASE] sql_connection"),
        ("[sql]\nconnection = mysql://u:p@h/d\n", "[sql] connection"),
    ] {
        let world = World::new();
        world.write("/etc/cinder/cinder.conf", text);
        assert_eq!(world.warnings(), format!("/etc/cinder/cinder.conf:2 {origin}: this is an old name for [database] connection"));
    }
}

#[test]
fn without_a_database_the_error_names_the_searched_places() {
    let mut world = World::new();
    assert_eq!(
        world.error(),
        "no Cinder database is configured: CINDER_DATABASE_URL is not set and there is no /etc/cinder/cinder.conf, /etc/kolla/cinder-backup/cinder.conf, /etc/kolla/cinder-api/cinder.conf, /etc/kolla/cinder-volume/cinder.conf; give --database-url URL or --config-file FILE"
    );
    world.write("/etc/kolla/cinder-api/cinder.conf", "[DEFAULT]\n");
    assert_eq!(
        world.error(),
        "no Cinder database is configured: CINDER_DATABASE_URL is not set and there is no [database] connection in /etc/kolla/cinder-api/cinder.conf; give --database-url URL or --config-file FILE"
    );
    world.flags.config_files = vec![world.path("/none.conf")];
    assert_eq!(world.error(), "cannot read /none.conf: No such file or directory (os error 2)");
}

#[test]
fn the_usual_places_are_those_of_oslo_config_and_kolla() {
    let world = World::new();
    let names = |world: &World| -> Vec<String> {
        let places = usual_places(&world.env);
        let root = world.path("/").display().to_string();
        let all = places.files.iter().chain(&places.dirs);
        all.map(|path| path.display().to_string().replace(root.trim_end_matches('/'), "")).collect()
    };
    assert!(names(&world).is_empty());
    world.write("/etc/kolla/cinder-volume/cinder.conf", "");
    world.write("/etc/kolla/cinder-api/cinder.conf", "");
    assert_eq!(names(&world), ["/etc/kolla/cinder-api/cinder.conf"]);
    world.write("/usr/share/cinder/cinder-dist.conf", "");
    world.write("/etc/cinder/cinder.conf", "");
    world.write("/etc/cinder/cinder.conf.d/x.conf", "");
    world.write("/etc/cinder/cinder-backup.conf", "");
    assert_eq!(
        names(&world),
        ["/usr/share/cinder/cinder-dist.conf", "/etc/cinder/cinder.conf", "/etc/cinder/cinder-backup.conf", "/etc/cinder/cinder.conf.d"]
    );
    world.write("/root/.cinder/cinder.conf", "");
    assert_eq!(usual_places(&world.env).files[1], world.path("/root/.cinder/cinder.conf"));
}

#[test]
fn the_password_comes_from_the_strongest_source() {
    let mut world = World::new().url("mysql+pymysql://cinder@db1/cinder");
    assert_eq!(world.password(), None);

    world.write("/root/.my.cnf", "[client]\nuser=cinder\npassword='home pw'\n");
    assert_eq!(world.password(), Some(("home pw".into(), "~/.my.cnf:3 [client] password".into())));

    let file = world.write("/etc/my.cnf.d/cinder.cnf", "[cinder]\npassword=filepw\n");
    let url = format!("mysql+pymysql://cinder@db1/cinder?read_default_file={}&read_default_group=cinder", file.display());
    world = world.url(&url);
    assert_eq!(world.password(), Some(("filepw".into(), "/etc/my.cnf.d/cinder.cnf:2 [cinder] password".into())));

    world = world.var("MYSQL_PWD", "mysqlpwd").var("PGPASSWORD", "no");
    assert_eq!(world.password(), Some(("mysqlpwd".into(), "MYSQL_PWD".into())));

    world = world.url(&url.replace("cinder@", "cinder:urlpw@"));
    assert_eq!(world.password(), Some(("urlpw".into(), "--database-url".into())));
    assert!(world.warnings().contains("process list"), "{}", world.warnings());

    // The command line overrides the environment, whose password may belong to another database.
    world = world.var("CINDER_DATABASE_PASSWORD", "varpw");
    assert_eq!(world.password(), Some(("urlpw".into(), "--database-url".into())));
    world = world.url(&url);
    assert_eq!(world.password(), Some(("varpw".into(), "CINDER_DATABASE_PASSWORD".into())));

    let path = world.write("/pw", " flag pw \r\nsecond line\n");
    world.flags.password_file = Some(path.clone());
    assert_eq!(world.password(), Some((" flag pw ".into(), "--password-file".into())));
    mode(&path, 0o644);
    assert!(world.warnings().contains("/pw can be read by others"), "{}", world.warnings());

    world.write("/pw", "\n");
    assert_eq!(world.error(), "--password-file: cannot read /pw: its first line is empty; put the password there");
}

#[test]
fn a_my_cnf_for_another_user_or_writable_by_all_is_not_used() {
    let world = World::new().url("mysql+pymysql://cinder@db1/cinder");
    let path = world.write("/root/.my.cnf", "[client]\nuser=root\npassword=rootpw\n");
    assert_eq!(world.password(), None);
    world.write("/root/.my.cnf", "[client]\npassword=pw\n");
    assert_eq!(world.password().unwrap().0, "pw");
    mode(&path, 0o666);
    assert_eq!(world.password(), None);
    assert!(world.warnings().contains("everybody may write to it"));
    world.write("/root/.my.cnf", "[client]\npassword=\n");
    mode(&path, 0o600);
    assert_eq!(world.password(), None, "an empty password counts as unset");
    world.write("/root/.my.cnf", "password=x\n");
    assert_eq!(world.password(), None);
    assert!(world.warnings().contains("~/.my.cnf:1: an option before the first [group]"));
}

#[test]
fn postgresql_uses_its_own_files() {
    let mut world = World::new().url("postgresql+psycopg2://cinder@db1/cinder");
    world.write("/root/.pgpass", "db1:5432:cinder:cinder:passpw\n");
    assert_eq!(world.password(), Some(("passpw".into(), "~/.pgpass:1".into())));
    world = world.var("PGPASSWORD", "varpw");
    assert_eq!(world.password(), Some(("varpw".into(), "PGPASSWORD".into())));

    world.write("/root/.pg_service.conf", "# c\n[other]\nhost=no\n[cinder]\nhost=db9\nport=5433\nuser=svc\npassword=svcpw\ndbname=no\n");
    world = world.url("postgresql:///cinder?service=cinder");
    assert_eq!(world.resolve().unwrap().database.target.describe(), "postgresql://svc@db9:5433/cinder");
    assert_eq!(world.password(), Some(("svcpw".into(), "~/.pg_service.conf:8 [cinder] password".into())));
    world = world.url("postgresql:///cinder?service=none");
    assert_eq!(
        world.error(),
        "--database-url: the service none does not exist in ~/.pg_service.conf, /etc/postgresql-common/pg_service.conf, /etc/sysconfig/pgsql/pg_service.conf, /etc/pg_service.conf"
    );
}

#[test]
fn mysql_options_mean_what_they_mean_to_their_driver() {
    use TlsMode::{Disable, Prefer, Require, VerifyCa, VerifyFull};
    let world = World::new();
    let ca = world.write("/ca.pem", "").display().to_string();
    for (query, mode) in [
        ("charset=utf8", Prefer),
        ("ssl_ca=@", VerifyFull),
        ("ssl_ca=@&ssl_check_hostname=false", VerifyCa),
        ("ssl_ca=@&ssl_verify_cert=true", VerifyCa),
        ("ssl_ca=@&ssl_verify_cert=true&ssl_verify_identity=true", VerifyFull),
        ("ssl_ca=@&ssl_verify_identity=true", VerifyFull),
        ("ssl_ca=@&ssl_verify_cert=false", Require),
        ("ssl_verify_cert=true", VerifyCa),
        ("ssl_cert=@&ssl_key=@", Require),
        ("ssl=true", Require),
        ("ssl=0", Disable),
        ("ssl_disabled=true", Disable),
        ("ssl_disabled=1&ssl_ca=@", Disable),
        ("ssl_disabled=false&ssl_ca=@", VerifyFull),
        ("ssl_check_hostname=true", Require),
    ] {
        let world = World::new().url(&format!("mysql+pymysql://u@h/d?{}", query.replace('@', &ca)));
        assert_eq!(world.server().tls.mode, mode, "{query}");
    }
    for (query, mode) in [
        ("ssl_ca=@", VerifyCa),
        ("ssl_mode=REQUIRED", Require),
        ("ssl_mode=verify_identity", VerifyFull),
        ("ssl_mode=DISABLED&ssl_ca=@", Disable),
        ("ssl_mode=VERIFY_CA&ssl_ca=@", VerifyCa),
    ] {
        let world = World::new().url(&format!("mysql+mysqldb://u@h/d?{}", query.replace('@', &ca)));
        assert_eq!(world.server().tls.mode, mode, "{query}");
    }
}

#[test]
fn libpq_options_mean_what_they_mean_to_libpq() {
    use TlsMode::{Disable, Prefer, Require, VerifyCa, VerifyFull};
    let world = World::new();
    let ca = world.write("/ca.pem", "").display().to_string();
    for (query, mode, file) in [
        ("application_name=x", Prefer, None),
        ("sslmode=disable", Disable, None),
        ("sslmode=allow", Prefer, None),
        ("sslmode=require", Require, None),
        ("sslmode=require&sslrootcert=@", VerifyCa, Some("ca.pem")),
        ("sslmode=verify-ca&sslrootcert=@", VerifyCa, Some("ca.pem")),
        ("sslmode=verify-full&sslrootcert=@", VerifyFull, Some("ca.pem")),
        ("sslrootcert=system", VerifyFull, None),
        ("sslmode=verify-full&sslrootcert=system", VerifyFull, None),
    ] {
        let world = World::new().url(&format!("postgresql://u@h/d?{}", query.replace('@', &ca)));
        assert_eq!(tls_of(&world), (mode, file.map(str::to_owned)), "{query}");
    }

    let world = World::new().url("postgresql://u@h/d?sslmode=verify-full");
    assert!(world.error().starts_with("--database-url: sslmode verify-full needs the authority's certificate"), "{}", world.error());
    world.write("/root/.postgresql/root.crt", "");
    assert_eq!(tls_of(&world), (VerifyFull, Some("root.crt".to_owned())));
    let world = world.url("postgresql://u@h/d?sslmode=require");
    assert_eq!(tls_of(&world), (VerifyCa, Some("root.crt".to_owned())), "a root certificate is always used");
    let world = world.url("postgresql://u@h/d").var("PGSSLMODE", "verify-full");
    assert_eq!(tls_of(&world).0, VerifyFull);
    let world = world.url("postgresql://u@h/d?sslmode=verify-ca&sslrootcert=system");
    assert!(world.error().contains("must be verify-full"), "{}", world.error());
}

#[test]
fn flags_override_tls_options() {
    let mut world = World::new().url("mysql+pymysql://u@h/d?ssl_disabled=true");
    let ca = world.write("/ca.pem", "");
    world.flags.tls_ca = Some(ca);
    assert_eq!(tls_of(&world), (TlsMode::VerifyFull, Some("ca.pem".to_owned())));
    world.flags.tls_mode = Some(TlsMode::VerifyCa);
    assert_eq!(tls_of(&world).0, TlsMode::VerifyCa);
    world.flags.tls_cert = Some(world.write("/client.pem", ""));
    let tls = world.server().tls;
    assert_eq!(tls.key, tls.cert, "one file can contain both");

    world.flags.tls_ca = None;
    assert_eq!(world.error(), "--tls-mode: verify-ca needs the authority's certificate; give --tls-ca FILE");
    world.flags.tls_mode = Some(TlsMode::VerifyFull);
    assert_eq!(tls_of(&world), (TlsMode::VerifyFull, None), "the system's authorities");
    world.flags.tls_key = Some(world.path("/nope.pem"));
    assert!(world.error().starts_with("--tls-key: cannot read the client key /nope.pem: No such file"), "{}", world.error());
}

#[test]
fn sockets_need_no_tls() {
    let world = World::new().url("mysql+pymysql://u@/d?unix_socket=/run/m.sock&ssl=true");
    assert_eq!(world.server().host, Host::Socket("/run/m.sock".into()));
    assert_eq!(world.server().tls.mode, TlsMode::Disable);
    assert!(world.warnings().contains("has no TLS"));
    assert_eq!(world.resolve().unwrap().database.target.describe(), "mysql://u@/d?unix_socket=/run/m.sock");

    for url in ["postgresql://u@/d?host=/srv/pg&port=5433", "postgresql://u@%2Fsrv%2Fpg:5433/d"] {
        let server = World::new().url(url).server();
        assert_eq!((server.host, server.port), (Host::Socket("/srv/pg".into()), 5433));
    }
    let world = World::new().url("postgresql://u@/d");
    assert_eq!(world.server().host, Host::Socket(world.path("/var/run/postgresql")));
    world.write("/tmp/.s.PGSQL.5432", "");
    assert_eq!(world.server().host, Host::Socket(world.path("/tmp")));
}

#[test]
fn an_option_that_protects_the_connection_is_never_ignored() {
    for (url, problem) in [
        ("mysql+pymysql://u@h/d?ssl_frob=1", "the option ssl_frob is unknown"),
        ("mysql+pymysql://u@h/d?ssl_capath=/x", "ssl_capath is not supported"),
        ("mysql+pymysql://u@h/d?ssl_key_password=x", "ssl_key_password is not supported"),
        ("mysql+pymysql://u@h/d?ssl_crl=/x", "the option ssl_crl is unknown"),
        ("mysql+pymysql://u@h/d?ssl_verify_cert=maybe", "ssl_verify_cert must be true or false"),
        ("mysql+mysqldb://u@h/d?ssl_mode=SOMETIMES", "ssl_mode must be DISABLED"),
        ("mysql+pymysql://u@h/d?ssl_ca=/a&ssl_ca=/b", "the option ssl_ca twice"),
        ("postgresql://u@h/d?sslmode=yesplease", "sslmode must be disable"),
        ("postgresql://u@h/d?sslcrl=/x", "the option sslcrl is not supported"),
        ("postgresql://u@h/d?channel_binding=require", "the option channel_binding is not supported"),
        ("postgresql://u@h/d?require_auth=scram-sha-256", "the option require_auth is not supported"),
        ("postgresql://u@h/d?ssl_min_protocol_version=TLSv1.3", "ssl_min_protocol_version is not supported"),
        ("postgresql://u@h/d?sslfrob=1", "the option sslfrob is unknown"),
        ("postgresql://u@h1,h2/d", "names several hosts"),
        ("postgresql://u@h1:5432,h2:5432/d", "names several hosts"),
        ("postgresql://u@/d?host=h1&host=h2", "gives the option host twice"),
        ("mysql://u@h/", "names no database"),
        ("mysql://u@h o/d", "not a host name or address"),
        ("mysql+pymysql://u@h/d?connect_timeout=0", "at least 1 second"),
        ("mysql+pymysql://u@h/d?connect_timeout=soon", "integer number of seconds"),
        ("sqlite://h/d", "must not name a host"),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("sqlite:///file:x?uri=true", "file: URIs"),
    ] {
        let error = World::new().url(url).error();
        assert!(error.contains(problem), "{url}: {error}");
    }
    let world = World::new().url("postgresql://u@h/d?channel_binding=prefer&krbsrvname=x&target_session_attrs=standby&keepalives=1");
    assert_eq!(
        world.warnings(),
        "--database-url: target_session_attrs is ignored; whether the server accepts writes is checked after connecting\n\
         --database-url: the option krbsrvname has no meaning here and is ignored"
    );
}

#[test]
fn option_files_add_to_the_url() {
    // As TripleO writes it.
    let world = World::new();
    let ca = world.write("/etc/ipa/ca.crt", "");
    let file = world.write("/etc/my.cnf.d/tripleo.cnf", &format!("[tripleo]\nbind-address=10.0.0.1\nssl=1\nssl-ca={}\n", ca.display()));
    let world = world.url(&format!("mysql+pymysql://u:p@vip/cinder?read_default_group=tripleo&read_default_file={}", file.display()));
    assert_eq!(tls_of(&world), (TlsMode::VerifyFull, Some("ca.crt".to_owned())));

    let file = world.write("/my.cnf", "[client]\nuser=filed\nhost=db7\nport=3310\nssl-mode=REQUIRED\n");
    let world = world.url(&format!("mysql://:@/cinder?read_default_file={}", file.display()));
    assert_eq!(world.resolve().unwrap().database.target.describe(), "mysql://filed@db7:3310/cinder");
    assert_eq!(world.server().tls.mode, TlsMode::Require);
    let world = world.url("mysql+pymysql://u@h/cinder?read_default_file=~/absent.cnf");
    assert_eq!(
        world.error(),
        "--database-url: cannot read the option file /root/absent.cnf in the URL: No such file or directory (os error 2)"
    );
}

#[test]
fn the_login_name_is_the_default_user() {
    assert_eq!(World::new().url("mysql+pymysql://h/d").server().user.as_deref(), Some("dba"));
    let mut world = World::new().url("postgresql://h/d");
    world.env.vars.clear();
    assert_eq!(world.server().user, None);
}

#[test]
fn time_limits_and_startup_options() {
    let server = World::new().url("postgresql://u@h/d?connect_timeout=1&options=-c%20search_path%3Dcinder").server();
    assert_eq!(server.connect_timeout, Some(Duration::from_secs(2)));
    assert_eq!(server.options.as_deref(), Some("-c search_path=cinder"));
    assert_eq!(World::new().url("postgresql://u@h/d?connect_timeout=0").server().connect_timeout, None);
    let server = World::new().url("mysql+pymysql://u@h/d?connect_timeout=5").server();
    assert_eq!(server.connect_timeout, Some(Duration::from_secs(5)));
}

#[test]
fn a_down_time_is_raised_as_in_cinder() {
    let world = World::new().url("sqlite:////x");
    world.write("/etc/cinder/cinder.conf", "[DEFAULT]\nreport_interval = 61\n");
    let resolved = world.resolve().unwrap();
    assert_eq!(resolved.service.service_down_time, 152);
    assert_eq!(resolved.warnings, ["default: service_down_time 60 is not above report_interval 61; 152 is used, as in Cinder"]);
    world.write("/etc/cinder/cinder.conf", "[DEFAULT]\nreport_interval = 0\n");
    assert!(world.resolve().unwrap().warnings[0].contains("send no heartbeats"));
    world.write("/etc/cinder/cinder.conf", "[DEFAULT]\nservice_down_time = -1\n");
    assert_eq!(world.error(), "/etc/cinder/cinder.conf:2 [DEFAULT] service_down_time: service_down_time is -1, but must be 0 or more");
}

#[test]
fn no_secret_is_printed() {
    let world = World::new().url("mysql+pymysql://cinder:hunter2@db1/cinder").var("MYSQL_PWD", "hunter2");
    world.write("/etc/cinder/cinder.conf", &conf("mysql+pymysql://cinder:hunter2@db1/cinder"));
    let resolved = world.resolve().unwrap();
    for text in [format!("{resolved:?}"), format!("{:?}", world.flags), format!("{:?}", world.env), resolved.database.target.describe()] {
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn unreadable_usual_files_are_ignored_if_a_url_is_given() {
    let mut world = World::new();
    std::fs::create_dir_all(world.path("/etc/cinder/cinder.conf")).unwrap();
    assert_eq!(
        world.error(),
        "cannot read /etc/cinder/cinder.conf: Is a directory (os error 21); run as a user who may read it, or give --database-url URL or --config-file FILE"
    );
    world = world.url("sqlite:////x");
    let warnings = world.resolve().unwrap().warnings;
    assert!(warnings[0].ends_with("Cinder's defaults are used, for example service_down_time 60"), "{warnings:?}");
    world.flags.config_files = vec![world.path("/etc/cinder/cinder.conf")];
    assert!(world.resolve().is_err(), "a file from a flag is required");
}

#[test]
fn a_password_on_the_command_line_is_warned_about() {
    for url in ["mysql://u:p@h/d", "mysql://u@h/d?passwd=p", "postgresql://u@h/d?password=p"] {
        assert!(World::new().url(url).warnings().contains("process list"), "{url}");
    }
    assert_eq!(World::new().var("CINDER_DATABASE_URL", "mysql://u:p@h/d").warnings(), "");
}

#[test]
fn a_variable_that_is_not_utf8_is_an_error() {
    use std::os::unix::ffi::OsStringExt;
    let mut world = World::new().url("mysql://u@h/d");
    world.env.vars.insert("CINDER_DATABASE_PASSWORD".to_owned(), std::ffi::OsString::from_vec(vec![0xff]));
    assert_eq!(world.error(), "CINDER_DATABASE_PASSWORD: its value is not UTF-8");
}
