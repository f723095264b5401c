//! Against the real oslo.config 10.7.0: every row of the first table was produced by running it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::fs;

use proptest::prelude::*;
use secrecy::ExposeSecret;

use super::super::{CONNECTION, StorageOptions};
use super::*;

enum Expected {
    /// The value.
    Is(&'static str),
    /// The option is not set.
    Unset,
    /// Reading the option fails.
    Refused,
    /// Reading the file fails at this line.
    Line(usize),
}
use Expected::{Is, Line, Refused, Unset};

const CASES: &[(&str, &str, &str, Expected)] = &[
    ("[DEFAULT]\na = 1\n", "DEFAULT", "a", Is("1")),
    ("[DEFAULT]\na : 1\n", "DEFAULT", "a", Is("1")),
    ("[DEFAULT]\na:b=c\n", "DEFAULT", "a", Is("b=c")),
    ("[DEFAULT]\na=b:c\n", "DEFAULT", "a", Is("b:c")),
    ("[DEFAULT]\na = x # y\n", "DEFAULT", "a", Is("x # y")),
    ("[DEFAULT]\na = x ; y\n", "DEFAULT", "a", Is("x ; y")),
    ("[DEFAULT]\n  # indented\na=1\n", "", "", Line(2)),
    ("[DEFAULT]\na=1\n  # indented\nb=2\n", "DEFAULT", "a", Is("1\n# indented")),
    ("[DEFAULT]\na=1\n  # indented\nb=2\n", "DEFAULT", "b", Is("2")),
    ("[DEFAULT]\na=1\n  two\n\tthree\nb=2\n", "DEFAULT", "a", Is("1\ntwo\nthree")),
    ("[DEFAULT]\na=1\n  two\n\tthree\nb=2\n", "DEFAULT", "b", Is("2")),
    ("[DEFAULT]\na=1\n\n  two\n", "", "", Line(4)),
    ("[DEFAULT]\na=1\n# c\n  two\n", "", "", Line(4)),
    ("[DEFAULT]\na=\n  two\n", "DEFAULT", "a", Is("\ntwo")),
    ("[DEFAULT]\na=\n", "DEFAULT", "a", Is("")),
    ("[DEFAULT]\na='q '\nb=\"x\"\nc='x\"\n", "DEFAULT", "a", Is("q ")),
    ("[DEFAULT]\na='q '\nb=\"x\"\nc='x\"\n", "DEFAULT", "b", Is("x")),
    ("[DEFAULT]\na='q '\nb=\"x\"\nc='x\"\n", "DEFAULT", "c", Is("'x\"")),
    ("[DEFAULT]\na='\nb=''\nc=''''\n", "DEFAULT", "a", Is("")),
    ("[DEFAULT]\na='\nb=''\nc=''''\n", "DEFAULT", "b", Is("")),
    ("[DEFAULT]\na='\nb=''\nc=''''\n", "DEFAULT", "c", Is("''")),
    ("[DEFAULT]\na='one\n two'\n", "DEFAULT", "a", Is("'one\ntwo'")),
    ("[DEFAULT]\na=1\na=2\n", "DEFAULT", "a", Is("2")),
    ("a=1\n[DEFAULT]\n", "", "", Line(1)),
    ("[DEFAULT\na=1\n", "", "", Line(1)),
    ("[]\na=1\n", "", "", Line(1)),
    ("[ DEFAULT ]\na=1\n", "DEFAULT", "a", Unset),
    ("[default]\na=1\n", "DEFAULT", "a", Unset),
    ("[DataBase]\nconnection=1\n", "database", "connection", Is("1")),
    ("[DataBase]\nconnection=1\n[database]\nconnection=2\n", "database", "connection", Is("2")),
    ("[database]\nconnection=2\n[DataBase]\nconnection=1\n", "database", "connection", Is("1")),
    ("[DEFAULT] # x\na=1\n", "", "", Line(1)),
    ("[DEFAULT]\nA=1\n", "DEFAULT", "a", Unset),
    ("[DEFAULT]\n= 1\n", "", "", Line(2)),
    ("[DEFAULT]\nnothing\n", "", "", Line(2)),
    ("[DEFAULT]\r\na = 1\r\n  2\r\n", "DEFAULT", "a", Is("1\n2")),
    ("[DEFAULT]\ra = 1\r", "DEFAULT", "a", Is("1")),
    ("\u{feff}[DEFAULT]\na = 1\n", "", "", Line(1)),
    ("[DEFAULT]\na = \u{a0}x\u{2003}\n", "DEFAULT", "a", Is("x")),
    ("[DEFAULT]\na = x\u{c}y\u{1c}\n", "DEFAULT", "a", Is("x\u{c}y")),
    ("[DEFAULT]\na = x\u{85}y\u{2028}z\n", "DEFAULT", "a", Is("x\u{85}y\u{2028}z")),
    ("[DEFAULT]\n\u{a0}a = x\n", "DEFAULT", "a", Is("x")),
    ("[DEFAULT]\na=$b\nb=2\n", "DEFAULT", "a", Is("2")),
    ("[DEFAULT]\na=${b}x\nb=2\n", "DEFAULT", "a", Is("2x")),
    ("[DEFAULT]\na=$bx\nb=2\n", "DEFAULT", "a", Refused),
    ("[DEFAULT]\na=p$nope@h\n", "DEFAULT", "a", Refused),
    ("[DEFAULT]\na=p${nope}@h\n", "DEFAULT", "a", Refused),
    ("[DEFAULT]\na=$$b\nb=2\n", "DEFAULT", "a", Is("$b")),
    ("[DEFAULT]\na=\\$b\nb=2\n", "DEFAULT", "a", Is("$b")),
    ("[DEFAULT]\na=\\\\$b\nb=2\n", "DEFAULT", "a", Is("\\$b")),
    ("[DEFAULT]\na=$\n", "DEFAULT", "a", Is("$")),
    ("[DEFAULT]\na=x$1$ ${ ${} ${b ${1}\nb=2\n", "DEFAULT", "a", Is("x$1$ ${ ${} ${b ${1}")),
    ("[DEFAULT]\na=$state_path/x\n", "DEFAULT", "a", Is("/var/lib/cinder/x")),
    ("[DEFAULT]\na=$STATE_PATH/x\n", "DEFAULT", "a", Refused),
    ("[DEFAULT]\na=$state_path.\n", "DEFAULT", "a", Refused),
    ("[DEFAULT]\na=$b.c\nb=2\n", "DEFAULT", "a", Refused),
    ("[DEFAULT]\na=${b}.c\nb=2\n", "DEFAULT", "a", Is("2.c")),
    ("[DEFAULT]\na=$database.own\n[database]\nown=o\n", "DEFAULT", "a", Is("o")),
    ("[DEFAULT]\na=${database.own}!\n[database]\nown=o\n", "DEFAULT", "a", Is("o!")),
    ("[DEFAULT]\na=$Database.own\n[database]\nown=o\n", "DEFAULT", "a", Refused),
    ("[DEFAULT]\na=$database\n[database]\nown=o\n", "DEFAULT", "a", Refused),
    ("[DEFAULT]\na=$DEFAULT.b\nb=2\n", "DEFAULT", "a", Refused),
    ("[DEFAULT]\na=d\n[database]\nconnection=$a\na=x\n", "database", "connection", Is("x")),
    ("[DEFAULT]\nb=d\n[database]\nconnection=$b\n", "database", "connection", Is("d")),
    ("[DEFAULT]\na=$b\nb=$c\nc=$$x\n", "DEFAULT", "a", Is("$x")),
    ("[DEFAULT]\na=$b\nb=$a\n", "DEFAULT", "a", Refused),
    ("[DEFAULT]\na=$database.own\nb=dd\n[database]\nown=$b\n", "DEFAULT", "a", Is("dd")),
    ("[DEFAULT]\nsql_connection=old\n", "database", "connection", Is("old")),
    ("[DEFAULT]\nsql_connection=old\n[database]\nconnection=new\n", "database", "connection", Is("new")),
    ("[database]\nsql_connection=old\n", "database", "connection", Is("old")),
    ("[sql]\nconnection=old\n", "database", "connection", Is("old")),
    ("[DEFAULT]\ndash-name=1\n", "DEFAULT", "dash_name", Unset),
    ("[DEFAULT]\ndash_name=1\n", "DEFAULT", "dash_name", Is("1")),
    ("[DEFAULT]\na = x\n \n b\n", "", "", Line(4)),
    ("[DEFAULT]\na = x\n[database]\n cont\n", "", "", Line(4)),
    ("[DEFAULT]\na = x\n [database]\nb=1\n", "DEFAULT", "a", Is("x\n[database]")),
    ("[DEFAULT]\na = x\n [database]\nb=1\n", "DEFAULT", "b", Is("1")),
    ("[DEFAULT]\na = x\\\nb=1\n", "DEFAULT", "a", Is("x\\")),
    ("[DEFAULT]\na = x\\\nb=1\n", "DEFAULT", "b", Is("1")),
    ("[DEFAULT]\na  b = x\n", "DEFAULT", "a", Unset),
    ("[DEFAULT]\n#a = x\n;b=1\nc=#x\n", "DEFAULT", "a", Unset),
    ("[DEFAULT]\n#a = x\n;b=1\nc=#x\n", "DEFAULT", "b", Unset),
    ("[DEFAULT]\n#a = x\n;b=1\nc=#x\n", "DEFAULT", "c", Is("#x")),
    ("[DEFAULT]\na==x\nb=:x\n", "DEFAULT", "a", Is("=x")),
    ("[DEFAULT]\na==x\nb=:x\n", "DEFAULT", "b", Is(":x")),
    ("[DEFAULT]\na=x", "DEFAULT", "a", Is("x")),
    ("", "DEFAULT", "a", Unset),
    ("[DEFAULT]\na=${b\\}\nb=1", "DEFAULT", "a", Is("${b\\}")),
    ("[DEFAULT]\na=p%s#w@rd\n", "DEFAULT", "a", Is("p%s#w@rd")),
    ("[DEFAULT]\na=$\u{fc}nset\n", "DEFAULT", "a", Is("$\u{fc}nset")),
    ("[DEFAULT]\na=$b\u{fc}\nb=1\n", "DEFAULT", "a", Is("1\u{fc}")),
    ("[DEFAULT]\na=$$$b\nb=1\n", "DEFAULT", "a", Is("$1")),
    ("[DEFAULT]]\na=1\n", "DEFAULT", "a", Unset),
    ("[DEFAULT]\na=$backup_share/x\n", "DEFAULT", "a", Is("/x")),
    ("[DEFAULT]\na=$state_path/x\nstate_path=$b\nb=/srv\n", "DEFAULT", "a", Is("/srv/x")),
    (
        "[database]\nconnection = mysql+pymysql://cinder:p#a;b%40@db/cinder?charset=utf8 # not a comment\n",
        "database",
        "connection",
        Is("mysql+pymysql://cinder:p#a;b%40@db/cinder?charset=utf8 # not a comment"),
    ),
    (
        "[database]\nconnection = mysql+pymysql://cinder:pa$$word@db/cinder\n",
        "database",
        "connection",
        Is("mysql+pymysql://cinder:pa$word@db/cinder"),
    ),
    ("[database]\nconnection = mysql+pymysql://cinder:pa$word@db/cinder\n", "database", "connection", Refused),
    ("[database]\nconnection = 'mysql://u:p@h/d'\n", "database", "connection", Is("mysql://u:p@h/d")),
    (
        "[database]\nconnection = sqlite:///$state_path/cinder.sqlite\n",
        "database",
        "connection",
        Is("sqlite:////var/lib/cinder/cinder.sqlite"),
    ),
    ("[database]\nconnection: mysql://u:p@h/d?a=b\n", "database", "connection", Is("mysql://u:p@h/d?a=b")),
    ("[database]\nconnection\n", "", "", Line(2)),
    ("[DEFAULT]\na=\"\"\"x\"\"\"\n", "DEFAULT", "a", Is("\"\"x\"\"")),
    ("[DEFAULT]\na=\"x' \"\n", "DEFAULT", "a", Is("x' ")),
    ("[DEFAULT]\na='x' 'y'\n", "DEFAULT", "a", Is("x' 'y")),
    ("[DEFAULT]\na=1\n\t\n b\n", "", "", Line(4)),
    ("[DEFAULT]\na=1\n;c\nb=2\n", "DEFAULT", "a", Is("1")),
    ("[DEFAULT]\na=1\n;c\nb=2\n", "DEFAULT", "b", Is("2")),
    ("[DEFAULT]\na=1\n[other]\na=2\n[DEFAULT]\na=3\n", "DEFAULT", "a", Is("3")),
    ("[DEFAULT]\nb=0\na=1 $b\n 2 $b\n", "DEFAULT", "a", Is("1 0\n2 0")),
    ("[DEFAULT]\na=${b}${c}$b$c\nb=1\nc=2\n", "DEFAULT", "a", Is("1212")),
    ("[DEFAULT]\na=\\$\\{b}\nb=1\n", "DEFAULT", "a", Is("$\\{b}")),
    ("[DEFAULT]\na=$b\nb='$c'\nc=1\n", "DEFAULT", "a", Is("1")),
    ("[DEFAULT]\na=x\n\n\n[]\n", "", "", Line(5)),
    ("[DEFAULT]\n[DEFAULT\n", "", "", Line(2)),
];

fn conf(text: &str) -> Result<CinderConf, ConfigError> {
    let mut conf = CinderConf::default();
    conf.add(Path::new("/etc/cinder/cinder.conf"), text)?;
    Ok(conf)
}

fn read(conf: &CinderConf, group: &str, name: &str) -> Result<Option<String>, ConfigError> {
    if (group, name) == ("database", "connection") {
        let value = conf.get_secret(CONNECTION)?;
        return Ok(value.map(|setting| setting.value.expose_secret().to_owned()));
    }
    Ok(conf.get(group, name)?.map(|setting| setting.value))
}

#[test]
fn reads_what_oslo_config_reads() {
    for (text, group, name, expected) in CASES {
        match (conf(text), expected) {
            (Ok(conf), Is(value)) => assert_eq!(read(&conf, group, name).unwrap().as_deref(), Some(*value), "{text:?}"),
            (Ok(conf), Unset) => assert_eq!(read(&conf, group, name), Ok(None), "{text:?}"),
            (Ok(conf), Refused) => assert!(read(&conf, group, name).is_err(), "{text:?}"),
            (Err(ConfigError::Syntax { line, .. }), Line(wanted)) => assert_eq!(line, *wanted, "{text:?}"),
            (result, _) => panic!("{text:?} gave {result:?}"),
        }
    }
}

fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn files_and_directories_override_each_other_as_in_oslo_config() {
    let dir = tempfile::tempdir().unwrap();
    let first = write(dir.path(), "1", "[DEFAULT]\na=1\nb=1\nc=$b\n");
    write(dir.path(), "d/b.conf", "[DEFAULT]\na=b\nm=b\n");
    write(dir.path(), "d/a.conf", "[DEFAULT]\na=a\nb=a\nm=a\n");
    write(dir.path(), "d/.h.conf", "[DEFAULT]\na=h\n");
    write(dir.path(), "d/c.conf~", "[DEFAULT]\na=c\n");
    write(dir.path(), "d/B.conf", "[DEFAULT]\nb=B\nm=B\nm=C\n");
    let conf = CinderConf::load(&[first], &[dir.path().join("d")]).unwrap();
    assert_eq!(read(&conf, "DEFAULT", "a").unwrap().as_deref(), Some("b"));
    assert_eq!(read(&conf, "DEFAULT", "b").unwrap().as_deref(), Some("a"));
    assert_eq!(read(&conf, "DEFAULT", "c").unwrap().as_deref(), Some("a"), "names are searched in all files");
    assert_eq!(read(&conf, "DEFAULT", "m").unwrap().as_deref(), Some("b"));
}

#[test]
fn an_old_name_in_a_later_file_counts() {
    let mut conf = conf("[database]\nconnection=new\n").unwrap();
    conf.add(Path::new("/etc/cinder/cinder-backup.conf"), "[DEFAULT]\nsql_connection=old\n").unwrap();
    let setting = conf.get_secret(CONNECTION).unwrap().unwrap();
    assert_eq!(setting.value.expose_secret(), "old");
    assert_eq!(setting.origin.to_string(), "/etc/cinder/cinder-backup.conf:2 [DEFAULT] sql_connection");
}

#[test]
fn every_value_has_its_line() {
    let conf = conf("# comment\n\n[Database]\nmax_retries = -1\nconnection =\n  sqlite:////x\n").unwrap();
    let setting = conf.get_secret(CONNECTION).unwrap().unwrap();
    assert_eq!(setting.origin.to_string(), "/etc/cinder/cinder.conf:5 [Database] connection");
}

#[test]
fn defaults_are_used_if_no_file_sets_an_option() {
    let conf = conf("[DEFAULT]\nstate_path=/srv/cinder\n").unwrap();
    let path = conf.get_or_default("DEFAULT", "backup_posix_path").unwrap().unwrap();
    assert_eq!((path.value.as_str(), path.origin), ("/srv/cinder/backup", Origin::Default));
    assert_eq!(conf.get_or_default("DEFAULT", "backup_share").unwrap(), None);
    assert_eq!(conf.get("DEFAULT", "backup_posix_path").unwrap(), None);
}

#[test]
fn integers_and_booleans_are_read_as_in_oslo_config() {
    let conf = conf("[DEFAULT]\na = 1_000\nb = -5\nc =\nd = 5s\ne = __1\nt = Yes\nf = oFF\nu = 2\n").unwrap();
    let int = |name| conf.get_int("DEFAULT", name, 60).map(|setting| setting.value);
    assert_eq!(int("a"), Ok(1000));
    assert_eq!(int("b"), Ok(-5));
    assert_eq!(int("c"), Ok(60));
    assert_eq!(int("missing"), Ok(60));
    assert_eq!(int("d").unwrap_err().to_string(), "/etc/cinder/cinder.conf:5 [DEFAULT] d: \"5s\" is not an integer");
    assert!(int("e").is_err());
    let options = StorageOptions::new(conf, &[]).unwrap();
    let bool = |name| options.boolean(name, true).map(|setting| setting.value);
    assert_eq!(bool("t"), Ok(true));
    assert_eq!(bool("f"), Ok(false));
    assert_eq!(bool("missing"), Ok(true));
    assert_eq!(bool("u").unwrap_err().to_string(), "/etc/cinder/cinder.conf:9 [DEFAULT] u: \"2\" is not a boolean: use true or false");
}

#[test]
fn an_error_about_a_secret_shows_nothing_of_it() {
    let conf = conf("[database]\nconnection = mysql://u:pa$word@h/d\n").unwrap();
    let error = conf.get_secret(CONNECTION).unwrap_err().to_string();
    assert_eq!(
        error,
        "/etc/cinder/cinder.conf:2 [database] connection: its value refers to a $name, which no file sets and which has no known default; set that option, or write $$ for a dollar sign"
    );
    let error = self::conf("[database]\nhunter2\n").unwrap_err().to_string();
    assert!(!error.contains("hunter2"), "{error}");
    assert!(!format!("{conf:?}").contains("word"));
}

#[test]
fn endless_substitution_is_an_error() {
    let conf = conf("[DEFAULT]\na=$b\nb=x$c\nc=$a\n").unwrap();
    let error = conf.get("DEFAULT", "a").unwrap_err().to_string();
    assert_eq!(error, "/etc/cinder/cinder.conf:4 [DEFAULT] c: its value refers to itself through a");

    let mut text = "[DEFAULT]\na0=0123456789\n".to_owned();
    for level in 1..40 {
        text += &format!("a{level}=$a{0}$a{0}$a{0}$a{0}\n", level - 1);
    }
    let error = self::conf(&text).unwrap().get("DEFAULT", "a39").unwrap_err().to_string();
    assert!(error.contains("too large after substitution"), "{error}");
}

#[test]
fn errors_name_the_unusable_file() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("cinder.conf");
    let error = CinderConf::load(std::slice::from_ref(&missing), &[]).unwrap_err().to_string();
    assert_eq!(error, format!("cannot read {}: No such file or directory (os error 2)", missing.display()));
    assert!(CinderConf::load(&[], std::slice::from_ref(&missing)).is_err());
    fs::write(&missing, b"[DEFAULT]\n# ok\na = \xff\n").unwrap();
    let error = CinderConf::load(std::slice::from_ref(&missing), &[]).unwrap_err().to_string();
    assert_eq!(error, format!("{}:3: is not UTF-8; convert the file", missing.display()));
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "([\\[\\]=:$a-c{}. \t\r\n#;'\"\\\\]|\\PC){0,80}") {
        if let Ok(conf) = conf(&format!("[DEFAULT]\n{text}")) {
            for name in ["a", "b", "ab"] {
                let _ = conf.get("DEFAULT", name);
                let _ = conf.get_or_default("DEFAULT", name);
            }
        }
        let _ = conf(&text);
    }

    #[test]
    fn a_plain_value_comes_back(value in "[!-~&&[^$\\\\'\"]]([ -~&&[^$\\\\'\"]]{0,30}[!-~&&[^$\\\\'\"]])?") {
        let conf = conf(&format!("[g]\nkey = {value}\n")).unwrap();
        prop_assert_eq!(conf.get("G", "key").unwrap().unwrap().value, value);
    }
}
