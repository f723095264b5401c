//! One scan: reads what decisions depend on, makes the findings, and collects them in a document or passes each on at once.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use jiff::civil::DateTime;
use serde::Deserialize;
use thiserror::Error;

use super::cases::{explainers, explains_always, quota_case, snapshot_explainers};
use super::catalog::{Catalog, CatalogTotals};
use super::census::{Census, PORTION, RehostQuery};
use super::compact_ids::CompactIds;
use super::document::{Notice, NoticeCode, ScanDocument, Summary};
use super::findings::{Findings, Made};
use super::reader::Reader;
use super::records::{CatalogBackup, ScanRecord};
use super::references::{ReferenceColumn, References};
use super::related_rows::RelatedRows;
use crate::db::schema::Schema;
use crate::db::{Access, DbError, Session};
use crate::domain::decide::{self, NewHostProblem, Peer};
use crate::domain::status::{BACKING_UP, RESTORING_BACKUP};
use crate::domain::text::{count, list, shell_word};
use crate::domain::time::{human, rfc3339};
use crate::domain::{
    Backup, Checks, ColumnSet, DatabaseInfo, Finding, FindingKind, Heartbeat, Matched, NULL, NewHost, Policy, QuotaUsage, Selection,
    Services, Situation,
};
use crate::spool::Spool;

/// How long a host that has a service row is silent before a scan takes it for retired, in seconds.
const RETIRED_AFTER: i64 = 86_400;

/// Why a scan could not be made.
#[derive(Debug, Error)]
pub enum ScanError {
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
    /// A named backup or host does not exist, or the name is not unique.
    #[error("{0}")]
    Selection(String),
    /// The new host cannot take any backup.
    #[error("{0}")]
    NewHost(String),
    /// The temporary file of the findings cannot be written or read.
    #[error(transparent)]
    Spool(#[from] io::Error),
    /// The receiver of the records has stopped the scan, and knows why.
    #[error("stopped")]
    Stopped,
}

/// Which rows a scan keeps beside its findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeptRows {
    /// No rows.
    None,
    /// The rows of backups whose storage can be checked, with their ancestors, in [`Finding::rows`]: for other programs.
    Chains,
    /// The rows that actionable findings would change, in [`Finding::rows`]: for a plan.
    Changes,
}

/// What to scan for, and by which rules to decide.
#[derive(Clone, Copy)]
pub struct ScanRequest<'a> {
    /// What decisions depend on.
    pub policy: &'a Policy,
    /// Which rows are wanted.
    pub selection: &'a Selection,
    /// Which rows to keep.
    pub kept: KeptRows,
    /// Checks of the storage of some backups; the decisions on these backups depend on them.
    pub checks: &'a Checks,
    /// The storage was checked, so a backup whose data was not checked is not set to error.
    pub storage_checked: bool,
    /// The ids of the backups that will be repaired, if not all: the others keep their rows.
    pub only: Option<&'a BTreeSet<String>>,
}

impl<'a> ScanRequest<'a> {
    /// A scan of the rows alone, without a check of the storage.
    pub fn new(policy: &'a Policy, selection: &'a Selection, kept: KeptRows, checks: &'a Checks) -> Self {
        Self { policy, selection, kept, checks, storage_checked: false, only: None }
    }
}

/// A scan with what later steps need beside the document.
pub struct Scan {
    /// For other programs.
    pub document: ScanDocument,
    /// The pass over `backups`.
    pub census: Census,
    /// The clock and the heartbeats.
    pub situation: Situation,
    /// Which parts of the selection a row matches.
    pub matched: Matched,
    /// Some proposal holds only if other backups are repaired first. To leave some out, scan again with the others in
    /// [`ScanRequest::only`].
    pub has_dependent_proposals: bool,
    /// The size of the catalog that was written, if there is one.
    pub catalog: Option<CatalogTotals>,
}

/// The database, as every document names it.
pub fn database_info(session: &dyn Session, schema: &Schema) -> DatabaseInfo {
    let server = session.server();
    DatabaseInfo {
        engine: server.engine.name().to_owned(),
        version: server.version.clone(),
        release: schema.release.clone(),
        identity: server.identity.clone(),
        location: Some(server.location.clone()),
    }
}

/// The clock, the heartbeats and the columns, as they are now.
pub fn situation(reader: &mut Reader<'_>) -> Result<Situation, DbError> {
    let services = Services::new(&reader.services()?);
    let server_uptime_seconds = reader.uptime()?;
    let now = reader.clock()?;
    Ok(Situation { now, server_uptime_seconds, services, columns: reader.schema.columns, has_attachments: reader.schema.has_attachments })
}

/// Takes what a scan finds, record by record.
pub trait ScanOutput {
    /// All backups were counted; records follow.
    ///
    /// # Errors
    /// The scan is to end: [`ScanError::Stopped`].
    fn begin(&mut self, _database: DatabaseInfo, _census: &Census, _situation: &Situation) -> Result<(), ScanError> {
        Ok(())
    }

    /// A record.
    ///
    /// # Errors
    /// The scan is to end: [`ScanError::Stopped`].
    fn add(&mut self, record: ScanRecord) -> Result<(), ScanError>;
}

impl ScanOutput for (Spool<Finding>, Vec<Notice>) {
    fn add(&mut self, record: ScanRecord) -> Result<(), ScanError> {
        match record {
            ScanRecord::Finding(finding) => self.0.push(&finding)?,
            ScanRecord::Notice(notice) => self.1.push(notice),
            ScanRecord::Chain(_) | ScanRecord::Backup(_) => {}
        }
        Ok(())
    }
}

/// Where the records of a scan go, and which live backups the catalog has, if one is wanted.
pub struct Stream<'o> {
    /// Takes the records.
    pub output: &'o mut dyn ScanOutput,
    /// Whether a backup is in the catalog; only the columns of [`Reader::live_backups`] are read.
    pub catalog: Option<&'o mut dyn FnMut(&Backup) -> bool>,
}

/// Makes a scan in one read-only transaction. The document has the findings in their order.
pub fn scan(session: &mut dyn Session, schema: &Schema, request: &ScanRequest<'_>) -> Result<Scan, ScanError> {
    let mut kept = <(Spool<Finding>, Vec<Notice>)>::default();
    let mut scan = scan_to(session, schema, request, Stream { output: &mut kept, catalog: None })?;
    (scan.document.findings, scan.document.notices) = kept;
    sort(&mut scan.document.findings)?;
    Ok(scan)
}

/// Brings findings into the order of a scan: the oldest first, and those without a time last. It needs some 40 bytes a finding.
///
/// # Errors
/// Those of the temporary file.
pub fn sort(findings: &mut Spool<Finding>) -> io::Result<()> {
    #[derive(Deserialize)]
    struct Order {
        since: Option<String>,
        kind: FindingKind,
    }
    // A time beyond those of RFC 3339 is written without an offset.
    let time = |text: String| text.trim_end_matches('Z').parse::<DateTime>().ok();
    let key = |Order { since, kind }, place| (since.is_none(), since.and_then(time), kind, place);
    let orders = findings.parts::<Order>(0..findings.len()).zip(0..).map(|(order, place)| order.map(|order| key(order, place)));
    let mut orders = orders.collect::<io::Result<Vec<_>>>()?;
    orders.sort_unstable();
    findings.rearrange(orders.into_iter().map(|(.., place)| place));
    Ok(())
}

/// Makes a scan in one read-only transaction, and passes each record on as it is made. The document then has no findings.
pub fn scan_to(session: &mut dyn Session, schema: &Schema, request: &ScanRequest<'_>, stream: Stream<'_>) -> Result<Scan, ScanError> {
    session.begin(Access::ReadOnly)?;
    let result = inside(session, schema, request, stream);
    // Nothing was written. If a lost connection cannot roll back, the result or its next use says so.
    let ended = session.rollback();
    let scan = result?;
    ended?;
    Ok(scan)
}

fn inside(session: &mut dyn Session, schema: &Schema, request: &ScanRequest<'_>, stream: Stream<'_>) -> Result<Scan, ScanError> {
    let database = database_info(session, schema);
    let mut reader = Reader { session, schema };
    let situation = situation(&mut reader)?;
    let mut pending = Pending::default();
    let new = request.policy.rehost.as_ref();
    match new.and_then(|new| decide::find_new_host_problem(new, &situation, request.policy)) {
        Some(NewHostProblem::Unknown(problem)) => return Err(ScanError::Selection(problem)),
        Some(NewHostProblem::Unfit(problem)) => return Err(ScanError::NewHost(problem)),
        None => {}
    }
    let is_retired = |host: &str| new.is_some_and(|new| decide::is_retired(host, new, &situation, request.policy));
    let rehost = new.map(|new| RehostQuery { new_host: &new.host, is_retired: &is_retired });
    let mut census = Census::take_with(&mut reader, request.selection, rehost.as_ref(), &mut |reader, active| {
        let selected: Vec<&Backup> = active.iter().filter(|backup| request.selection.takes(backup)).collect();
        RelatedRows::marked(reader, &selected)?.want_others(&selected, &mut pending.references);
        Ok(())
    })?;
    let selection = census.resolve(request.selection).map_err(ScanError::Selection)?;
    pending.read(&mut reader, &mut census, &selection)?;
    let request = ScanRequest { selection: &selection, ..*request };
    let new_service = new.map(|new| service_of(&mut reader, &census, new)).transpose()?;
    let basis = Basis { census: &census, pending: &pending, situation: &situation, request, new_service };
    let Stream { output, catalog: wants } = stream;
    output.begin(database.clone(), &census, &situation)?;
    let Found { summary, left_out, has_dependent_proposals } = basis.stream(&mut reader, output)?;
    if wants.is_some() {
        census.forget_chains();
    }
    let catalog = wants.map(|wants| write_catalog(&mut reader, wants, output)).transpose()?;
    let document = ScanDocument {
        schema: "cinder-backup-repair/scan",
        schema_version: 1,
        database,
        taken_at: rfc3339(situation.now),
        thresholds: request.policy.thresholds,
        findings: Spool::default(),
        notices: Vec::new(),
        summary,
        left_out,
    };
    let matched = census.matched.clone();
    Ok(Scan { document, matched, census, situation, has_dependent_proposals, catalog })
}

/// The driver of the host that backups are moved to: that of its newest backup, or else that of cinder.conf.
fn service_of(reader: &mut Reader<'_>, census: &Census, new: &NewHost) -> Result<String, ScanError> {
    let backups = reader.backups(&census.of_new_host())?.into_iter().filter(|backup| backup.service.is_some());
    let newest = backups.max_by(|one, other| (&one.created_at, &one.id).cmp(&(&other.created_at, &other.id)));
    newest.and_then(|backup| backup.service).or_else(|| new.backup_driver.clone()).ok_or_else(|| {
        let host = &new.host;
        ScanError::NewHost(format!(
            "no backup can be moved to {host}: its driver is not known, because no live backup is on it and no backup_driver is set in a \
             cinder.conf that was read; give that of {host} with --config-file"
        ))
    })
}

/// Writes all chains with their backups.
fn write_catalog(
    reader: &mut Reader<'_>,
    wants: &mut dyn FnMut(&Backup) -> bool,
    output: &mut dyn ScanOutput,
) -> Result<CatalogTotals, ScanError> {
    let mut catalog = Catalog::read(reader, wants)?;
    let mut totals = CatalogTotals::default();
    loop {
        let portion = catalog.next_portion(reader)?;
        if portion.is_empty() {
            return Ok(totals);
        }
        for entry in portion {
            if let Some(chain) = entry.chain {
                totals.chains += 1;
                output.add(ScanRecord::Chain(chain))?;
            }
            let record = CatalogBackup::new(&entry.backup, entry.is_wanted, reader.schema.columns);
            totals.backups += 1;
            totals.bytes = totals.bytes.saturating_add(record.bytes);
            output.add(ScanRecord::Backup(Box::new(record)))?;
        }
    }
}

/// The rows that findings may be about, beside the backups of the census.
#[derive(Default)]
pub(super) struct Pending {
    /// The numbers of selected volumes that are marked for a backup or a restore and that no active backup explains, or without a status.
    volumes: Vec<u128>,
    /// The numbers of selected snapshots that are marked for a backup and that no active backup explains.
    snapshots: Vec<u128>,
    ids: CompactIds,
    /// The quota usages of the selected projects.
    pub(super) quotas: BTreeMap<String, Vec<QuotaUsage>>,
    /// The backups that refer to these rows, to volumes and snapshots of stuck backups that may be marked for others, or to parents that may
    /// break chains.
    pub(super) references: References,
}

impl Pending {
    fn read(&mut self, reader: &mut Reader<'_>, census: &mut Census, selection: &Selection) -> Result<(), DbError> {
        let columns = reader.schema.columns;
        let is_open = |explainers: Vec<Peer>| !explainers.iter().any(|peer| explains_always(peer, columns));
        let Self { volumes, snapshots, ids, quotas, references } = self;
        if [BACKING_UP, RESTORING_BACKUP, NULL].iter().any(|status| selection.takes_leftover(status)) {
            reader.pending_volumes(&mut |volume| {
                census.matched.note(selection, volume.status.as_deref(), volume.project_id.as_deref(), Some(&volume.id));
                if selection.takes_leftover(volume.status.as_deref().unwrap_or(NULL))
                    && selection.takes_owner(volume.project_id.as_deref(), Some(&volume.id))
                    // While the backup is being written, its temporary volume is as it should be.
                    && !census.is_temporary_in_use(&volume.id)
                    && is_open(explainers(&*census, &volume, columns))
                {
                    volumes.push(ids.add(&volume.id));
                    match volume.status.as_deref() {
                        Some(BACKING_UP) => references.want(ReferenceColumn::Volume, &volume.id),
                        Some(RESTORING_BACKUP) => references.want(ReferenceColumn::RestoreVolume, &volume.id),
                        _ => {}
                    }
                }
            })?;
        }
        if selection.takes_leftover(BACKING_UP) {
            reader.pending_snapshots(&mut |snapshot| {
                census.matched.note(selection, snapshot.status.as_deref(), snapshot.project_id.as_deref(), snapshot.volume_id.as_deref());
                if selection.takes_owner(snapshot.project_id.as_deref(), snapshot.volume_id.as_deref())
                    && is_open(snapshot_explainers(&*census, &snapshot.id))
                {
                    snapshots.push(ids.add(&snapshot.id));
                    references.want(ReferenceColumn::Snapshot, &snapshot.id);
                }
            })?;
        }
        if selection.takes_quotas() {
            for usage in reader.quota_usages()?.into_iter().filter(|usage| selection.takes_owner(Some(&usage.project_id), None)) {
                census.matched.note(selection, None, Some(&usage.project_id), None);
                quotas.entry(usage.project_id.clone()).or_default().push(usage);
            }
        }
        if selection.wants_inconsistent() && columns >= ColumnSet::Liberty {
            census.parents_that_may_break_chains().iter().for_each(|parent| references.want(ReferenceColumn::Parent, parent));
        }
        volumes.sort_unstable_by(|one, other| ids.order(*one, *other));
        snapshots.sort_unstable_by(|one, other| ids.order(*one, *other));
        references.read(reader)
    }

    /// The ids of volumes that may be left over, in their order and in portions.
    pub(super) fn volumes(&self) -> impl Iterator<Item = Vec<String>> {
        self.portions(&self.volumes)
    }

    /// The ids of snapshots that may be left over, in their order and in portions.
    pub(super) fn snapshots(&self) -> impl Iterator<Item = Vec<String>> {
        self.portions(&self.snapshots)
    }

    fn portions<'p>(&'p self, numbers: &'p [u128]) -> impl Iterator<Item = Vec<String>> {
        numbers.chunks(PORTION).map(|numbers| numbers.iter().map(|number| self.ids.id(*number)).collect())
    }
}

/// What is known of all findings that were passed on.
struct Found {
    summary: Summary,
    left_out: usize,
    has_dependent_proposals: bool,
}

/// The order of findings: the oldest first, those without an age (contradictions) last.
type Order<'f> = (bool, Option<&'f str>, FindingKind, &'f str);

fn order(finding: &Finding) -> Order<'_> {
    (finding.since.is_none(), finding.since.as_deref(), finding.kind, &finding.id)
}

/// The first findings of a limit. They are known by their numbers, in the order in which they are made.
struct First {
    limit: usize,
    made: usize,
    keys: BTreeSet<(bool, Option<String>, FindingKind, String, usize)>,
}

impl First {
    fn new(limit: usize) -> Self {
        Self { limit, made: 0, keys: BTreeSet::new() }
    }

    fn note(&mut self, finding: &Finding) {
        let (has_no_age, since, kind, id) = order(finding);
        self.keys.insert((has_no_age, since.map(str::to_owned), kind, id.to_owned(), self.made));
        self.made += 1;
        if self.keys.len() > self.limit {
            self.keys.pop_last();
        }
    }

    /// Their repaired backups.
    fn repaired(&self, made: &Made) -> BTreeSet<String> {
        let backups = self.keys.iter().filter(|(_, _, kind, ..)| *kind == FindingKind::Backup);
        backups.filter(|(_, _, _, id, _)| made.is_repaired(id)).map(|(_, _, _, id, _)| id.clone()).collect()
    }
}

/// What the findings of a scan are made from.
pub(super) struct Basis<'a> {
    pub(super) census: &'a Census,
    pub(super) pending: &'a Pending,
    pub(super) situation: &'a Situation,
    pub(super) request: ScanRequest<'a>,
    /// The driver of the host that backups are moved to.
    pub(super) new_service: Option<String>,
}

impl Basis<'_> {
    /// Makes all findings. `only`: see [`ScanRequest::only`].
    fn make(
        &self,
        reader: &mut Reader<'_>,
        only: Option<&BTreeSet<String>>,
        sink: &mut dyn FnMut(Finding) -> Result<(), ScanError>,
    ) -> Result<Made, ScanError> {
        let request = ScanRequest { only, ..self.request };
        let basis = Basis { request, new_service: self.new_service.clone(), ..*self };
        Findings::new(&basis, sink).all(reader)
    }

    /// Passes each finding and notice on as it is made.
    fn stream(&self, reader: &mut Reader<'_>, output: &mut dyn ScanOutput) -> Result<Found, ScanError> {
        let found = self.stream_findings(reader, output)?;
        for notice in self.clocks().into_iter().chain(self.quotas()).chain(self.hosts()) {
            output.add(ScanRecord::Notice(notice))?;
        }
        Ok(found)
    }

    /// With a limit, all findings are made once more, so that only the keys of the first are in memory.
    fn stream_findings(&self, reader: &mut Reader<'_>, output: &mut dyn ScanOutput) -> Result<Found, ScanError> {
        let Some(limit) = self.request.selection.limit else {
            let made = self.make(reader, self.request.only, &mut |finding| output.add(ScanRecord::Finding(Box::new(finding))))?;
            return Ok(Found { summary: made.summary, left_out: 0, has_dependent_proposals: made.has_dependent_proposals() });
        };
        let look = |reader: &mut Reader<'_>, only| -> Result<(Made, First), ScanError> {
            let mut first = First::new(limit);
            let made = self.make(reader, only, &mut |finding| {
                first.note(&finding);
                Ok(())
            })?;
            Ok((made, first))
        };
        let (made, mut first) = look(reader, self.request.only)?;
        let (summary, left_out) = (made.summary, first.made.saturating_sub(limit));
        let within = first.repaired(&made);
        let mut only = self.request.only;
        // Some proposals depend on backups that the limit leaves for another time.
        if left_out > 0 && made.has_dependent_proposals() && within.len() < made.repaired() {
            only = Some(&within);
            first = look(reader, only)?.1;
        }
        let wanted: BTreeSet<usize> = first.keys.into_iter().map(|(.., number)| number).collect();
        let mut number = 0..;
        let made = self.make(reader, only, &mut |finding| {
            let is_wanted = number.next().is_some_and(|number: usize| wanted.contains(&number));
            if is_wanted { output.add(ScanRecord::Finding(Box::new(finding))) } else { Ok(()) }
        })?;
        Ok(Found { summary, left_out, has_dependent_proposals: made.has_dependent_proposals() })
    }

    fn clocks(&self) -> Vec<Notice> {
        let tolerance = self.request.policy.thresholds.service_down_time_seconds;
        self.situation
            .services
            .clocks_ahead(self.situation.now, tolerance)
            .into_iter()
            .map(|(host, seconds)| Notice {
                code: NoticeCode::ClockAhead.into(),
                text: format!(
                    "the clock of host {host} is {} ahead of the database's: its heartbeat proves nothing; correct its clock",
                    human(seconds)
                ),
                follow_up: Vec::new(),
            })
            .collect()
    }

    /// Backups at rest on hosts that were retired; nothing if no host could take them, if they are findings, or if only some rows of a host
    /// are selected.
    fn hosts(&self) -> Option<Notice> {
        let selected = self.request.selection;
        if !(Selection { hosts: BTreeSet::new(), ..selected.clone() }).is_all() {
            return None;
        }
        let Situation { now, services, .. } = self.situation;
        let thresholds = &self.request.policy.thresholds;
        let is_retired = |host: &str| match services.heartbeat(host, *now, services.down_time(host, thresholds)) {
            Heartbeat::Missing | Heartbeat::Down { silent: None } => true,
            Heartbeat::Down { silent: Some(silent) } => silent >= RETIRED_AFTER,
            Heartbeat::Up { .. } | Heartbeat::Unreadable => false,
        };
        let takes = |host: &str| (selected.hosts.is_empty() || selected.hosts.contains(host)) && !host.trim().is_empty();
        let retired = self.census.hosts.iter().filter(|(host, number)| **number > 0 && takes(host) && is_retired(host));
        let retired: BTreeMap<&str, u64> = retired.map(|(host, number)| (host.as_str(), *number)).collect();
        let new = services.hosts().filter(|host| services.is_up(host, *now, thresholds) && !services.is_disabled(host)).min()?;
        let first = retired.keys().next().filter(|_| self.request.policy.rehost.is_none())?;
        let (number, names) = (count(retired.values().sum::<u64>(), "live backup"), list(&retired.keys().copied().collect()));
        Some(Notice {
            code: NoticeCode::HostsRetired.into(),
            text: format!(
                "hosts without a living cinder-backup ({names}) still have {number}: with backup_use_same_host, Cinder finds no service to restore or delete \
                 a backup there"
            ),
            follow_up: vec![format!("cinder-backup-repair repair --dry-run --rehost {} --host {}", shell_word(new), shell_word(first))],
        })
    }

    /// Wrong quota usages that are not findings; see [`Findings::quotas`].
    fn quotas(&self) -> impl Iterator<Item = Notice> {
        let quotas = self.pending.quotas.iter().filter(|_| !self.request.policy.fix_quotas);
        quotas.filter_map(|(project, usages)| {
            let case = quota_case(project, usages.clone(), None, self.census, None);
            let finding = decide::quota(&case, self.situation).filter(|_| !case.is_contradictory());
            let Finding { evidence, follow_up, .. } = finding?;
            let text = evidence.into_iter().map(|evidence| evidence.text).collect::<Vec<_>>().join("; ");
            Some(Notice { code: NoticeCode::QuotaWrong.into(), text, follow_up })
        })
    }
}
