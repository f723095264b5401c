//! Runs the program like a user: with a cleared environment, its own audit log, and all output captured.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use jsonschema::Validator;
use serde_json::{Value, json};
use tempfile::TempDir;

/// The program with one database and its own audit log.
pub struct Program {
    url: String,
    folder: TempDir,
}

/// The result of a run.
#[derive(Debug)]
pub struct Answer {
    /// The exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Program {
    /// The program with the database of this URL.
    pub fn on(url: impl Into<String>) -> Self {
        Self { url: url.into(), folder: tempfile::tempdir().expect("a temporary folder") }
    }

    /// The same program and log with another URL, for example of another account.
    pub fn with_url(self, url: impl Into<String>) -> Self {
        Self { url: url.into(), ..self }
    }

    /// A path in the program's own directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The audit log.
    pub fn log(&self) -> PathBuf {
        self.path("audit.jsonl")
    }

    /// The command, ready to run.
    pub fn command(&self, args: &[&str]) -> Command {
        // A silent host proves nothing on a server that has just started. With a heartbeat interval of one second the server is old
        // enough after four seconds.
        let conf = self.path("cinder.conf");
        if !conf.exists() {
            std::fs::write(&conf, "[DEFAULT]\nreport_interval = 1\n").expect("a cinder.conf");
        }
        let mut command = bare(args);
        command.env("CINDER_DATABASE_URL", &self.url).arg("--config-file").arg(conf);
        command.arg("--audit-log").arg(self.log()).current_dir(self.folder.path());
        command
    }

    /// Runs it without a terminal and waits for the end.
    pub fn run(&self, args: &[&str]) -> Answer {
        answer(&mut self.command(args))
    }

    /// Runs it and checks its exit code.
    #[track_caller]
    pub fn expect(&self, code: i32, args: &[&str]) -> Answer {
        let answer = self.run(args);
        assert_eq!(answer.code, Some(code), "{args:?}\n{}\n{}", answer.stdout, answer.stderr);
        answer
    }

    /// Runs it with `-f json`, checks its exit code and parses the document.
    #[track_caller]
    pub fn json(&self, code: i32, args: &[&str]) -> Value {
        let mut all = args.to_vec();
        all.extend(["-f", "json"]);
        self.expect(code, &all).json()
    }

    /// Starts it and returns while it runs.
    pub fn start(&self, args: &[&str]) -> Child {
        self.command(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts")
    }

    /// Runs it with a standard output whose reader has closed it.
    pub fn unread(&self, args: &[&str]) -> Answer {
        let mut child = self.start(args);
        drop(child.stdout.take());
        let Output { status, stderr, .. } = child.wait_with_output().expect("it ends");
        Answer { code: status.code(), stdout: String::new(), stderr: String::from_utf8(stderr).expect("UTF-8") }
    }

    /// Makes a key pair: `NAME.pem` and `NAME.pub`.
    #[track_caller]
    pub fn key(&self, name: &str) {
        let (private, public) = (format!("{name}.pem"), format!("{name}.pub"));
        self.openssl(&["genpkey", "-algorithm", "ed25519", "-out", &private]);
        self.openssl(&["pkey", "-in", &private, "-pubout", "-out", &public]);
    }

    /// Runs openssl in the program's own directory.
    #[track_caller]
    pub fn openssl(&self, args: &[&str]) {
        let output = Command::new("openssl").args(args).current_dir(self.path(".")).output().expect("openssl");
        assert!(output.status.success(), "{args:?} {}", String::from_utf8_lossy(&output.stderr));
    }

    /// The id of the last run in the log.
    #[track_caller]
    pub fn last_run(&self) -> String {
        let list = self.json(0, &["history", "list"]);
        let runs = list["runs"].as_array().expect("a list of runs");
        runs.last().expect("a run")["run"].as_str().expect("an id").to_owned()
    }
}

/// The program with a cleared environment.
pub fn bare(args: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.env_clear().env("HOME", "/nonexistent").env("LANG", "C.UTF-8").stdin(Stdio::null()).args(args);
    command
}

/// The path of the program.
pub fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_cinder-backup-repair"))
}

/// Runs a command to its end. What it prints must be as `schema` says.
#[track_caller]
pub fn answer(command: &mut Command) -> Answer {
    let Output { status, stdout, stderr } = command.output().expect("the program starts");
    let answer = Answer {
        code: status.code(),
        stdout: String::from_utf8(stdout).expect("standard output is UTF-8"),
        stderr: String::from_utf8(stderr).expect("standard error is UTF-8"),
    };
    let has_columns =
        command.get_args().any(|word| word.to_str().is_some_and(|word| word.starts_with("-c") || word.starts_with("--column")));
    if answer.stdout.starts_with('{') && answer.stdout.len() < LARGEST && !has_columns {
        check_schemas(&answer.stdout);
    }
    answer
}

/// Larger results are not validated.
const LARGEST: usize = 1 << 20;

/// Validates a document, or the lines of a record stream.
#[track_caller]
pub fn check_schemas(text: &str) {
    let values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let mut stream = None;
    // A stream that was cut off on purpose ends within a line.
    for value in values.map_while(Result::ok) {
        let head = value.get("head").unwrap_or(&value);
        if let Some(name) = head["schema"].as_str().and_then(|name| name.strip_prefix("cinder-backup-repair/")) {
            stream = Some(validator(name));
        }
        let Some(validator) = &stream else { return };
        let errors: Vec<String> = validator.iter_errors(&value).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(errors.is_empty(), "not as its schema says: {errors:#?}\n{value:#}");
    }
}

/// The validator for a schema, which here also refuses fields that the schema does not have.
pub fn validator(name: &str) -> Arc<Validator> {
    static KNOWN: Mutex<Option<HashMap<String, Arc<Validator>>>> = Mutex::new(None);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let made = known.get_or_insert_default().entry(name.to_owned()).or_insert_with(|| {
        let output = bare(&["schema", name]).output().expect("the program starts");
        let mut schema = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no schema {name}"));
        close(&mut schema, true);
        Arc::new(jsonschema::draft202012::new(&schema).unwrap_or_else(|error| panic!("{name}: {error}")))
    });
    Arc::clone(made)
}

/// Refuses all fields that a schema does not name, wherever the schema of a whole value `is_whole`: parts of one, as in `anyOf` or behind a
/// `$ref` with other fields beside it, stay open.
fn close(schema: &mut Value, is_whole: bool) {
    let Some(map) = schema.as_object_mut() else { return };
    for open in ["additionalProperties", "unevaluatedProperties"] {
        if map.get(open) == Some(&json!(false)) {
            map.remove(open);
        }
    }
    for (key, part) in map.iter_mut() {
        match key.as_str() {
            "properties" => part.as_object_mut().into_iter().flatten().for_each(|(_, part)| close(part, true)),
            "$defs" => part.as_object_mut().into_iter().flatten().for_each(|(_, part)| close(part, false)),
            "items" | "additionalProperties" => close(part, true),
            "anyOf" | "oneOf" | "allOf" => part.as_array_mut().into_iter().flatten().for_each(|part| close(part, false)),
            _ => {}
        }
    }
    if is_whole && ["properties", "$ref", "anyOf", "oneOf", "allOf"].iter().any(|key| map.contains_key(*key)) {
        map.insert("unevaluatedProperties".to_owned(), json!(false));
    }
}

impl Answer {
    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in {}\n{}", self.stdout, self.stderr))
    }
}

/// The finding for a row in a scan document.
#[track_caller]
pub fn finding<'d>(document: &'d Value, id: &str) -> &'d Value {
    find(document, id).unwrap_or_else(|| panic!("no finding over {id} in {document:#}"))
}

/// The finding for a row, if there is one.
pub fn find<'d>(document: &'d Value, id: &str) -> Option<&'d Value> {
    document["findings"].as_array().expect("findings").iter().find(|finding| finding["id"] == id)
}

/// The codes of a finding's evidence.
pub fn codes(finding: &Value) -> Vec<&str> {
    finding["evidence"].as_array().expect("evidence").iter().filter_map(|evidence| evidence["code"].as_str()).collect()
}
