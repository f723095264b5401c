//! `apply`

use std::io::{self, BufReader, Seek};
use std::path::{Path, PathBuf};

use clap::Args;

use crate::cli::execute::{ExecutionArgs, PlannedRun, execute};
use crate::cli::follow_up::FollowUpArgs;
use crate::cli::storage::PlaceArgs;
use crate::cli::{Context, Error, Exit, Result};
use crate::domain::AssumeDead;
use crate::domain::record_stream::{StreamError, is_stream};
use crate::plan::{Plan, Purpose};
use crate::spool::Spool;
use crate::workflow::{Skipped, VerifyKey};

/// Applies one plan, once. A row that was changed since the plan was made is reported and left alone.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// The plan file, as `plan --out` or `plan --format jsonl` wrote it
    #[arg(value_name = "PLAN")]
    pub plan: PathBuf,
    /// Apply the plan only if it is signed with the private key of this public key (Ed25519 in PEM)
    #[arg(long, value_name = "FILE")]
    pub verify_key: Option<PathBuf>,
    #[command(flatten)]
    pub execution: ExecutionArgs,
    #[command(flatten)]
    pub follow_up: FollowUpArgs,
    /// Where the data of checked backups is, for the recheck before the change.
    #[command(flatten)]
    pub place: PlaceArgs,
}

pub fn run(context: &Context<'_>, args: &ApplyArgs) -> Result<Exit> {
    let key = args.verify_key.as_deref().map(VerifyKey::read).transpose()?;
    let plan = read(&args.plan)?;
    if let Some(key) = key {
        key.verify(&format!("the plan {}", args.plan.display()), &plan.sha256, plan.signature.as_ref())?;
    }
    if plan.purpose == Purpose::Undo {
        // An undo depends on the audit log alone: a file could contain any change.
        return Err(Error::new(Exit::Safety, format!("{} is a plan that undoes a run; nothing was changed", args.plan.display()))
            .hint("undo reads the audit log instead of a file: cinder-backup-repair undo RUN"));
    }
    args.execution.check(context.ui)?;
    let mut database = context.connect()?;
    check_down_time(&plan, database.service_down_time, database.report_interval)?;
    for flag in set_aside(&plan) {
        context.ui.warn(format!("the plan was made with {}", flag));
    }
    let planned = PlannedRun {
        command: "apply",
        plan,
        execution: &args.execution,
        refused: Spool::default(),
        skipped: Skipped::default(),
        max_changes: args.execution.max_changes,
        storage: Some(&args.place),
        follow_up: args.follow_up.follow_up.as_ref(),
    };
    execute(context, &mut database, &planned)
}

/// Reads a plan. Its units are verified as they are copied to memory or a temporary file, so an edit of the file afterwards has no effect.
fn read(path: &Path) -> Result<Plan> {
    let shown = path.display();
    let unreadable = |error: io::Error| Error::usage(format!("cannot read the plan {shown}: {error}"));
    let mut file = crate::input::open_json(path).map_err(unreadable)?;
    if file.metadata().map_err(unreadable)?.len() == 0 {
        return Err(Error::usage(format!("the plan {shown} is empty: the program that wrote it did not finish; make a new plan")));
    }
    let (is_stream, _) = is_stream(&mut file).map_err(unreadable)?;
    file.rewind().map_err(unreadable)?;
    let plan = if is_stream {
        Plan::read_stream(BufReader::new(file))
    } else {
        Plan::read(&mut file).map_err(|error| StreamError::Seal(error, 0))
    };
    plan.map_err(|error| {
        let edge = Error::from(error);
        Error { error: anyhow::anyhow!("{shown} {:#}; nothing was changed", edge.error), ..edge }
    })
}

/// Refuses a service_down_time below two heartbeats, unless cinder.conf sets it: no option of `plan` makes such a plan.
fn check_down_time(plan: &Plan, configured: i64, report_interval: u64) -> Result<()> {
    let two_beats = i64::try_from(report_interval.saturating_mul(2)).unwrap_or(i64::MAX);
    let span = plan.policy.thresholds.service_down_time_seconds;
    if span >= two_beats.min(configured) {
        return Ok(());
    }
    Err(Error::new(
        Exit::Safety,
        format!("the plan treats a service as down after {span} s, which is less than service_down_time and less than two report intervals; nothing was changed"),
    )
    .hint("make a new plan"))
}

/// The options that disabled safety rules when the plan was made.
fn set_aside(plan: &Plan) -> Vec<String> {
    let mut flags: Vec<String> = match &plan.policy.assume_dead {
        AssumeDead::None => Vec::new(),
        AssumeDead::All => vec!["--assume-dead all".to_owned()],
        AssumeDead::Hosts(hosts) => hosts.iter().map(|host| format!("--assume-dead {host}")).collect(),
    };
    if plan.policy.allow_unverified {
        flags.push("--allow-unverified".to_owned());
    }
    if plan.policy.no_quota {
        flags.push("--no-quota".to_owned());
    }
    if plan.policy.accept_quick {
        flags.push("--accept-quick".to_owned());
    }
    flags
}
