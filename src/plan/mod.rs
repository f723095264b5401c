//! The plan: the changes to make, and what they are based on, as a sealed document.
//!
//! Pure: from findings to a document and back. May use `domain` only.

mod validate;

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

use crate::domain::text::json_escaped;
use crate::domain::{
    Body, Change, CheckResult, Checks, ColumnSet, DatabaseInfo, Evidence, EvidenceCode, Finding, FindingKind, Image, Policy, Sealed,
    Selection, Services, Verdict,
};

/// What a plan is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// To repair what a scan found.
    Repair,
    /// To undo a run.
    Undo,
}

/// A backup, volume or snapshot with all rows that must change with it: one transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unit {
    /// Its number, from 1.
    pub number: usize,
    /// The kind of the main row.
    pub kind: FindingKind,
    /// The main row's id.
    pub id: String,
    /// Its name; hostile text.
    pub name: Option<String>,
    /// Its status when the plan was made.
    pub status: Option<String>,
    /// The host of its cinder-backup.
    pub host: Option<String>,
    /// Only the counter changes.
    pub counter: bool,
    /// `stuck` or, for a counter, `inconsistent`.
    pub verdict: Verdict,
    /// The reasons for the verdict.
    pub evidence: Vec<Evidence>,
    /// The pre-images of the rows to change.
    pub before: Vec<Image>,
    /// The changes, in the order in which rows are locked.
    pub changes: Vec<Change>,
    /// Commands for the operator, once the API is back.
    pub follow_up: Vec<String>,
}

impl Unit {
    /// The main row as planned.
    pub fn main_image(&self) -> Option<&Image> {
        Image::of(&self.before, self.kind.table(), &self.id)
    }

    /// Whether it makes a backup available although no data was read.
    pub fn is_accepted_quick(&self) -> bool {
        self.evidence.iter().any(|evidence| evidence.code == EvidenceCode::AcceptedQuick)
    }
}

/// What a plan is based on.
#[derive(Debug, Clone)]
pub struct Basis {
    /// A UUID of its own.
    pub id: String,
    /// The database's clock when the rows were read, RFC 3339.
    pub taken_at: String,
    /// The database.
    pub database: DatabaseInfo,
    /// The columns that it has.
    pub columns: ColumnSet,
    /// The options.
    pub policy: Policy,
    /// The selected rows.
    pub selection: Selection,
    /// The heartbeats.
    pub services: Services,
    /// The checks of the storage.
    pub checks: Checks,
}

/// The document `cinder-backup-repair/plan`.
pub type Plan = Sealed<PlanBody>;

/// The fields of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanBody {
    /// A UUID: a plan is applied once.
    pub id: String,
    /// Repair or undo.
    pub purpose: Purpose,
    /// The run that it undoes, if it is for that.
    pub undoes: Option<String>,
    /// The database's clock when the rows were read, RFC 3339.
    pub taken_at: String,
    /// Name and version of the program that made it.
    pub program: String,
    /// The database that it is for.
    pub database: DatabaseInfo,
    /// The columns that the images have.
    pub columns: ColumnSet,
    /// The options, with the safety flags. `apply` decides by the same ones.
    pub policy: Policy,
    /// The selected rows.
    pub selection: Selection,
    /// The last heartbeat of each host that a unit names, RFC 3339.
    pub heartbeats: BTreeMap<String, Option<String>>,
    /// Results of the checks that the decisions depend on, in the order of their backups' ids.
    pub checks: Vec<CheckResult>,
    /// The units, in the order in which they are applied.
    pub units: Vec<Unit>,
}

impl Body for PlanBody {
    const SCHEMA: &'static str = "cinder-backup-repair/plan";
    const SCHEMA_VERSION: u32 = 1;
    const KIND: &'static str = "a plan of this program";
    const INSTEAD: &'static str = "make a new plan instead of editing one";

    fn validate(&self) -> Result<(), String> {
        self.check()
    }
}

impl Plan {
    /// Plans the repair of all findings that can be repaired. `basis.id` is a new UUID.
    pub fn propose(findings: &[Finding], images: &BTreeMap<(FindingKind, String, bool), Vec<Image>>, basis: Basis) -> Self {
        let mut findings: Vec<&Finding> = findings.iter().filter(|finding| finding.is_actionable()).collect();
        // Backups before the volumes that they explain, and by id, so that every run takes locks in the same order.
        findings.sort_by(|a, b| (a.kind, &a.id, a.verdict).cmp(&(b.kind, &b.id, b.verdict)));
        let units = findings
            .into_iter()
            .enumerate()
            .map(|(index, finding)| {
                let counter = finding.kind == FindingKind::Backup && finding.verdict == Verdict::Inconsistent;
                Unit {
                    number: index + 1,
                    kind: finding.kind,
                    id: finding.id.clone(),
                    name: finding.name.clone(),
                    status: finding.status.clone(),
                    host: finding.host.clone(),
                    counter,
                    verdict: finding.verdict,
                    evidence: finding.evidence.clone(),
                    before: images.get(&(finding.kind, finding.id.clone(), counter)).cloned().unwrap_or_default(),
                    changes: finding.proposal.as_ref().map(|proposal| proposal.changes.clone()).unwrap_or_default(),
                    follow_up: finding.follow_up.clone(),
                }
            })
            .collect();
        Self::of_units(Purpose::Repair, None, basis, units)
    }

    /// Seals a plan with these units.
    pub fn of_units(purpose: Purpose, undoes: Option<String>, basis: Basis, units: Vec<Unit>) -> Self {
        let Basis { id, taken_at, database, columns, policy, selection, services, mut checks } = basis;
        let hosts = units.iter().filter_map(|unit| unit.host.clone());
        let heartbeats = hosts.map(|host| (host.clone(), services.last_beat(&host))).collect();
        let about_backups = units.iter().filter(|unit| unit.kind == FindingKind::Backup && !unit.counter);
        let mut checks: Vec<CheckResult> = about_backups.filter_map(|unit| checks.remove(&unit.id)).collect();
        checks.sort_by(|a, b| a.id.cmp(&b.id));
        Self::new(PlanBody {
            id,
            purpose,
            undoes,
            taken_at,
            program: program(),
            database,
            columns,
            policy,
            selection,
            heartbeats,
            checks,
            units,
        })
    }

    /// The check of the backup that a unit is about.
    pub fn check_of(&self, unit: &Unit) -> Option<&CheckResult> {
        let about = unit.kind == FindingKind::Backup && !unit.counter;
        let found = self.checks.binary_search_by(|check| check.id.cmp(&unit.id)).ok().filter(|_| about);
        found.and_then(|place| self.checks.get(place))
    }

    /// Keeps only the units with these numbers, which stay the same, and seals the plan again.
    pub fn keep(&mut self, numbers: &BTreeSet<usize>) {
        self.units.retain(|unit| numbers.contains(&unit.number));
        self.seal();
    }

    /// Removes units, numbers the others again, and seals the plan again.
    pub fn leave_out(&mut self, numbers: &BTreeSet<usize>) {
        self.units.retain(|unit| !numbers.contains(&unit.number));
        for (index, unit) in self.units.iter_mut().enumerate() {
            unit.number = index + 1;
        }
        self.seal();
    }

    /// The plan as a file holds it: indented JSON with a line feed at the end.
    pub fn to_json(&self) -> String {
        // Only maps with keys that are not strings cannot be written as JSON, and a plan has none.
        let json = serde_json::to_string_pretty(self).unwrap_or_default();
        json_escaped(&json).into_owned() + "\n"
    }

    /// The number of rows that it changes. A parent whose counter several units change is one row.
    pub fn rows(&self) -> usize {
        let rows = self.units.iter().flat_map(|unit| &unit.before).map(|image| (image.table, image.id.as_str()));
        rows.collect::<BTreeSet<_>>().len()
    }
}

/// Name and version of this program.
pub fn program() -> String {
    format!("{} {}", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::domain::{Backup, SealError, Table};

    fn plan() -> Plan {
        let change =
            Change { table: Table::Backups, id: "b1".into(), column: "status".into(), from: "creating".into(), to: "error".into() };
        let before = Backup { id: "b1".into(), status: Some("creating".into()), ..Backup::default() }.image(ColumnSet::Mitaka);
        Plan::new(PlanBody {
            id: "11111111-1111-4111-8111-111111111111".into(),
            purpose: Purpose::Repair,
            undoes: None,
            taken_at: "2026-11-22T18:46:33Z".into(),
            program: program(),
            database: DatabaseInfo {
                engine: "sqlite".into(),
                version: "3".into(),
                release: "r".into(),
                identity: "i".into(),
                location: None,
            },
            columns: ColumnSet::Mitaka,
            policy: Policy::default(),
            selection: Selection::default(),
            heartbeats: BTreeMap::new(),
            checks: Vec::new(),
            units: vec![Unit {
                number: 1,
                kind: FindingKind::Backup,
                id: "b1".into(),
                name: Some("\u{1b}[2J\"=cmd()".into()),
                status: Some("creating".into()),
                host: None,
                counter: false,
                verdict: Verdict::Stuck,
                evidence: vec![Evidence::new(EvidenceCode::NeverScheduled, "x")],
                before: vec![before],
                changes: vec![change],
                follow_up: Vec::new(),
            }],
        })
    }

    #[test]
    fn a_plan_is_read_as_it_was_written() {
        let plan = plan();
        assert_eq!(Plan::parse(plan.to_json().as_bytes()), Ok(plan.clone()));
        // Another program may change the layout.
        let compact = serde_json::to_vec(&plan).unwrap();
        assert_eq!(Plan::parse(&compact), Ok(plan));
    }

    #[test]
    fn a_plan_of_version_0_1_is_read_and_written_as_it_was() {
        let text = include_str!("../../tests/fixtures/plan-0.1.json");
        let plan = Plan::parse(text.as_bytes()).unwrap();
        assert!(plan.signature.is_some() && plan.to_json() == text);
    }

    #[test]
    fn a_code_of_another_version_is_kept() {
        let mut plan = plan();
        plan.units[0].evidence[0] = serde_json::from_str(r#"{"code":"moonlight","text":"x"}"#).unwrap();
        plan.seal();
        let read = Plan::parse(plan.to_json().as_bytes()).unwrap();
        assert_eq!(read, plan);
        let code = &read.units[0].evidence[0].code;
        assert_eq!((code.as_str(), code.known()), ("moonlight", None));
    }

    #[test]
    fn a_row_that_two_units_change_is_one_row() {
        let mut plan = plan();
        let parent = Backup { id: "p".into(), ..Backup::default() }.image(ColumnSet::Mitaka);
        let mut second = plan.units[0].clone();
        second.before[0].id = "b2".into();
        plan.units.push(second);
        for unit in &mut plan.units {
            unit.before.push(parent.clone());
        }
        assert_eq!(plan.rows(), 3);
    }

    #[test]
    fn every_edit_is_noticed() {
        let text = plan().to_json();
        for (from, to) in [
            ("\"error\"", "\"available\""),
            ("\"b1\"", "\"b2\""),
            ("\"number\": 1", "\"number\": 2"),
            ("\"all\"", "\"none\""),
            ("\"allow_unverified\": false", "\"allow_unverified\": true"),
            ("\"counter\": false", "\"counter\": true"),
        ] {
            let edited = text.replacen(from, to, 1);
            if edited != text {
                assert_eq!(Plan::parse(edited.as_bytes()), Err(SealError::Edited(PlanBody::INSTEAD)), "{from}");
            }
        }
    }

    #[test]
    fn another_document_is_not_a_plan() {
        let text = plan().to_json();
        assert!(matches!(Plan::parse(b"{}"), Err(SealError::Invalid { .. })));
        assert!(matches!(Plan::parse(b"\xff"), Err(SealError::Invalid { .. })));
        assert!(matches!(Plan::parse(&text.as_bytes()[..text.len() / 2]), Err(SealError::Invalid { .. })));
        assert!(matches!(Plan::parse(text.replacen("\"units\"", "\"more\": 1, \"units\"", 1).as_bytes()), Err(SealError::Invalid { .. })));
        assert!(matches!(Plan::parse(text.replacen('{', "{\"sha256\": \"\",", 1).as_bytes()), Err(SealError::Invalid { .. })), "twice");
        assert_eq!(Plan::parse(text.replacen("\"schema_version\": 1", "\"schema_version\": 2", 1).as_bytes()), Err(SealError::Newer(2)));
    }
}
