//! What the help of a command has beside its options: examples, which a test runs, and a short form that leaves out what is rarely used.

use clap::Command;

/// Options that `-h` leaves out; `--help` has all.
const RARE: [&str; 51] = [
    "allow_empty",
    "service_down_time",
    "no_quota",
    "accept_quick",
    "evidence_max_age",
    "storage_option",
    "gcs_endpoint",
    "storage_timeout",
    "ceph_source_pool",
    "settle",
    "jobs",
    "memory",
    "limit_rate",
    "limit_requests",
    "limit_parallel",
    "nice",
    "batch_size",
    "sessions",
    "config_dirs",
    "config_dir",
    "password_file",
    "tls_mode",
    "tls_ca",
    "tls_cert",
    "tls_key",
    "insecure_auth",
    "connect_timeout",
    "statement_timeout",
    "lock_timeout",
    "sort_columns",
    "sort_ascending",
    "sort_descending",
    "noindent",
    "quote",
    "max_width",
    "fit_width",
    "print_empty",
    "color",
    "no_input",
    "log_format",
    "progress",
    "prometheus",
    "nagios",
    "sign_key",
    "verify_key",
    "resume_max_age",
    "read_data_subset",
    "sample",
    "shard",
    "shards",
    "commands",
];

/// By command: what an example is for, and its command line.
type Examples = &'static [(&'static str, &'static [(&'static str, &'static str)])];

const EXAMPLES: Examples = &[
    (
        "scan",
        &[
            ("What is stuck, with host, age and evidence", "scan --long"),
            ("For a script: exit code 3 if anything is stuck on ctl1", "scan --host ctl1 --detailed-exitcode -f json"),
        ],
    ),
    ("explain", &[("Everything about one backup, and what each way out would take", "explain 'erp-db nightly' --check quick")]),
    (
        "check",
        &[
            ("Read all data of one backup and compare it with its digests", "check 'erp-db nightly' --level deep"),
            ("Compare names and sizes of all backups; --resume continues", "check --all --out checked.json"),
        ],
    ),
    (
        "plan",
        &[
            ("A plan for ctl1, after all data was read", "plan --host ctl1 --check deep --out plan.json"),
            ("A report for the change ticket", "plan --host ctl1 --report change.md"),
            ("Finish deletes of which nothing is left on the storage", "plan --status deleting --to deleted --check quick"),
        ],
    ),
    ("apply", &[("Rehearse a plan", "apply plan.json --dry-run"), ("Apply it", "apply plan.json --yes --ticket CHG-4711")]),
    (
        "repair",
        &[
            ("See what would change", "repair --dry-run"),
            ("Choose at the terminal, after all data was checked", "repair --check deep"),
            ("Without a terminal: at most 25 units, unless --max-changes says more", "repair 'scratch before the test' --yes"),
        ],
    ),
    ("undo", &[("Take back the newest run", "undo last --yes"), ("See first what that would do", "undo last --dry-run")]),
    ("rescue", &[("The backups that the storage has and the database lost", "rescue --level quick")]),
    (
        "scrub",
        &[
            ("Each night: verify what was verified longest ago", "scrub run --ledger ledger.db --max-runtime 4h"),
            ("How much was verified, and what failed", "scrub status --ledger ledger.db"),
        ],
    ),
    (
        "history",
        &[
            ("All runs", "history list"),
            ("Make sure that nobody edited the log", "history verify"),
            ("After a failover: are the changes still there?", "history reconcile"),
        ],
    ),
    ("doctor", &[("Is everything in place for a repair?", "doctor"), ("The same for a script", "doctor -f json")]),
    ("demo", &[("The main job on a toy database", "demo"), ("Everything, one command at a time", "demo --all --step")]),
    ("config", &[("Which database and storage, and which file says so", "config show")]),
    ("schema", &[("The names of all documents", "schema"), ("The JSON Schema of what `scan -f json` writes", "schema scan")]),
    ("completions", &[("For bash", "completions bash > cinder-backup-repair.bash")]),
    ("man", &[("Read the page of a command", "man repair | man -l -")]),
];

/// Commands that have no use for the shared options.
const ALONE: [&str; 3] = ["demo", "completions", "man"];

/// Adds all of it to the program's command line.
pub fn complete(mut program: Command) -> Command {
    let shared: Vec<clap::Arg> = program.get_arguments().filter(|arg| arg.is_global_set()).cloned().collect();
    for name in ALONE {
        // What a command has of its own is not inherited.
        program = program.mut_subcommand(name, |command| command.args(shared.iter().map(|arg| arg.clone().hide(true))));
    }
    for (name, examples) in EXAMPLES {
        let lines = examples.iter().map(|(purpose, line)| format!("  {purpose}:\n    cinder-backup-repair {line}\n"));
        let text = format!("Examples:\n{}", lines.collect::<String>());
        program = program.mut_subcommand(name, |command| command.after_long_help(text).after_help("--help has all options, and examples."));
    }
    shortened(program)
}

fn shortened(command: Command) -> Command {
    let command = command.mut_args(|arg| if RARE.contains(&arg.get_id().as_str()) { arg.hide_short_help(true) } else { arg });
    command.mut_subcommands(shortened)
}
