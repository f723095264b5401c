//! `check`

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde::Deserialize;

use crate::cli::args::{SelectionArgs, span};
use crate::cli::check_run::{self, Checked};
use crate::cli::context::Context;
use crate::cli::error::{Error, Result};
use crate::cli::exit::Exit;
use crate::cli::hosts::{self, Hosts};
use crate::cli::reading::reading;
use crate::cli::result_file::ResultFile;
use crate::cli::signing::SigningKey;
use crate::cli::storage::{self, StorageArgs};
use crate::cli::view;
use crate::domain::text::shell_word;
use crate::domain::time::rfc3339;
use crate::domain::{
    Backup, CheckResult, CheckVerdict, Checks, DatabaseInfo, Finding, FindingKind, Image, Level, Matched, Selection, Services, Situation,
};
use crate::input;
use crate::report::safe::terminal;
use crate::scan::{KeptRows, ScanRequest, database_info, scan, situation};
use crate::verify::check_document::{SCHEMA, SCHEMA_VERSION, Summary};
use crate::verify::chunked::Share;
use crate::verify::partial::{Head, Sign};
use crate::verify::{CheckDocument, Target};

/// No scan document is larger.
const MAX_SCAN_BYTES: u64 = 1 << 30;

/// Verifies the data of backups on their storage: of what scan finds, of the backups named, or of all. Changes nothing, neither
/// in the database nor on the storage. `--format json` writes evidence for `plan --evidence`.
#[derive(Debug, Args)]
pub struct CheckCommandArgs {
    /// Ids or names of backups; `-` reads ids from standard input [default: what scan finds and data says something about]
    #[arg(value_name = "BACKUP")]
    pub backups: Vec<String>,
    /// quick: names, sizes and side files; deep: every object against its digest; restore: every block as a restore would
    /// write it
    #[arg(long, value_name = "LEVEL", default_value = "quick", value_parser = storage::level)]
    pub level: Level,
    /// Check every backup, available ones too
    #[arg(long, conflicts_with_all = ["backups", "from"])]
    pub all: bool,
    /// Check what `scan --format json` found, on a host that has no way to the database
    #[arg(long, value_name = "FILE", conflicts_with = "backups")]
    pub from: Option<PathBuf>,
    /// Go on where an earlier check (its JSON) stopped: what it found intact stands where row, place and listing are what they
    /// were; all else is checked again
    #[arg(long, value_name = "FILE")]
    pub resume: Option<PathBuf>,
    /// Sign the evidence with this private key (Ed25519 in PEM), for `plan --verify-key`; --resume then takes only files signed with it
    #[arg(long, value_name = "FILE")]
    pub sign_key: Option<PathBuf>,
    /// Write results to FILE.partial as they come, and the JSON document to FILE once all are there; --resume takes either
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Check again what the earlier check looked at longer ago than this
    #[arg(long, value_name = "SPAN", default_value = "24h", value_parser = span)]
    pub resume_max_age: Duration,
    /// Only the n-th of t parts of the backups, so that t hosts share the work
    #[arg(long, value_name = "N/T", value_parser = part)]
    pub shard: Option<(u64, u64)>,
    /// Read only the n-th of t parts of each backup's objects: t runs read everything once
    #[arg(long, value_name = "N/T", value_parser = part, conflicts_with = "sample")]
    pub read_data_subset: Option<(u64, u64)>,
    /// Read only about so much of each backup's objects, chosen at random
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub sample: Option<f64>,
    /// Which rows.
    #[command(flatten)]
    pub selection: SelectionArgs,
    /// Where the data is.
    #[command(flatten)]
    pub storage: StorageArgs,
}

fn part(text: &str) -> std::result::Result<(u64, u64), String> {
    let usage = || format!("{text:?} is no part; write for example 2/5, the second of five");
    let (part, of) = text.split_once('/').ok_or_else(usage)?;
    let (part, of): (u64, u64) = (part.trim().parse().map_err(|_| usage())?, of.trim().parse().map_err(|_| usage())?);
    if part >= 1 && part <= of { Ok((part, of)) } else { Err(usage()) }
}

fn percent(text: &str) -> std::result::Result<f64, String> {
    let usage = || format!("{text:?} is no share; write for example 5%");
    let number: f64 = text.trim().trim_end_matches('%').trim().parse().map_err(|_| usage())?;
    if number > 0.0 && number <= 100.0 { Ok(number / 100.0) } else { Err(usage()) }
}

/// What is to be checked, and where the rows are from.
struct Assignment {
    targets: Vec<Target>,
    database: DatabaseInfo,
    taken_at: String,
}

/// Runs `check`.
pub fn run(context: &Context<'_>, args: &CheckCommandArgs) -> Result<Exit> {
    let share = match (args.read_data_subset, args.sample) {
        (Some((part, of)), _) => Share::Part(part, of),
        (None, Some(fraction)) => Share::Fraction(fraction),
        (None, None) => Share::All,
    };
    if share != Share::All && args.level == Level::Quick {
        return Err(Error::usage("--read-data-subset and --sample are about data, which --level quick does not read; give --level deep"));
    }
    context.ui.check_columns(&view::checks(&[]))?;
    let key = args.sign_key.as_deref().map(|path| SigningKey::read(context.ui, path).map(|key| (path, key))).transpose()?;
    let earlier = args.resume.as_deref().map(check_run::read_evidence).transpose()?;
    if let (Some((path, key)), Some(earlier)) = (&key, &earlier) {
        key.public(path).verify("the evidence of --resume", &earlier.sha256, earlier.signature.as_ref())?;
    }
    let mut assignment = match &args.from {
        Some(path) => from_scan(context, path, &args.selection.selection(&[]).map_err(Error::usage)?)?,
        None => from_database(context, args)?,
    };
    if let Some((part, of)) = args.shard {
        // By the chain, so that what several increments rest on is read by one host.
        assignment.targets.retain(|target| spread(target) % of == part - 1);
    }
    let Assignment { targets, database, taken_at } = assignment;
    let targets: Arc<[Target]> = targets.into();
    let all_known = earlier.as_ref().map_or(0, |earlier| earlier.results.len());
    let earlier = match earlier {
        Some(earlier) => carry_over(args, earlier, &targets, &database)?,
        None => Vec::new(),
    };
    let known = earlier.len();
    let settle = args.storage.settle.as_secs();
    let mut file = match &args.out {
        Some(path) => {
            let head = Head::new(database.clone(), taken_at.clone(), args.level, settle);
            let same_rows = earlier.iter().filter_map(|(check, target)| Some((check, (*target)?)));
            let resumed = args.resume.as_deref().map(|resumed| (resumed, all_known - known));
            let sign = key.as_ref().map(|(_, key)| Box::new(|sha256: &str| key.sign(sha256)) as Sign<'_>);
            Some(ResultFile::begin(context.ui, path, resumed, &head, sign, same_rows)?)
        }
        None => None,
    };
    let stands = earlier.into_iter().filter(|(check, target)| target.is_some() && may_stand(args, check));
    let earlier = stands.map(|(check, _)| (check.id.clone(), check)).collect();
    let request = args.storage.request(args.level, share);
    let checked = check_run::check(context, &args.storage, &request, &targets, earlier, file.as_mut())?;
    let Checked { results, left, carried, interrupted, signals: _signals } = checked;
    if known > 0 {
        context.ui.say(format!("{carried} of {} are carried over from the earlier check.", targets.len()));
    }
    if known > carried && interrupted.is_none() {
        context.ui.say(format!(
            "{} that it knew {} again: not intact then at this level, older than --resume-max-age, or row, place or listing are not what they were.",
            known - carried,
            if known - carried == 1 { "was checked" } else { "were checked" }
        ));
    }
    let checked: BTreeSet<&str> = results.iter().map(|result| result.id.as_str()).collect();
    let mut ancestors: BTreeMap<&str, Image> = BTreeMap::new();
    for target in targets.iter().filter(|target| checked.contains(target.backup.id.as_str())) {
        for ancestor in &target.ancestors {
            ancestors.entry(&ancestor.id).or_insert_with(|| ancestor.image(target.columns));
        }
    }
    let ancestors = ancestors.into_values().collect();
    let mut evidence = CheckDocument {
        ancestors,
        schema: SCHEMA.to_owned(),
        schema_version: SCHEMA_VERSION,
        database,
        taken_at,
        level: args.level,
        settle_seconds: settle,
        interrupted: interrupted.map(|(_, signal)| signal.to_owned()),
        summary: Summary { carried, ..Summary::of(&results, left) },
        results,
        sha256: String::new(),
        signature: None,
    };
    evidence.seal();
    evidence.signature = key.as_ref().map(|(_, key)| key.sign(&evidence.sha256));
    // Report and judge what was found, even if the file cannot be written.
    let (partial, written) = match file {
        Some(file) if interrupted.is_some() => (Some(file.stop()), Ok(())),
        Some(file) => (None, file.finish(&evidence)),
        None => (None, Ok(())),
    };
    context.ui.result(&evidence, "results", &view::checks(&evidence.results))?;
    if context.ui.is_table() {
        tell(context, &evidence);
    }
    if let Some((_, signal)) = interrupted {
        let from = match partial {
            Some(partial) => format!("--resume {} goes on from there", shell_word(partial.display())),
            None if context.ui.is_table() => "--resume goes on from the results that --format json or --out FILE keeps".to_owned(),
            None => "--resume goes on from there".to_owned(),
        };
        context.ui.warn(format!("stopped by {signal} before the end: {from}"));
    }
    written?;
    Ok(exit(&evidence, interrupted.map(|(exit, _)| exit)))
}

/// The results of an earlier check of these backups, each with its target, if its rows are unchanged.
fn carry_over<'t>(
    args: &CheckCommandArgs,
    earlier: CheckDocument,
    targets: &'t [Target],
    database: &DatabaseInfo,
) -> Result<Vec<(CheckResult, Option<&'t Target>)>> {
    if earlier.database.identity != database.identity {
        let problem = format!("--resume is about the database {}, but this is {}", earlier.database, database);
        return Err(Error::usage(problem));
    }
    let (settle, held_to) = (args.storage.settle.as_secs(), earlier.settle_seconds);
    let by_id: HashMap<&str, &Target> = targets.iter().map(|target| (target.backup.id.as_str(), target)).collect();
    let results = earlier.into_results(|check| by_id.contains_key(check.id.as_str())).filter_map(|mut check| {
        let target = *by_id.get(check.id.as_str())?;
        if held_to < settle {
            check.hold_to(settle);
        }
        let is_same = check.outdated(&target.backup, &target.ancestors, target.columns).is_none();
        Some((check, is_same.then_some(target)))
    });
    Ok(results.collect())
}

/// Whether a result may be carried over into this check, if its rows are unchanged. The storage decides whether its objects are
/// still the same.
fn may_stand(args: &CheckCommandArgs, check: &CheckResult) -> bool {
    let now = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).datetime();
    let max_age = i64::try_from(args.resume_max_age.as_secs()).unwrap_or(i64::MAX);
    // Damage is checked again: it may have been repaired, or the earlier check may have looked in the wrong place. A lower level may not
    // see it, so it stands while the listing is unchanged.
    let is_deeper_damage = check.verdict.is_damage() && check.level > args.level && !check.busy;
    let may_stand = is_deeper_damage || (check.verdict == CheckVerdict::Intact && check.settles(args.level));
    may_stand && check.expired(now, max_age).is_none()
}

/// All that is wrong, below the table, and the sum.
fn tell(context: &Context<'_>, evidence: &CheckDocument) {
    let most = 20;
    for result in evidence.results.iter().filter(|result| !result.problems.is_empty() || !result.warnings.is_empty()) {
        let level = if result.verdict == CheckVerdict::Intact { format!(" by a {} check", result.level) } else { String::new() };
        context.ui.say(terminal(&format!("{} is {}{level}:", result.id, result.verdict)));
        let shown = if context.ui.verbosity() > 0 { usize::MAX } else { most };
        for problem in result.problems.iter().chain(&result.warnings).take(shown) {
            let object = problem.object.as_ref().map_or_else(String::new, |object| format!("{object}: "));
            context.ui.say(terminal(&format!("  {object}{}", problem.text)));
        }
        let more = (result.problems.len() + result.warnings.len()).saturating_sub(shown);
        if more > 0 {
            context.ui.say(format!("  and {more} more (-v shows all, --format json too)"));
        }
    }
    let summary = &evidence.summary;
    let counted = |counts: &[(usize, &str)]| -> Vec<String> {
        counts.iter().filter(|(number, _)| *number > 0).map(|(number, word)| format!("{number} {word}")).collect()
    };
    let mut parts = counted(&[
        (summary.intact, "intact"),
        (summary.incomplete, "incomplete"),
        (summary.corrupt, "corrupt"),
        (summary.missing, "missing"),
        (summary.unverifiable, "unverifiable"),
    ]);
    let known = counted(&[
        (summary.intact_at_quick, "intact at level quick"),
        (summary.intact_at_deep, "intact at level deep"),
        (summary.unreadable, "unreadable: a disk gives read errors"),
    ]);
    if let Some(unverifiable) = parts.last_mut().filter(|_| !known.is_empty()) {
        unverifiable.push_str(&format!(" (of these {})", known.join(", ")));
    }
    let mut sentence =
        if parts.is_empty() { "Nothing to check".to_owned() } else { format!("{} by a {} check", parts.join(", "), evidence.level) };
    if summary.busy > 0 {
        sentence.push_str(&format!("; {} being written", summary.busy));
    }
    if summary.left > 0 {
        sentence.push_str(&format!("; {} left", summary.left));
    }
    if let Some(location) = &evidence.database.location {
        sentence.push_str(&format!(", in {}", terminal(location)));
    }
    context.ui.say(sentence);
}

fn exit(evidence: &CheckDocument, interrupted: Option<Exit>) -> Exit {
    let summary = &evidence.summary;
    if let Some(exit) = interrupted {
        exit
    } else if summary.incomplete + summary.corrupt + summary.missing + summary.unreadable > 0 {
        Exit::Damaged
    } else if summary.unverifiable > 0 {
        // What nobody could look at is not in order.
        Exit::Partial
    } else {
        Exit::Done
    }
}

/// A number that is the same for all members of a chain.
fn spread(target: &Target) -> u64 {
    let root = target.ancestors.last().map_or(&target.backup, AsRef::as_ref);
    // FNV-1a: the same on every host and in every release.
    root.id.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn from_scan(context: &Context<'_>, path: &Path, selection: &Selection) -> Result<Assignment> {
    #[derive(Deserialize)]
    struct Scan {
        schema: String,
        schema_version: u32,
        database: DatabaseInfo,
        taken_at: String,
        findings: Vec<Finding>,
    }
    let from_input = path == Path::new("-");
    let shown = if from_input { "standard input".to_owned() } else { path.display().to_string() };
    let read = if from_input { input::read_json_from(std::io::stdin(), MAX_SCAN_BYTES) } else { input::read_json(path, MAX_SCAN_BYTES) };
    let text = read.map_err(|error| Error::usage(format!("cannot read {shown}: {error}")))?;
    let scan: Scan =
        serde_json::from_slice(&text).map_err(|error| Error::usage(format!("{shown} is not what `scan --format json` writes: {error}")))?;
    if scan.schema != "cinder-backup-repair/scan" || scan.schema_version > 1 {
        return Err(Error::usage(format!(
            "{shown} has the schema {} {}, and a scan of version 1 is wanted",
            scan.schema, scan.schema_version
        )));
    }
    let columns = scan
        .findings
        .iter()
        .flat_map(|finding| &finding.rows)
        .next()
        .map(check_run::columns_of)
        .unwrap_or(crate::domain::ColumnSet::Mitaka);
    let backups = scan.findings.iter().filter(|finding| finding.kind == FindingKind::Backup);
    let of_backups = backups.filter_map(|finding| finding.host.clone()).collect();
    let lacking = format!("no backup in {shown}");
    // The file lists only what was stuck, so a host that is not in it may still exist.
    let hosts = Hosts { of_backups: &of_backups, services: &Services::default(), lacking: &lacking };
    hosts.problems(selection).iter().for_each(|problem| context.ui.warn(problem));
    let mut targets = check_run::targets_of_findings(&scan.findings, columns);
    targets.retain(|target| takes(selection, &target.backup));
    targets.truncate(selection.limit.unwrap_or(usize::MAX));
    Ok(Assignment { targets, database: scan.database, taken_at: scan.taken_at })
}

fn from_database(context: &Context<'_>, args: &CheckCommandArgs) -> Result<Assignment> {
    let names = super::repair::named(&args.backups)?;
    let selection = args.selection.selection(&names).map_err(Error::usage)?;
    let mut connected = context.connect()?;
    let database = database_info(connected.session.as_ref(), &connected.schema);
    if names.is_empty() && !args.all {
        let mut policy = args.selection.policy(None, &connected).map_err(Error::usage)?;
        selection.tell(&mut policy);
        let checks = Checks::new();
        let request = ScanRequest::new(&policy, &selection, KeptRows::Chains, &checks);
        let found = reading(context.ui, || scan(connected.session.as_mut(), &connected.schema, &request))?;
        hosts::insist(context.ui, &found, &selection, &policy, args.selection.allow_empty)?;
        let targets = check_run::targets_of_findings(&found.document.findings, connected.schema.columns);
        return Ok(Assignment { targets, database, taken_at: found.document.taken_at });
    }
    let wanted: BTreeSet<String> = names.into_iter().collect();
    let (mut of_backups, mut matched) = (HashSet::new(), Matched::default());
    let around = around(&mut connected, &selection, &mut matched)?;
    let mut wanted_backup = |backup: &Backup| {
        if let Some(host) = backup.host.as_ref().filter(|host| !of_backups.contains(*host)) {
            of_backups.insert(host.clone());
        }
        matched.note(&selection, backup.status.as_deref(), backup.project_id.as_deref(), backup.volume_id.as_deref());
        // Those that are named are read whatever the other options say of them, so that it can be told which option leaves one out.
        if wanted.is_empty() { takes(&selection, backup) } else { is_named(backup, &wanted) }
    };
    let mut targets = reading(context.ui, || check_run::targets_in_database(&mut connected, &mut wanted_backup))?;
    Hosts::of_database(&of_backups, &around.services).insist(context.ui, &selection, &matched, args.selection.allow_empty)?;
    if !wanted.is_empty() {
        let (fitting, others): (Vec<Target>, Vec<Target>) = targets.into_iter().partition(|target| takes(&selection, &target.backup));
        if let Some(problem) = left_out(&wanted, &fitting, &others) {
            return Err(Error::usage(problem));
        }
        let ids = crate::scan::names::resolve(&wanted, fitting.iter().map(|target| &target.backup)).map_err(Error::usage)?;
        targets = fitting;
        targets.retain(|target| ids.contains(&target.backup.id));
    }
    if let Some(limit) = selection.limit {
        targets.truncate(limit);
    }
    Ok(Assignment { targets, database, taken_at: rfc3339(around.now) })
}

/// A sentence about the first backup that is named and that the other options leave out: it is there, which "there is no such
/// backup" would deny. An id is that of its own backup, whatever those that fit are called.
fn left_out(names: &BTreeSet<String>, fitting: &[Target], others: &[Target]) -> Option<String> {
    let fits = fitting.iter().map(|target| &target.backup).flat_map(|backup| [Some(&backup.id), backup.display_name.as_ref()]);
    let fits: HashSet<&String> = fits.flatten().collect();
    let other = others.iter().map(|other| &other.backup).find(|backup| {
        let by_name = backup.display_name.as_ref().filter(|name| names.contains(*name));
        names.contains(&backup.id) || by_name.is_some_and(|name| !fits.contains(name))
    })?;
    let [status, host] = [&other.status, &other.host].map(|value| view::shown(&value.clone().into()));
    let name = other.display_name.as_deref().unwrap_or("");
    Some(format!("the other options leave out backup {} {name:?}: its status is {status}, its host {host}", other.id))
}

fn is_named(backup: &Backup, names: &BTreeSet<String>) -> bool {
    names.contains(&backup.id) || backup.display_name.as_ref().is_some_and(|name| names.contains(name))
}

fn takes(selection: &Selection, backup: &Backup) -> bool {
    let by_status = selection.statuses.is_empty() || selection.statuses.contains(backup.status.as_deref().unwrap_or(crate::domain::NULL));
    let by_host = selection.hosts.is_empty() || backup.host.as_ref().is_some_and(|host| selection.hosts.contains(host));
    by_status && by_host && selection.takes_owner(backup.project_id.as_deref(), backup.volume_id.as_deref())
}

/// The clock, the services, and which of the volumes asked for exist without a backup.
fn around(connected: &mut crate::cli::context::Connected, selection: &Selection, matched: &mut Matched) -> Result<Situation> {
    connected.session.begin(crate::db::Access::ReadOnly)?;
    let mut reader = crate::scan::Reader { session: connected.session.as_mut(), schema: &connected.schema };
    let read = reader.volumes(&matched.missing_volumes(selection)).and_then(|volumes| {
        for volume in volumes {
            matched.note(selection, volume.status.as_deref(), volume.project_id.as_deref(), Some(&volume.id));
        }
        situation(&mut reader)
    });
    let ended = connected.session.rollback();
    let situation = read?;
    ended?;
    Ok(situation)
}
