//! Cinder's naive UTC times as text, and the ages that follow from them.

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;

/// Reads `YYYY-MM-DD HH:MM:SS[.ffffff]` (or with a `T`), as all three engines spell it; `None` for anything else.
pub fn parse(text: &str) -> Option<DateTime> {
    text.trim().replacen(' ', "T", 1).parse().ok()
}

/// Whether a column has a time that cannot be read, from which nothing follows. NULL, the empty text and MySQL's zero date are not times at
/// all.
pub fn is_unreadable(text: Option<&str>) -> bool {
    text.map(str::trim).is_some_and(|text| !text.is_empty() && !text.starts_with("0000-00-00") && parse(text).is_none())
}

/// Whole seconds from `earlier` to `later`; negative if `later` is before `earlier`.
pub fn seconds_between(earlier: DateTime, later: DateTime) -> i64 {
    // Both are UTC, so civil arithmetic has no gaps. And unlike a time stamp it has all of the year 9999, which some clients write for
    // "never".
    later.duration_since(earlier).as_secs()
}

/// A time span in whole seconds.
pub fn seconds(span: Duration) -> i64 {
    i64::try_from(span.as_secs()).unwrap_or(i64::MAX)
}

/// A database time as RFC 3339 in UTC, for example `2026-11-22T18:46:33.000000Z`.
pub fn rfc3339(time: DateTime) -> String {
    Offset::UTC.to_timestamp(time).map_or_else(|_| time.to_string(), stamp)
}

/// A moment as RFC 3339 in UTC, with microseconds. All times in documents have this precision, so that they sort as text.
pub fn stamp(moment: Timestamp) -> String {
    moment.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// Reads a moment, in the precision of [`stamp`]: documents of earlier versions have others.
pub fn moment(text: &str) -> Option<Timestamp> {
    let exact: Timestamp = text.parse().ok()?;
    Timestamp::from_microsecond(exact.as_microsecond()).ok()
}

/// Whether two documents name the same moment, or both none.
pub fn is_same_moment(one: Option<&str>, other: Option<&str>) -> bool {
    one == other || one.zip(other).is_some_and(|(one, other)| moment(one).is_some_and(|one| Some(one) == moment(other)))
}

/// Reads what [`rfc3339`] writes, as a database time.
pub fn parse_rfc3339(text: &str) -> Option<DateTime> {
    text.parse::<Timestamp>().ok().map(|stamp| Offset::UTC.to_datetime(stamp))
}

/// A time span for people, in at most two units: `45 s`, `12 min`, `2 h 5 min`, `3 d 4 h`. None of jiff's styles has these units.
pub fn human(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, 0) => format!("{hours} h"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, 0, _) => format!("{days} d"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn all_engines_spellings_are_read() {
        let whole = parse("2026-11-22 18:46:33").unwrap();
        assert_eq!(parse("2026-11-22 18:46:33.000000"), Some(whole));
        assert_eq!(parse("2026-11-22T18:46:33"), Some(whole));
        assert_eq!(parse("0000-00-00 00:00:00"), None);
        assert_eq!(parse(""), None);
        assert_eq!(rfc3339(whole), "2026-11-22T18:46:33.000000Z");
        assert_eq!(parse_rfc3339(&rfc3339(whole)), Some(whole));
        assert_eq!(parse_rfc3339("2026-11-22T18:46:33Z"), Some(whole));
        assert_eq!(parse_rfc3339("2026-11-22 18:46:33"), None);
    }

    #[test]
    fn times_have_one_precision_and_those_of_older_documents_are_the_same_moments() {
        let exact: Timestamp = "2026-11-22T18:46:33.123456789Z".parse().unwrap();
        assert_eq!(stamp(exact), "2026-11-22T18:46:33.123456Z");
        assert_eq!(rfc3339(parse("2026-11-22 18:46:33.5").unwrap()), "2026-11-22T18:46:33.500000Z");
        for (one, other, same) in [
            (Some("2026-11-22T18:46:33Z"), Some("2026-11-22T18:46:33.000000Z"), true),
            (Some("2026-11-22T18:46:33.123456789Z"), Some("2026-11-22T18:46:33.123456Z"), true),
            (Some("2026-11-22T18:46:33.123Z"), Some("2026-11-22T18:46:33.123456Z"), false),
            (Some("soon"), Some("later"), false),
            (None, Some("2026-11-22T18:46:33Z"), false),
            (None, None, true),
        ] {
            assert_eq!(is_same_moment(one, other), same, "{one:?} {other:?}");
        }
    }

    #[test]
    fn seconds_have_a_sign() {
        let (early, late) = (parse("2026-02-28 23:59:59").unwrap(), parse("2026-03-01 00:00:01").unwrap());
        assert_eq!(seconds_between(early, late), 2);
        assert_eq!(seconds_between(late, early), -2);
    }

    #[test]
    fn the_last_day_of_the_calendar_is_in_the_future() {
        let (now, never) = (parse("2026-11-22 12:00:00").unwrap(), parse("9999-12-31 23:59:59").unwrap());
        assert!(seconds_between(now, never) > 7_000 * 365 * 86_400);
        assert_eq!(seconds_between(never, now), -seconds_between(now, never));
    }

    #[test]
    fn no_time_is_not_an_unreadable_time() {
        for none in [None, Some(""), Some("0000-00-00 00:00:00"), Some("0000-00-00 00:00:00.000000"), Some("2026-11-22 12:00:00")] {
            assert!(!is_unreadable(none), "{none:?}");
        }
        for text in ["yesterday", "2026-11-22 25:00:00", "22.11.2026 12:00", "2026-02-30 12:00:00"] {
            assert!(is_unreadable(Some(text)), "{text}");
        }
    }

    #[test]
    fn spans_are_short() {
        let said: Vec<String> = [0, 59, 60, 3_600, 7_500, 86_400, 100_000].into_iter().map(human).collect();
        assert_eq!(said, ["0 s", "59 s", "1 min", "1 h", "2 h 5 min", "1 d", "1 d 3 h"]);
    }
}
