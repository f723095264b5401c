//! The heartbeats of cinder-backup, by host.

use std::collections::HashMap;

use super::time::{is_unreadable, parse, seconds_between};
use jiff::civil::DateTime;

/// A row of `services` with binary `cinder-backup`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceRow {
    /// The host that it beats for.
    pub host: String,
    /// The last beat, naive UTC by the clock of that host; NULL before the first.
    pub updated_at: Option<String>,
    /// When the row was made; a service that has just started has beaten by this alone.
    pub created_at: Option<String>,
    /// The row was removed (`cinder-manage service remove`).
    pub deleted: bool,
}

/// What the heartbeat of a host says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heartbeat {
    /// There is no row for the host, or only deleted ones.
    Missing,
    /// The last beat is older than `service_down_time`.
    Down {
        /// Seconds since the last beat; `None` when it never beat.
        silent: Option<i64>,
    },
    /// It beats.
    Up {
        /// Seconds since the last beat; negative when the host's clock is ahead of the database's.
        silent: i64,
    },
    /// Its last beat is on record in a form that cannot be read, so that it may or may not be alive.
    Unreadable,
}

/// The liveliest beat of one host.
#[derive(Debug, Clone)]
struct Beat {
    /// The host as its row spells it.
    host: String,
    latest: Option<DateTime>,
    unreadable: bool,
}

/// All hosts' heartbeats against the database's clock.
#[derive(Debug, Clone, Default)]
pub struct Services {
    beats: HashMap<String, Beat>,
}

impl Services {
    /// From the rows; several rows of one host count as the liveliest.
    pub fn new(rows: &[ServiceRow]) -> Self {
        let mut beats: HashMap<String, Beat> = HashMap::new();
        for row in rows.iter().filter(|row| !row.deleted) {
            let text = row.updated_at.as_deref().or(row.created_at.as_deref());
            let beat = beats.entry(key(&row.host)).or_insert_with(|| Beat {
                host: host_part(&row.host).to_owned(),
                latest: None,
                unreadable: false,
            });
            beat.latest = beat.latest.max(text.and_then(parse));
            beat.unreadable |= is_unreadable(text);
        }
        Self { beats }
    }

    /// What the heartbeat of `host` says at `now` (the database's clock). A beat from the future counts as alive:
    /// a clock that runs ahead must not make a working service look dead.
    pub fn heartbeat(&self, host: &str, now: DateTime, service_down_time: i64) -> Heartbeat {
        self.beats.get(&key(host)).map_or(Heartbeat::Missing, |beat| beat.at(now, service_down_time))
    }

    /// When the cinder-backup of `host` last beat, by its own clock, RFC 3339.
    pub fn last_beat(&self, host: &str) -> Option<String> {
        self.beats.get(&key(host))?.latest.map(super::time::rfc3339)
    }

    /// When any cinder-backup last beat, RFC 3339.
    pub fn newest_beat(&self) -> Option<String> {
        self.beats.values().filter_map(|beat| beat.latest).max().map(super::time::rfc3339)
    }

    /// Whether a host has, or had, a cinder-backup.
    pub fn knows(&self, host: &str) -> bool {
        self.beats.contains_key(&key(host))
    }

    /// Every host that has, or had, a cinder-backup, as its row spells it.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.beats.values().map(|beat| beat.host.as_str())
    }

    /// Hosts whose last beat lies further in the future than `tolerance` seconds, and by how much, in name order.
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
            silent => Heartbeat::Down { silent },
        }
    }
}

/// The databases that most clouds use compare host names without regard to case or trailing blanks, and so does a
/// cinder-backup that looks for its rows there: two spellings are one host, lest a working one looks retired.
fn key(host: &str) -> String {
    host_part(host).trim().to_lowercase()
}

/// Whether two spellings name one host.
pub fn is_same_host(one: &str, other: &str) -> bool {
    key(one) == key(other)
}

/// `ctl1` out of `ctl1`, `ctl1@ceph` or `ctl1@ceph#pool`, as Cinder's `extract_host` does at level `host`.
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
            ServiceRow { deleted: true, ..row("gone", Some("2026-11-22 12:00:00")) },
        ]);
        let now = at("2026-11-22 12:00:00");
        let of = |host: &str| services.heartbeat(host, now, 60);
        assert_eq!(of("up"), Heartbeat::Up { silent: 60 });
        assert_eq!(of("up@ceph#pool"), Heartbeat::Up { silent: 60 });
        assert_eq!(of("down"), Heartbeat::Down { silent: Some(61) });
        assert_eq!(of("ahead"), Heartbeat::Up { silent: -300 });
        assert_eq!(of("never"), Heartbeat::Down { silent: None });
        assert_eq!(of("gone"), Heartbeat::Missing);
        assert_eq!(of("unheard"), Heartbeat::Missing);
        assert_eq!(services.clocks_ahead(now, 60), [("ahead".to_owned(), 300)]);
    }

    #[test]
    fn a_host_spelled_otherwise_is_the_same_host() {
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
    fn a_beat_that_cannot_be_read_proves_no_death() {
        let now = at("2026-11-22 12:00:00");
        let beat = |rows: &[ServiceRow]| Services::new(rows).heartbeat("ctl1", now, 60);
        assert_eq!(beat(&[row("ctl1", Some("just now"))]), Heartbeat::Unreadable);
        assert_eq!(beat(&[row("ctl1", Some("just now")), row("ctl1", Some("2026-11-22 11:00:00"))]), Heartbeat::Unreadable);
        assert_eq!(beat(&[row("ctl1", Some("just now")), row("ctl1", Some("2026-11-22 11:59:50"))]), Heartbeat::Up { silent: 10 });
        assert_eq!(beat(&[row("ctl1", Some("0000-00-00 00:00:00"))]), Heartbeat::Down { silent: None });
    }

    #[test]
    fn the_liveliest_row_of_a_host_counts() {
        let rows = [row("ctl1", Some("2026-11-22 11:00:00")), row("ctl1", Some("2026-11-22 12:00:00")), row("ctl1", None)];
        let beat = Services::new(&rows).heartbeat("ctl1", at("2026-11-22 12:00:10"), 60);
        assert_eq!(beat, Heartbeat::Up { silent: 10 });
    }
}
