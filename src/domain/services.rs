//! The heartbeats of cinder-backup, by host.

use std::collections::HashMap;

use super::Thresholds;
use super::time::{is_unreadable, parse, seconds_between};
use jiff::civil::DateTime;

/// A row of `services` with binary `cinder-backup`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceRow {
    pub host: String,
    /// The last heartbeat, naive UTC by the clock of that host; NULL before the first.
    pub updated_at: Option<String>,
    /// When the row was made. For a service that has just started, this counts as its first heartbeat.
    pub created_at: Option<String>,
    /// The number of heartbeats since the row was made; `None` if the table has no such column.
    pub report_count: Option<i64>,
    /// The zone whose backups Cinder sends to it.
    pub availability_zone: Option<String>,
    /// An operator disabled it, so Cinder sends it no work.
    pub disabled: bool,
    /// The row was removed (`cinder-manage service remove`).
    pub deleted: bool,
}

/// The state of a service by its heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heartbeat {
    /// The host has no row, or only deleted ones whose last heartbeat is older than `service_down_time`.
    Missing,
    /// The last heartbeat is older than `service_down_time`.
    Down {
        /// Seconds since the last heartbeat; `None` if there was none.
        silent: Option<i64>,
    },
    /// The last heartbeat is recent.
    Up {
        /// Seconds since the last heartbeat; negative if the host's clock is ahead of the database's.
        silent: i64,
    },
    /// The last heartbeat cannot be read, so the service may be up or down.
    Unreadable,
}

/// The rows of one host, summed up.
#[derive(Debug, Clone, Default)]
struct Beat {
    /// The host as its row spells it.
    host: String,
    latest: Option<DateTime>,
    unreadable: bool,
    /// There is a row that is not deleted.
    has_row: bool,
    /// The average number of seconds between two heartbeats, by the row with the latest one.
    interval: Option<i64>,
    /// Of the row with the latest heartbeat that is not deleted.
    zone: Option<String>,
    disabled: bool,
}

/// The heartbeats of all hosts.
#[derive(Debug, Clone, Default)]
pub struct Services {
    beats: HashMap<String, Beat>,
}

impl Services {
    /// Reads rows of `services`. The latest heartbeat of a host counts. A deleted row is not a service, but its last heartbeat counts: a
    /// cinder-backup whose row was removed keeps working, and makes its row again at its next heartbeat.
    ///
    /// Source: `cinder/service.py` (`report_state`).
    pub fn new(rows: &[ServiceRow]) -> Self {
        let mut beats: HashMap<String, Beat> = HashMap::new();
        for row in rows {
            let text = row.updated_at.as_deref().or(row.created_at.as_deref());
            let host = || host_part(&row.host).to_owned();
            let beat = beats.entry(key(&row.host)).or_insert_with(|| Beat { host: host(), ..Beat::default() });
            let time = text.and_then(parse);
            if time >= beat.latest {
                (beat.latest, beat.interval) = (time, average_interval(row));
            }
            beat.unreadable |= is_unreadable(text);
            if !row.deleted && (!beat.has_row || time >= beat.latest) {
                (beat.zone, beat.disabled) = (row.availability_zone.clone(), row.disabled);
            }
            beat.has_row |= !row.deleted;
        }
        Self { beats }
    }

    /// The state of the service on `host` at `now` (the database's clock). A heartbeat from the future counts as recent: a clock that is
    /// ahead must not make a working service look down.
    pub fn heartbeat(&self, host: &str, now: DateTime, service_down_time: i64) -> Heartbeat {
        self.beats.get(&key(host)).map_or(Heartbeat::Missing, |beat| beat.at(now, service_down_time))
    }

    /// The number of seconds without a heartbeat after which the cinder-backup of `host` counts as down. If the interval is not configured, a service
    /// whose heartbeats are further apart than Cinder's default gets two and a half of its own intervals, as Cinder itself would give it.
    pub fn down_time(&self, host: &str, thresholds: &Thresholds) -> i64 {
        let own = self.interval(host).filter(|_| thresholds.down_time_is_assumed).map_or(0, |interval| interval * 5 / 2);
        thresholds.service_down_time_seconds.max(own)
    }

    /// Whether the cinder-backup of `host` sends heartbeats.
    pub fn is_up(&self, host: &str, now: DateTime, thresholds: &Thresholds) -> bool {
        matches!(self.heartbeat(host, now, self.down_time(host, thresholds)), Heartbeat::Up { .. })
    }

    /// The average number of seconds between two heartbeats of `host`, at most [`LONGEST_INTERVAL`].
    pub fn interval(&self, host: &str) -> Option<i64> {
        self.beats.get(&key(host))?.interval
    }

    /// The last heartbeat of `host` by its own clock, RFC 3339.
    pub fn last_beat(&self, host: &str) -> Option<String> {
        self.beats.get(&key(host))?.latest.map(super::time::rfc3339)
    }

    /// The latest heartbeat of any host, RFC 3339.
    pub fn newest_beat(&self) -> Option<String> {
        self.beats.values().filter_map(|beat| beat.latest).max().map(super::time::rfc3339)
    }

    /// Whether a host has a live row, whatever its heartbeat.
    pub fn knows(&self, host: &str) -> bool {
        self.beats.get(&key(host)).is_some_and(|beat| beat.has_row)
    }

    /// The zone of a host that has a live row.
    pub fn zone(&self, host: &str) -> Option<&str> {
        self.beats.get(&key(host))?.zone.as_deref()
    }

    /// Whether an operator disabled the service on `host`.
    pub fn is_disabled(&self, host: &str) -> bool {
        self.beats.get(&key(host)).is_some_and(|beat| beat.disabled)
    }

    /// The hosts that have a live row, as it spells them.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.beats.values().filter(|beat| beat.has_row).map(|beat| beat.host.as_str())
    }

    /// Hosts whose last heartbeat is more than `tolerance` seconds in the future, and how many seconds it is, by name.
    pub fn clocks_ahead(&self, now: DateTime, tolerance: i64) -> Vec<(String, i64)> {
        let mut ahead: Vec<(String, i64)> = self
            .beats
            .values()
            .filter_map(|beat| Some((beat.host.clone(), -seconds_between(beat.latest?, now))))
            .filter(|(_, seconds)| *seconds > tolerance)
            .collect();
        ahead.sort();
        ahead
    }
}

impl Beat {
    fn at(&self, now: DateTime, service_down_time: i64) -> Heartbeat {
        let silent = self.latest.map(|beat| seconds_between(beat, now));
        match silent {
            Some(silent) if silent <= service_down_time => Heartbeat::Up { silent },
            _ if self.unreadable => Heartbeat::Unreadable,
            silent if self.has_row => Heartbeat::Down { silent },
            _ => Heartbeat::Missing,
        }
    }
}

/// The longest `report_interval` that is assumed, in seconds. Downtime makes a row's average larger than its interval, and a service
/// that was down for a week must not count as alive for long.
pub const LONGEST_INTERVAL: i64 = 600;

/// Seconds between two heartbeats on average since a row was made, rounded up. A row that is made again has its first heartbeat at once.
/// With fewer than two heartbeats, or if a clock was set back, the interval is not known and the longest counts.
fn average_interval(row: &ServiceRow) -> Option<i64> {
    let intervals = row.report_count?.saturating_sub(1);
    let (made, beat) = (row.created_at.as_deref().and_then(parse), row.updated_at.as_deref().and_then(parse));
    let span = made.zip(beat).map(|(made, beat)| seconds_between(made, beat)).filter(|span| intervals > 0 && *span > 0);
    // Rounded up without an overflow: a time span is far from the limits of the type, but a count may not be.
    Some(span.map_or(LONGEST_INTERVAL, |span| (span - 1) / intervals + 1).min(LONGEST_INTERVAL))
}

/// The databases that most clouds use ignore case and trailing blanks when they compare host names, and so does a cinder-backup that looks
/// for its rows there. Two spellings are one host; otherwise a working host would look retired.
fn key(host: &str) -> String {
    host_part(host).trim().to_lowercase()
}

/// Whether two spellings name one host.
pub fn is_same_host(one: &str, other: &str) -> bool {
    key(one) == key(other)
}

/// `ctl1` for `ctl1`, `ctl1@ceph` or `ctl1@ceph#pool`, as Cinder's `extract_host` does at level `host`.
pub fn host_part(host: &str) -> &str {
    host.split(['@', '#']).next().unwrap_or(host)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn at(time: &str) -> DateTime {
        parse(time).unwrap()
    }

    fn row(host: &str, beat: Option<&str>) -> ServiceRow {
        ServiceRow { host: host.into(), updated_at: beat.map(Into::into), ..ServiceRow::default() }
    }

    #[test]
    fn a_heartbeat_is_judged_against_the_database_clock() {
        let services = Services::new(&[
            row("up", Some("2026-11-22 11:59:00")),
            row("down", Some("2026-11-22 11:58:59")),
            row("ahead", Some("2026-11-22 12:05:00")),
            row("never", None),
            ServiceRow { deleted: true, ..row("gone", Some("2026-11-22 11:58:59")) },
            ServiceRow { deleted: true, ..row("removed", Some("2026-11-22 11:59:57")) },
            ServiceRow { deleted: true, ..row("moved", Some("2026-11-22 11:59:57")) },
            row("moved", Some("2026-11-22 11:00:00")),
        ]);
        let now = at("2026-11-22 12:00:00");
        let of = |host: &str| services.heartbeat(host, now, 60);
        assert_eq!(of("up"), Heartbeat::Up { silent: 60 });
        assert_eq!(of("up@ceph#pool"), Heartbeat::Up { silent: 60 });
        assert_eq!(of("down"), Heartbeat::Down { silent: Some(61) });
        assert_eq!(of("ahead"), Heartbeat::Up { silent: -300 });
        assert_eq!(of("never"), Heartbeat::Down { silent: None });
        assert_eq!(of("gone"), Heartbeat::Missing);
        assert_eq!(of("removed"), Heartbeat::Up { silent: 3 }, "a removed row does not stop a service");
        assert_eq!(of("moved"), Heartbeat::Up { silent: 3 });
        assert_eq!(services.last_beat("gone").as_deref(), Some("2026-11-22T11:58:59.000000Z"));
        assert_eq!((services.knows("gone"), services.knows("moved"), services.hosts().count()), (false, true, 5));
        assert_eq!(of("unheard"), Heartbeat::Missing);
        assert_eq!(services.clocks_ahead(now, 60), [("ahead".to_owned(), 300)]);
    }

    #[test]
    fn another_spelling_is_the_same_host() {
        let services = Services::new(&[row("Ctl1", Some("2026-11-22 11:59:50")), row("ctl2@ceph", Some("2026-11-22 11:59:50"))]);
        let now = at("2026-11-22 12:00:00");
        for host in ["Ctl1", "ctl1", "CTL1", "ctl1 ", "ctl1@lvm", "ctl2", "ctl2@ceph#pool"] {
            assert_eq!(services.heartbeat(host, now, 60), Heartbeat::Up { silent: 10 }, "{host}");
            assert!(services.knows(host), "{host}");
            assert_eq!(is_same_host(host, "ctl1"), !host.starts_with("ctl2"), "{host}");
        }
        assert_eq!(services.heartbeat("ctl1.example.org", now, 60), Heartbeat::Missing);
    }

    #[test]
    fn an_unreadable_heartbeat_does_not_make_a_service_down() {
        let now = at("2026-11-22 12:00:00");
        let beat = |rows: &[ServiceRow]| Services::new(rows).heartbeat("ctl1", now, 60);
        assert_eq!(beat(&[row("ctl1", Some("just now"))]), Heartbeat::Unreadable);
        assert_eq!(beat(&[row("ctl1", Some("just now")), row("ctl1", Some("2026-11-22 11:00:00"))]), Heartbeat::Unreadable);
        assert_eq!(beat(&[row("ctl1", Some("just now")), row("ctl1", Some("2026-11-22 11:59:50"))]), Heartbeat::Up { silent: 10 });
        assert_eq!(beat(&[row("ctl1", Some("0000-00-00 00:00:00"))]), Heartbeat::Down { silent: None });
    }

    #[test]
    fn without_configuration_a_service_with_rare_heartbeats_gets_longer() {
        let made = "2026-11-22 00:00:00";
        let counted =
            |host: &str, beat: &str, count| ServiceRow { created_at: Some(made.into()), report_count: count, ..row(host, Some(beat)) };
        let services = Services::new(&[
            counted("default", "2026-11-22 12:00:00", Some(4_320)),
            counted("often", "2026-11-22 12:00:00", Some(43_200)),
            counted("seldom", "2026-11-22 12:00:00", Some(144)),
            // Down for a week, with heartbeats for a day.
            counted("week", "2026-11-30 00:00:00", Some(8_640)),
            counted("month", "2026-12-22 00:00:00", Some(300)),
            // Made again at a heartbeat: the second one comes one interval later, not two halves.
            counted("again", "2026-11-22 00:05:00", Some(2)),
            counted("first", made, Some(1)),
            counted("backwards", "2026-11-21 00:00:00", Some(9)),
            counted("most", "2026-11-22 12:00:00", Some(i64::MAX)),
            counted("least", "2026-11-22 12:00:00", Some(i64::MIN)),
            counted("uncounted", "2026-11-22 12:00:00", None),
            ServiceRow { created_at: None, ..counted("odd", "2026-11-22 12:00:00", Some(9)) },
        ]);
        let assumed = Thresholds { down_time_is_assumed: true, ..Thresholds::default() };
        for (host, interval, down_time) in [
            ("default", Some(11), 60),
            ("often", Some(2), 60),
            ("seldom", Some(303), 757),
            ("week", Some(81), 202),
            ("month", Some(LONGEST_INTERVAL), 1_500),
            ("again", Some(300), 750),
            ("first", Some(LONGEST_INTERVAL), 1_500),
            ("backwards", Some(LONGEST_INTERVAL), 1_500),
            ("most", Some(1), 60),
            ("least", Some(LONGEST_INTERVAL), 1_500),
            ("uncounted", None, 60),
            ("odd", Some(LONGEST_INTERVAL), 1_500),
            ("nobody", None, 60),
        ] {
            assert_eq!((services.interval(host), services.down_time(host, &assumed)), (interval, down_time), "{host}");
            // A configured value counts.
            assert_eq!(services.down_time(host, &Thresholds::default()), 60, "{host}");
        }
        let long = Thresholds { service_down_time_seconds: 2_000, ..assumed };
        assert_eq!(services.down_time("seldom", &long), 2_000);
        // The row with the latest heartbeat decides.
        let rows = [counted("two", "2026-11-22 12:00:00", Some(144)), counted("two", "2026-11-22 11:00:00", Some(39_600))];
        assert_eq!(Services::new(&rows).interval("two"), Some(303));
        assert_eq!(Services::new(&[rows[1].clone(), rows[0].clone()]).interval("two"), Some(303));
    }

    #[test]
    fn the_latest_heartbeat_of_a_host_counts() {
        let rows = [row("ctl1", Some("2026-11-22 11:00:00")), row("ctl1", Some("2026-11-22 12:00:00")), row("ctl1", None)];
        let beat = Services::new(&rows).heartbeat("ctl1", at("2026-11-22 12:00:10"), 60);
        assert_eq!(beat, Heartbeat::Up { silent: 10 });
    }
}
