//! Tests of [`super`].

use super::*;
use crate::domain::{
    Checks, ColumnSet, DatabaseInfo, EvidenceCode, FindingKind, Image, Proposal, Selection, Services, Table, Thresholds, Verdict,
};
use crate::plan::{Basis, Purpose};
use crate::spool::Spool;

const HOSTILE: &str = "n|x\\|`</code><img src=x>\n# heading\u{1b}[2J\u{202e}";

fn change(table: Table, id: &str, column: &str, from: impl Into<Value>, to: impl Into<Value>) -> Change {
    Change { table, id: id.into(), column: column.into(), from: from.into(), to: to.into() }
}

fn image(table: Table, id: &str, columns: &[(&str, Value)]) -> Image {
    let columns = columns.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    Image { table, id: id.into(), columns }
}

fn finding(id: &str, name: &str, verdict: Verdict) -> Finding {
    Finding {
        kind: FindingKind::Backup,
        id: id.into(),
        name: Some(name.into()),
        status: Some("creating".into()),
        host: None,
        service: None,
        project_id: None,
        volume_id: None,
        since: None,
        age_seconds: Some(60),
        verdict,
        evidence: vec![Evidence::new(EvidenceCode::ServiceUp, "cinder-backup on ctl2 beats")],
        proposal: Some(Proposal { status: None, needs: Vec::new(), changes: Vec::new() }),
        refusal: Some("use --assume-dead ctl2 if it is dead".into()),
        follow_up: vec!["openstack volume backup show '```'".into()],
        rows: Vec::new(),
    }
}

fn report(name: &str, policy: &Policy) -> String {
    let unit = Unit {
        number: 1,
        kind: FindingKind::Backup,
        id: "b1".into(),
        name: Some(name.into()),
        status: Some("creating".into()),
        host: Some("ctl1".into()),
        counter: false,
        verdict: Verdict::Stuck,
        evidence: vec![Evidence::new(EvidenceCode::ServiceDown, "cinder-backup on ctl1 last beat 2 h ago")],
        before: vec![
            image(Table::Backups, "b1", &[("status", "creating".into()), ("fail_reason", Value::Null), ("size", 1.into())]),
            image(Table::Volumes, "v1", &[("status", "backing-up".into())]),
        ],
        changes: vec![
            change(Table::Backups, "b1", "fail_reason", Value::Null, name),
            change(Table::Backups, "b1", "status", "creating", "error"),
            change(Table::Volumes, "v1", "status", "backing-up", "available"),
        ],
        follow_up: vec!["openstack volume backup delete b1".into()],
    };
    let basis = Basis {
        id: "11111111-1111-4111-8111-111111111111".into(),
        taken_at: "2026-11-22T18:46:33Z".into(),
        database: DatabaseInfo {
            engine: "mariadb".into(),
            version: "10.11.19".into(),
            release: "2024.1 or later".into(),
            identity: "server-uuid/cinder".into(),
            location: Some("mysql://cinder@db1:3306/cinder".into()),
        },
        columns: ColumnSet::Mitaka,
        policy: policy.clone(),
        selection: Selection::default(),
        services: Services::default(),
        checks: Checks::new(),
    };
    let (uncertain, recent) = (finding("b2", name, Verdict::Uncertain), finding("b3", "", Verdict::Recent));
    let plan = Plan { sha256: "ab12".into(), ..Plan::of_units(Purpose::Repair, None, basis, Spool::of([unit]).unwrap()).unwrap() };
    let view = PlanView {
        plan: &plan,
        author: Some("root@ctl1"),
        reason: Some(name),
        ticket: None,
        follow_up: &|unit| unit.follow_up.clone(),
        skipped: &Spool::of([uncertain, recent]).unwrap(),
        commands: vec![
            ("Apply", vec!["cinder-backup-repair apply plan.json".into()]),
            ("Undo", vec!["cinder-backup-repair undo RUN".into()]),
        ],
    };
    let mut out = Vec::new();
    plan_report(&mut out, &view).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn a_report_says_everything_that_a_reviewer_needs() {
    let policy = Policy {
        thresholds: Thresholds::default(),
        assume_dead: AssumeDead::Hosts(["ctl1".to_owned()].into()),
        to: Some("error".into()),
        ..Policy::default()
    };
    insta::assert_snapshot!(report("nightly", &policy), @r#"
    # Repair of Cinder volume backups

    2 rows in 1 unit. Each unit is changed completely or not at all.
    2 cases found and skipped, see below.
    Writing this report has changed nothing.

    | | |
    |---|---|
    | Plan | `11111111-1111-4111-8111-111111111111` |
    | SHA-256 | `ab12` |
    | Made by | `root@ctl1` |
    | Reason | nightly |
    | Rows read at | 2026-11-22T18:46:33Z (the database's clock) |
    | Database | mariadb 10.11.19, Cinder 2024.1 or later |
    | Reached at | `mysql://cinder@db1:3306/cinder` |
    | Identity | `server-uuid/cinder` |
    | Program | cinder-backup-repair 0.1.0 |

    ## Rules in force

    - Rows younger than 3600 s are skipped (`--older-than`).
    - A service is down when its last heartbeat is older than 60 s (`service_down_time`).
    - **Safety flag `--assume-dead`**: the operator states that cinder-backup is dead on `ctl1`.
    - From any status but `restoring`, a backup becomes `available` only when a deep check verified its data on the storage.
    - Backups become `error` (`--to`).

    ## What would be changed

    | Unit | Kind | ID | Name | Change | Host | Why |
    |---:|---|---|---|---|---|---|
    | 1 | backup | `b1` | `nightly` | `creating` → `error` | `ctl1` | cinder-backup on ctl1 last beat 2 h ago |

    ### Unit 1: backup `b1`

    - cinder-backup on ctl1 last beat 2 h ago (`service-down`)

    | Table | Row | Column | From | To |
    |---|---|---|---|---|
    | backups | `b1` | `fail_reason` | NULL | `nightly` |
    | backups | `b1` | `status` | `creating` | `error` |
    | volumes | `v1` | `status` | `backing-up` | `available` |

    `updated_at` of each row also becomes the database's time. The unit is applied only if every row is still as follows:

    - backups `b1`: `fail_reason` = NULL, `size` = 1, `status` = `creating`
    - volumes `v1`: `status` = `backing-up`

    To run once the API is back:

    ```sh
    openstack volume backup delete b1
    ```

    ## What is skipped, and why

    | Verdict | Kind | ID | Name | Status | Host | Why |
    |---|---|---|---|---|---|---|
    | uncertain | backup | `b2` | `nightly` | `creating` | – | use --assume-dead ctl2 if it is dead; cinder-backup on ctl2 beats |
    | recent | backup | `b3` |  | `creating` | – | use --assume-dead ctl2 if it is dead; cinder-backup on ctl2 beats |

    For these, once the API is back:

    ````sh
    openstack volume backup show '```'
    ````

    ## Apply

    ```sh
    cinder-backup-repair apply plan.json
    ```

    ## Undo

    ```sh
    cinder-backup-repair undo RUN
    ```
    "#);
}

#[test]
fn flags_that_override_safety_are_named() {
    let policy = Policy { assume_dead: AssumeDead::All, allow_unverified: true, fix_counters: true, ..Policy::default() };
    let text = report("nightly", &policy);
    for expected in
        ["**Safety flag `--assume-dead all`**", "**Safety flag `--allow-unverified`**", "counters of dependent backups are corrected"]
    {
        assert!(text.contains(expected), "{expected}");
    }
    assert!(!report("nightly", &Policy::default()).contains("Safety flag"));
}

#[test]
fn hostile_text_does_not_change_the_structure() {
    let (plain, hostile) = (report("nightly", &Policy::default()), report(HOSTILE, &Policy::default()));
    let shape =
        |text: &str| -> Vec<(usize, bool)> { text.lines().map(|line| (line.matches('|').count(), line.starts_with('#'))).collect() };
    assert_eq!(shape(&plain), shape(&hostile));
    assert!(!hostile.contains(['<', '\u{1b}', '\u{202e}']), "{hostile}");
    // Backticks in a command make the fence longer.
    assert!(hostile.contains("\n````sh\nopenstack volume backup show '```'\n"), "{hostile}");
}
