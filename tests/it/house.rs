//! Checks the project's own rules against its files: which module may use which, where SQL is, what may panic.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use cinder_backup_repair::db::{Engine, mysql, postgres, sqlite, statements};
use cinder_backup_repair::domain::{Backup, ColumnSet, Image, Snapshot, Volume};

use crate::servers::root;

/// Which top-level module may use which others. Only `main.rs` and `lib.rs` may use all.
pub(crate) const SEES: &[(&str, &[&str])] = &[
    ("backoff", &[]),
    ("domain", &[]),
    ("format", &["domain"]),
    ("parallel", &[]),
    ("plan", &["domain", "spool"]),
    ("ledger", &["domain"]),
    ("spool", &[]),
    ("audit", &["domain", "input"]),
    ("config", &["domain", "input"]),
    ("db", &["domain", "input", "config"]),
    ("storage", &["backoff", "domain", "input", "config", "format", "parallel"]),
    ("scan", &["domain", "db", "spool"]),
    ("verify", &["domain", "format", "parallel", "spool", "storage"]),
    ("apply", &["backoff", "parallel", "plan", "audit", "scan", "spool", "db", "domain"]),
    ("report", &["domain", "plan", "db", "spool"]),
    (
        "workflow",
        &[
            "apply", "audit", "backoff", "config", "db", "domain", "format", "input", "ledger", "parallel", "plan", "report", "scan",
            "spool", "storage", "verify",
        ],
    ),
    (
        "cli",
        &[
            "workflow", "apply", "audit", "config", "db", "domain", "format", "input", "ledger", "parallel", "plan", "report", "scan",
            "spool", "storage", "verify",
        ],
    ),
];

/// Files outside `sql/` that contain SQL, and why.
const SQL_IN_SOURCE: &[(&str, &str)] =
    &[("src/report/script.rs", "the frame around the statements of a script for a server's own client: its guards and messages")];

/// Calls outside tests that may end the process, and why. The text is a part of the line.
const MAY_PANIC: &[(&str, &str, &str)] = &[(
    "src/cli/signal.rs",
    "process::exit(",
    "a signal while a question stands at the terminal: the reading of the answer never comes back, and nothing has been changed",
)];

/// Dependencies that no line of `src` names, and why.
const UNNAMED: &[(&str, &str)] = &[];

/// A Rust source file.
struct Source {
    /// Its path from the root of the checkout.
    path: String,
    /// Its code without comments and tests; literals are kept.
    code: String,
    /// The string literals of `code`.
    literals: Vec<String>,
}

/// Every file below a directory, by its path from the root.
fn files(folder: &str) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(relative(&path), path);
            }
        }
    }
    found
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn rust(folder: &str) -> BTreeMap<String, PathBuf> {
    files(folder).into_iter().filter(|(path, _)| path.ends_with(".rs")).collect()
}

/// A module declared without a body.
#[derive(Debug, PartialEq)]
struct Declared {
    name: String,
    /// Its path, if it has a `path` attribute.
    path: Option<String>,
    for_tests: bool,
}

fn declared(text: &str) -> Vec<Declared> {
    let mut list = Vec::new();
    let (mut path, mut for_tests) = (None, false);
    for line in text.lines().map(str::trim) {
        let word = line.trim_start_matches("pub ").trim_start_matches("pub(crate) ").trim_start_matches("pub(super) ");
        if line.starts_with("#[cfg(test)]") {
            for_tests = true;
        } else if let Some(name) = word.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')) {
            list.push(Declared { name: name.to_owned(), path: path.take(), for_tests });
            for_tests = false;
        } else if let Some(given) = line.strip_prefix("#[path = \"").and_then(|rest| rest.strip_suffix("\"]")) {
            path = Some(given.to_owned());
        } else if !line.starts_with('#') && !line.starts_with("//") {
            for_tests = false;
        }
    }
    list
}

/// The directory of the modules that a file declares.
fn folder_of_children(path: &str) -> String {
    let (folder, name) = path.rsplit_once('/').unwrap();
    match name {
        "mod.rs" | "lib.rs" | "main.rs" => folder.to_owned(),
        name => format!("{folder}/{}", name.trim_end_matches(".rs")),
    }
}

/// Every file that is reached from a root through `mod` lines, and whether only tests use it.
fn reachable(start: &str) -> BTreeMap<String, bool> {
    let mut found = BTreeMap::from([(start.to_owned(), false)]);
    let mut open = vec![start.to_owned()];
    while let Some(path) = open.pop() {
        let for_tests = found[&path];
        for module in declared(&read(&root().join(&path))) {
            let (folder, name) = (folder_of_children(&path), &module.name);
            let mut child = vec![format!("{folder}/{name}.rs"), format!("{folder}/{name}/mod.rs")];
            child.extend(module.path.map(|given| format!("{}/{given}", path.rsplit_once('/').unwrap().0)));
            let child = child.into_iter().rev().find(|child| root().join(child).exists()).unwrap_or_else(|| panic!("{path}: mod {name}"));
            found.insert(child.clone(), for_tests || module.for_tests);
            open.push(child);
        }
    }
    found
}

/// The source files of the program, without those for tests only.
fn sources() -> Vec<Source> {
    reachable("src/lib.rs")
        .into_iter()
        .chain([("src/main.rs".to_owned(), false)])
        .filter(|(_, for_tests)| !for_tests)
        .map(|(path, _)| {
            let text = read(&root().join(&path));
            let (code, literals) = code(&before_tests(&path, &text));
            Source { path, code, literals }
        })
        .collect()
}

/// A file up to its tests, which are its last module.
fn before_tests(path: &str, text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let opens = |line: &str| line.starts_with("mod ") && line.ends_with('{');
    let Some(module) = lines.iter().position(|line| opens(line)) else { return text.to_owned() };
    let is_last = lines.iter().skip(module).position(|line| *line == "}").is_some_and(|end| module + end + 1 == lines.len());
    let attributes = lines.iter().take(module).rev().take_while(|line| line.starts_with("#[")).count();
    let for_tests = lines[module - attributes..module].contains(&"#[cfg(test)]");
    assert!(for_tests && is_last, "{path}: the only module with a body is that of the tests, at the end");
    lines[..module - attributes].join("\n")
}

/// Rust code without comments, and its string literals.
fn code(text: &str) -> (String, Vec<String>) {
    let chars: Vec<char> = text.chars().collect();
    let at = |index: usize| chars.get(index).copied().unwrap_or('\n');
    let (mut code, mut literals) = (String::new(), Vec::new());
    let mut index = 0;
    while index < chars.len() {
        let rest = (at(index), at(index + 1));
        if rest == ('/', '/') {
            while index < chars.len() && at(index) != '\n' {
                index += 1;
            }
        } else if rest == ('/', '*') {
            while index < chars.len() && (at(index), at(index + 1)) != ('*', '/') {
                index += 1;
            }
            index += 2;
        } else if at(index) == 'r'
            && (rest.1 == '"' || (rest.1 == '#' && matches!(at(index + 2), '"' | '#')))
            && !is_word(at(index.wrapping_sub(1)))
        {
            let hashes = (index + 1..).take_while(|place| at(*place) == '#').count();
            let begin = index + 2 + hashes;
            let ends = |place: &usize| at(*place) == '"' && (1..=hashes).all(|offset| at(place + offset) == '#');
            let end = (begin..chars.len()).find(ends).unwrap();
            literals.push(chars[begin..end].iter().collect());
            index = end + 1 + hashes;
            code.push_str("\"\"");
        } else if at(index) == '"' {
            let mut literal = String::new();
            index += 1;
            while index < chars.len() && at(index) != '"' {
                if at(index) == '\\' {
                    index += 1;
                    // A continued line: neither the line feed nor the indentation is in the text.
                    if at(index) == '\n' {
                        while at(index + 1).is_whitespace() {
                            index += 1;
                        }
                        index += 1;
                        continue;
                    }
                }
                literal.push(at(index));
                index += 1;
            }
            index += 1;
            code.push_str(&format!("{literal:?}"));
            literals.push(literal);
        } else if at(index) == '\'' && (at(index + 2) == '\'' || at(index + 1) == '\\') {
            // A character; anything else after a quote is a lifetime.
            let begin = index;
            index += if at(index + 1) == '\\' { 3 } else { 2 };
            while at(index) != '\'' {
                index += 1;
            }
            index += 1;
            code.extend(&chars[begin..index]);
        } else {
            code.push(at(index));
            index += 1;
        }
    }
    (code, literals)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !is_word(c)).filter(|word| !word.is_empty())
}

/// The modules after `crate::`, also in groups, each with the rest of its path.
fn crate_paths(code: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (place, _) in code.match_indices("crate::") {
        if code[..place].ends_with(|c: char| is_word(c) || c == '$') {
            continue;
        }
        let rest = &code[place + "crate::".len()..];
        assert!(!rest.starts_with('{'), "one `use` a module: {}", rest.lines().next().unwrap());
        let name: String = rest.chars().take_while(|c| is_word(*c)).collect();
        let after = rest[name.len()..].lines().next().unwrap_or_default().to_owned();
        found.push((name, after));
    }
    found
}

#[test]
fn the_scanner_of_rust_files_recognizes_comments_and_literals() {
    let text = "a /* \"x\" */ \"b // c\" 'd' '\"' '\\'' r#\"e \"f\"\"# &'g str // h\n\"i\\\n   j\\\"k\"";
    let (code, literals) = code(text);
    assert_eq!(literals, ["b // c", "e \"f\"", "ij\"k"]);
    assert!(code.contains("'\"'") && code.contains("&'g str") && !code.contains('h'), "{code}");
    let module = |name: &str, path: Option<&str>, for_tests| Declared { name: name.into(), path: path.map(Into::into), for_tests };
    assert_eq!(
        declared("#[cfg(test)]\n#[path = \"x.rs\"]\nmod a;\npub mod b;\nmod c {}"),
        [module("a", Some("x.rs"), true), module("b", None, false)]
    );
}

#[test]
fn modules_use_only_the_modules_below_them() {
    let mut faults = Vec::new();
    for source in sources() {
        let Some(module) = source.path.strip_prefix("src/").and_then(|path| path.split_once('/')).map(|(module, _)| module) else {
            continue;
        };
        let Some((_, seen)) = SEES.iter().find(|(name, _)| *name == module) else {
            faults.push(format!("{}: module {module} is not in the table", source.path));
            continue;
        };
        for (name, after) in crate_paths(&source.code) {
            if name != module && !seen.contains(&name.as_str()) {
                faults.push(format!("{}: {module} may not see {name}{after}", source.path));
            }
            // Reports use the names of the engines, not their sessions.
            if (module, name.as_str()) == ("report", "db") && !after.starts_with("::Engine") {
                faults.push(format!("{}: of db a report may see Engine alone, not {name}{after}", source.path));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_file_is_compiled() {
    let program: BTreeSet<String> = reachable("src/lib.rs").into_keys().chain(["src/main.rs".to_owned()]).collect();
    let tests: BTreeSet<String> = reachable("tests/it/main.rs").into_keys().collect();
    // The root of the binary has no directory of its own.
    for (folder, compiled) in [("src", program), ("tests", tests)] {
        let there: BTreeSet<String> = rust(folder).into_keys().collect();
        assert_eq!(there.difference(&compiled).collect::<Vec<_>>(), [] as [&String; 0], "no `mod` line leads to these");
    }
}

/// The statement of an SQL file without comments.
fn statement(text: &str) -> String {
    text.lines().filter(|line| !line.trim_start().starts_with("--")).collect::<Vec<_>>().join("\n")
}

fn sql(folder: &str) -> Vec<(String, String, String)> {
    files(&format!("sql/{folder}"))
        .into_iter()
        .filter(|(path, _)| path.ends_with(".sql"))
        .map(|(path, file)| {
            let stem = path.rsplit('/').next().unwrap().trim_end_matches(".sql").to_owned();
            (path, stem, read(&file))
        })
        .collect()
}

const ENGINES: [&str; 3] = ["sqlite", "mysql", "postgres"];

#[test]
fn every_sql_file_has_a_comment() {
    for (path, stem, text) in sql("") {
        let first = text.lines().next().unwrap_or_default();
        let is_grant = path.starts_with("sql/grants/");
        // Grants are for people; the command that needs them names them.
        let heading = if is_grant { "-- The least privileges for ".to_owned() } else { format!("-- {stem}: ") };
        assert!(first.starts_with(&heading) && first.len() > heading.len(), "{path} begins with {first:?}");
    }
}

#[test]
fn every_statement_is_used_and_exists_for_three_engines() {
    let shared: BTreeSet<&str> = statements::ALL.iter().map(|statement| statement.name).collect();
    assert_eq!(shared.len(), statements::ALL.len(), "a name is used twice");
    for engine in ENGINES {
        let there: BTreeSet<String> = sql(engine).into_iter().map(|(_, stem, _)| stem).collect();
        for name in &shared {
            assert!(there.contains(*name), "sql/{engine}/{name}.sql is missing");
        }
        for name in there.iter().filter(|name| !shared.contains(name.as_str())) {
            assert!(name.starts_with("session_"), "sql/{engine}/{name}.sql: only what belongs to the session may be one engine's own");
            let of_engine = match engine {
                "mysql" => mysql::SESSION_STATEMENTS,
                "postgres" => postgres::SESSION_STATEMENTS,
                _ => sqlite::SESSION_STATEMENTS,
            };
            let used = of_engine.iter().any(|statement| statement.name == name);
            assert!(used, "nothing uses sql/{engine}/{name}.sql");
        }
    }
    let all = sources();
    for (path, ..) in sql("demo") {
        let used = |source: &Source| source.path.contains("/demo/") && source.literals.iter().any(|literal| literal.ends_with(&path));
        assert!(all.iter().any(used), "nothing uses {path}");
    }
    for (path, ..) in sql("ledger") {
        let used =
            |source: &Source| source.path.starts_with("src/ledger/") && source.literals.iter().any(|literal| literal.ends_with(&path));
        assert!(all.iter().any(used), "nothing uses {path}");
    }
    let known: BTreeSet<&str> = ENGINES.into_iter().chain(["demo", "grants", "ledger"]).collect();
    for (path, ..) in sql("") {
        assert!(known.contains(path.split('/').nth(1).unwrap()), "{path}: unknown folder");
    }
}

#[test]
fn every_sql_file_is_one_select_or_update() {
    for engine in ENGINES {
        for (path, stem, text) in sql(engine) {
            let statement = statement(&text);
            // DELETE is the name of a journal mode of SQLite.
            let is_pragma = words(&statement).next() == Some("PRAGMA");
            for word in words(&statement).filter(|_| !is_pragma) {
                let forbidden = ["DELETE", "INSERT", "DROP", "TRUNCATE", "ALTER", "CREATE", "REPLACE", "MERGE", "GRANT", "LOAD", "COPY"];
                assert!(!forbidden.contains(&word.to_uppercase().as_str()), "{path}: {word}");
            }
            assert!(statement.trim_end().ends_with(';'), "{path} does not end with a semicolon");
            assert_eq!(statement.matches(';').count(), 1, "{path} holds more than one statement");
            let updates = words(&statement).next() == Some("UPDATE");
            assert_eq!(updates, stem.contains("_update"), "{path}: an UPDATE is called so, and nothing else is");
            assert_eq!(statement.contains("FOR UPDATE"), engine != "sqlite" && stem.contains("_lock"), "{path}");
        }
    }
}

#[test]
fn every_update_names_the_row_and_guards_its_columns() {
    let images = |columns: ColumnSet| -> Vec<Image> {
        vec![Backup::default().image(columns), Volume::default().image(columns), Snapshot::default().image()]
    };
    // These also change `deleted`, and are guarded by its old value.
    let of_deletions = ["backup_metadata_update", "backup_update_deleted_mitaka", "quota_usage_update", "reservation_update"];
    for name in of_deletions {
        let found = statements::ALL.iter().find(|statement| statement.name == name).unwrap_or_else(|| panic!("no {name}"));
        for engine in [Engine::Sqlite, Engine::Mysql, Engine::Postgresql] {
            let flat = words_and_signs(&statement(found.text(engine)));
            let (_, guards) = flat.split_once(" WHERE ").unwrap_or_else(|| panic!("{name} has no WHERE"));
            let guards: Vec<&str> = guards.split(" AND ").collect();
            assert!(guards[0].starts_with("id = ") && guards[1].starts_with("deleted = "), "{name}, {engine:?}: {guards:?}");
            assert!(!guards.iter().any(|guard| words(guard).any(|word| word == "OR")), "{name}, {engine:?}: OR");
        }
    }
    let mut checked = BTreeSet::new();
    for columns in [ColumnSet::Juno, ColumnSet::Liberty, ColumnSet::Mitaka] {
        for image in images(columns) {
            let table = image.table.to_string();
            let one = table.trim_end_matches('s');
            // The statement with the newest columns of the release.
            let release = match (one, columns) {
                ("backup", ColumnSet::Juno) | ("volume", ColumnSet::Juno) => "_juno",
                ("backup", ColumnSet::Liberty) | ("volume", _) => "_liberty",
                ("backup", ColumnSet::Mitaka) => "_mitaka",
                _ => "",
            };
            let names = [Some(format!("{one}_update{release}")), (one == "backup").then(|| format!("backup_update_host{release}"))];
            for name in names.into_iter().flatten() {
                checked.insert(name.clone());
                let statement_of_all =
                    statements::ALL.iter().find(|statement| statement.name == name).unwrap_or_else(|| panic!("no {name}"));
                for engine in [Engine::Sqlite, Engine::Mysql, Engine::Postgresql] {
                    let text = statement(statement_of_all.text(engine));
                    let flat = words_and_signs(&text);
                    let (sets, guards) = flat.split_once(" WHERE ").unwrap_or_else(|| panic!("{name} has no WHERE"));
                    let mut guards: Vec<&str> = guards.trim_end_matches(" ;").trim_end_matches(';').split(" AND ").collect();
                    assert!(guards.remove(0).starts_with("id = "), "{name}, {engine:?}: WHERE id = comes first");
                    assert!(!guards.iter().any(|guard| words(guard).any(|word| word == "OR")), "{name}, {engine:?}: OR");
                    for column in image.columns.keys() {
                        let same = match engine {
                            Engine::Sqlite => format!("{column} IS "),
                            Engine::Mysql | Engine::Mariadb => format!("{column} <=> "),
                            Engine::Postgresql => format!("{column} IS NOT DISTINCT FROM "),
                        };
                        let live = ["deleted = 0", "deleted = FALSE", "deleted = false", "NOT deleted"];
                        // MariaDB and MySQL store invalid dates, but no session in strict mode accepts one as a value.
                        let is_mysql = matches!(engine, Engine::Mysql | Engine::Mariadb);
                        let same = if is_mysql && column == "updated_at" { "CAST(updated_at AS CHAR) <=> ".to_owned() } else { same };
                        let is_guard = |guard: &&&str| if column == "deleted" { live.contains(*guard) } else { guard.starts_with(&same) };
                        assert_eq!(guards.iter().filter(is_guard).count(), 1, "{name}, {engine:?}: {column} in {guards:?}");
                    }
                    assert_eq!(guards.len(), image.columns.len(), "{name}, {engine:?}: a guard that no image has: {guards:?}");
                    for never in ["deleted =", "deleted_at =", " id =", "host =", "container =", "project_id ="] {
                        let is_moved = never == "host =" && name.contains("_host_");
                        assert!(!sets.contains(never) || is_moved, "{name}, {engine:?} sets {never}");
                    }
                }
            }
        }
    }
    let there: BTreeSet<String> = statements::ALL.iter().map(|all| all.name.to_owned()).filter(|name| name.contains("_update")).collect();
    checked.extend(of_deletions.map(str::to_owned));
    assert_eq!(checked, there, "an UPDATE without an image");
}

/// The text with one space for each run of white space.
fn words_and_signs(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether a text is SQL or a part of it.
fn is_sql(text: &str) -> bool {
    let flat = words_and_signs(text);
    let list: Vec<&str> = words(&flat).collect();
    let follows = |first: &str, then: &[&str], within: usize| {
        list.iter().enumerate().any(|(at, word)| *word == first && list.iter().skip(at + 1).take(within).any(|word| then.contains(word)))
    };
    flat.starts_with("SELECT ")
        || follows("SELECT", &["FROM"], usize::MAX)
        || follows("UPDATE", &["SET"], 3)
        || follows("INSERT", &["INTO"], 3)
        || follows("DELETE", &["FROM"], 1)
        || follows("DROP", &["TABLE", "DATABASE", "INDEX"], 1)
        || follows("CREATE", &["TABLE", "DATABASE", "INDEX"], 2)
        || follows("ALTER", &["TABLE"], 1)
        || flat.starts_with("PRAGMA ")
        || flat.starts_with("SET SESSION ")
        || flat.starts_with("BEGIN ")
        || matches!(flat.trim_end_matches(';'), "BEGIN" | "COMMIT" | "ROLLBACK")
}

#[test]
fn sql_is_only_in_sql_files() {
    assert!(is_sql("SELECT 1") && is_sql("update: UPDATE t SET a = 1") && !is_sql("one UPDATE of a row") && !is_sql("the COMMIT was lost"));
    let mut used = BTreeSet::new();
    for source in sources() {
        for literal in source.literals.iter().filter(|literal| is_sql(literal)) {
            let allowed = SQL_IN_SOURCE.iter().find(|(path, _)| *path == source.path);
            assert!(allowed.is_some(), "{}: SQL belongs into a file of sql/: {literal:?}", source.path);
            used.insert(source.path.clone());
        }
        if source.path == "src/db/statements.rs" {
            assert!(!words(&source.code).any(|word| word == "format"), "{}: statements are not put together", source.path);
        }
    }
    for (path, reason) in SQL_IN_SOURCE {
        assert!(used.contains(*path), "{path} holds no SQL any more, so its reason ({reason}) can go");
    }
}

#[test]
fn no_code_ends_the_process_or_panics() {
    let mut used = BTreeSet::new();
    let mut faults = Vec::new();
    for source in sources() {
        let ending =
            [".unwrap()", ".expect(", "panic!(", "todo!(", "unimplemented!(", "unreachable!(", "process::exit(", "process::abort("];
        for line in source.code.lines().filter(|line| ending.iter().any(|call| line.contains(call))) {
            match MAY_PANIC.iter().position(|(path, part, _)| *path == source.path && line.contains(part)) {
                Some(reason) => drop(used.insert(reason)),
                None => faults.push(format!("{}: {}", source.path, line.trim())),
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    for (place, (path, part, reason)) in MAY_PANIC.iter().enumerate() {
        assert!(used.contains(&place), "{path} has no {part:?} any more, so its reason ({reason}) can go");
    }
    assert!(read(&root().join("src/lib.rs")).contains("\n#![forbid(unsafe_code)]\n"), "src/lib.rs may hold unsafe code");
    let manifest = read(&root().join("Cargo.toml"));
    assert!(manifest.contains("\nunsafe_code = \"forbid\"\n"), "Cargo.toml allows unsafe code to the binary and the tests");
}

#[test]
fn the_fast_run_skips_tests_that_exist() {
    let script = read(&root().join("tests/run"));
    let list = script.split_once("\nNOT_FAST=(\n").unwrap().1.split_once("\n)\n").unwrap().0;
    let tests: Vec<String> = rust("tests/it")
        .into_iter()
        .map(|(path, file)| path.replace("tests/it/", "").replace(".rs", "").replace('/', "::") + "::\n" + &read(&file))
        .collect();
    for name in list.split_whitespace() {
        assert!(tests.iter().any(|text| text.contains(name)), "tests/run --fast skips {name}, which is neither a module nor a test");
    }
}

/// Files written by people, by path.
fn texts() -> BTreeMap<String, String> {
    let folders = ["src", "sql", "tests", "benches", "vendor", ".ci", ".cargo", "docs"];
    let alone = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file() && !path.ends_with(".git"));
    let all = folders.iter().flat_map(|folder| files(folder)).chain(alone.map(|path| (relative(&path), path)));
    all.filter(|(path, _)| !path.contains("__pycache__"))
        // Only text files are searched, not certificates or archives.
        .filter_map(|(path, file)| Some((path, String::from_utf8(fs::read(file).unwrap()).ok()?)))
        .collect()
}

#[test]
fn no_file_names_a_machine_or_a_path_of_its_author() {
    let mut names = vec![format!("{}/", root().display())];
    // The directory of the checkout, unless every machine has one with this name.
    let above = root().parent().unwrap().display().to_string();
    if !["/", "/tmp", "/root", "/home", "/opt", "/src", "/usr/src", "/var/tmp"].contains(&above.as_str()) {
        names.push(format!("{above}/"));
    }
    for (path, text) in texts() {
        for name in &names {
            assert!(!text.contains(name.as_str()), "{path} names {name}");
        }
    }
}

#[test]
fn packages_come_from_the_public_registries() {
    let lock = read(&root().join("Cargo.lock"));
    for source in lock.lines().filter_map(|line| line.strip_prefix("source = ")) {
        assert_eq!(source, "\"registry+https://github.com/rust-lang/crates.io-index\"", "Cargo.lock");
    }
    for (path, text) in texts().into_iter().filter(|(path, _)| path != "tests/it/house.rs") {
        for word in ["--index-url", "--extra-index-url", "--trusted-host", "PIP_INDEX", "replace-with", "CARGO_REGISTRIES", "GOPROXY"] {
            assert!(!text.contains(word), "{path}: {word} requires a private registry");
        }
    }
}

#[test]
fn the_only_webpki_roots_is_the_empty_one() {
    let lock = read(&root().join("Cargo.lock"));
    let found: Vec<&str> = lock.split("[[package]]\n").filter(|package| package.starts_with("name = \"webpki-roots\"\n")).collect();
    let [package] = found[..] else { panic!("Cargo.lock has {} packages called webpki-roots", found.len()) };
    assert!(!package.contains("source = "), "Cargo.lock: webpki-roots is not that of vendor/:\n{package}");
}

/// The exit codes of the program.
fn exit_codes() -> BTreeSet<u32> {
    let source = read(&root().join("src/cli/exit.rs"));
    let body = source.split_once("pub enum Exit {").unwrap().1.split_once("\n}").unwrap().0;
    body.lines().filter_map(|line| line.split_once(" = ")?.1.trim_end_matches(',').parse().ok()).collect()
}

#[test]
fn the_documented_exit_codes_are_those_of_the_program() {
    let codes = exit_codes();
    assert!(codes.contains(&0) && codes.contains(&143) && codes.len() > 10, "{codes:?}");
    let page = read(&root().join("docs/scripting.md"));
    let mut section = page.lines().skip_while(|line| !(line.starts_with('#') && line.to_lowercase().contains("exit code")));
    assert!(section.next().is_some(), "docs/scripting.md has no section on exit codes");
    let first = |line: &str| line.strip_prefix('|')?.split('|').next().map(|cell| cell.replace('`', "").trim().to_owned());
    let told: BTreeSet<u32> = section
        .take_while(|line| !line.starts_with('#'))
        .filter_map(first)
        .flat_map(|cell| cell.split([',', '/']).filter_map(|number| number.trim().parse().ok()).collect::<Vec<u32>>())
        .collect();
    assert_eq!(told, codes, "docs/scripting.md, the table of exit codes");
}

#[test]
fn every_dependency_is_used() {
    let manifest = read(&root().join("Cargo.toml"));
    let section = |name: &str| -> Vec<String> {
        let rest = manifest.split_once(&format!("\n[{name}]\n")).unwrap_or_else(|| panic!("no [{name}]")).1;
        rest.lines()
            .take_while(|line| !line.starts_with('['))
            .filter_map(|line| line.split_once(" = "))
            .map(|(name, _)| name.trim().to_owned())
            .filter(|name| !name.starts_with('#'))
            .collect()
    };
    let in_program: String = sources().into_iter().map(|source| source.code + "\n").collect();
    let in_tests: String =
        ["src", "tests", "benches"].iter().flat_map(|folder| rust(folder)).map(|(_, path)| code(&read(&path)).0 + "\n").collect();
    let names = |code: &str, dependency: &str| {
        // The only package whose library has another name.
        let ident = if dependency == "md-5" { "md5".to_owned() } else { dependency.replace('-', "_") };
        code.match_indices(&ident).any(|(at, _)| {
            let (before, after) = (code[..at].chars().next_back(), &code[at + ident.len()..]);
            let begins = before.is_none_or(|c| !is_word(c)) && !code[..at].ends_with("crate::") && !code[..at].ends_with("super::");
            let path = after.starts_with("::") || after.starts_with(';') || after.starts_with(" as ");
            begins && path
        })
    };
    let mut faults = Vec::new();
    for dependency in section("dependencies") {
        match (names(&in_program, &dependency), UNNAMED.iter().find(|(name, _)| *name == dependency)) {
            (false, None) => faults.push(format!("{dependency}: nothing in src names it")),
            (true, Some((_, reason))) => faults.push(format!("{dependency}: src names it, so its reason ({reason}) can go")),
            _ => {}
        }
    }
    let tested = section("dev-dependencies").into_iter().filter(|dependency| !names(&in_tests, dependency));
    faults.extend(tested.map(|dependency| format!("{dependency}: no test names it")));
    assert!(faults.is_empty(), "Cargo.toml:\n{}", faults.join("\n"));
}
