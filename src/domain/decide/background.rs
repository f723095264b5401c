//! What else is known about a pending backup: the other work of its host, Cinder's own message about it, and what its user has set on it.
//! It changes no decision.

use jiff::civil::DateTime;

use crate::domain::status::{CREATING, RESTORING};
use crate::domain::text::count;
use crate::domain::time::{human, parse, rfc3339, seconds_between};
use crate::domain::{Backup, EvidenceCode, Finding, Situation, Verdict};

/// The backups that one host creates or restores.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostQueue {
    creating: usize,
    restoring: usize,
    /// When the oldest of these operations began.
    oldest: Option<DateTime>,
    /// When one of the rows was last written.
    written: Option<DateTime>,
}

impl HostQueue {
    /// Counts a backup of the host.
    pub fn add(&mut self, backup: &Backup) {
        let (created, updated) = (backup.created_at.as_deref().and_then(parse), backup.updated_at.as_deref().and_then(parse));
        let begun = match backup.status.as_deref() {
            Some(CREATING) => {
                self.creating += 1;
                created
            }
            Some(RESTORING) => {
                self.restoring += 1;
                updated
            }
            _ => return,
        };
        self.oldest = [self.oldest, begun].into_iter().flatten().min();
        self.written = self.written.max(created).max(updated);
    }

    fn text(&self, host: &str, now: DateTime) -> String {
        let ago = |at: Option<DateTime>| {
            at.map_or_else(|| "at an unknown time".to_owned(), |at| format!("{} ago", human(seconds_between(at, now))))
        };
        format!(
            "{host} has {} in creating and {} in restoring, this one included; the oldest operation began {}, and the last change of a row \
             was {}",
            count(self.creating, "backup"),
            self.restoring,
            ago(self.oldest),
            ago(self.written)
        )
    }
}

/// A row of `messages`: Cinder's message to the user about a backup.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserMessage {
    /// Naive UTC.
    pub created_at: Option<String>,
    /// The number of the text.
    pub detail_id: Option<String>,
}

impl UserMessage {
    /// Source: `cinder/message/message_field.py` (`Detail`), for the actions on backups.
    pub fn text(&self) -> String {
        let detail = self.detail_id.as_deref().unwrap_or("NULL");
        let meaning = match detail {
            "001" => "an unknown error occurred",
            "017" => "backup status is invalid",
            "018" => "backup service is down",
            "019" => "failed to get backup device from the volume service",
            "020" => "backup driver failed to create backup",
            "021" => "failed to attach volume",
            "022" => "failed to detach volume",
            "023" => "cleanup of temporary volume or snapshot failed",
            "024" => "backup failed to schedule, service not found for creating backup",
            "025" => "backup driver failed to delete backup",
            "026" => "backup driver failed to restore backup",
            "027" => "volume status is invalid",
            "030" => "incremental backup not possible, forcing full backup",
            _ => "a message that this program does not know",
        };
        let at = self.created_at.as_deref().and_then(parse).map_or_else(|| "an unknown time".to_owned(), rfc3339);
        format!("Cinder's last message about it, of {at}: {meaning} ({detail})")
    }
}

/// The number of pairs that a text shows, and the characters of a key or a value.
const PAIRS: usize = 5;
const CHARACTERS: usize = 40;

/// The rows of `backup_metadata`: keys and values that users choose. Hostile text, of which only the beginning is kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserMetadata {
    shown: Vec<String>,
    more: usize,
}

impl UserMetadata {
    /// Adds a row.
    pub fn add(&mut self, key: Option<&str>, value: Option<&str>) {
        if self.shown.len() == PAIRS {
            self.more += 1;
            return;
        }
        let beginning = |text: &str| match text.char_indices().nth(CHARACTERS) {
            Some((end, _)) => format!("{:?}…", text.get(..end).unwrap_or_default()),
            None => format!("{text:?}"),
        };
        let [key, value] = [key, value].map(|text| text.map_or_else(|| "NULL".to_owned(), beginning));
        self.shown.push(format!("{key} = {value}"));
    }

    fn text(&self) -> String {
        let more = if self.more > 0 { format!(", and {} more", self.more) } else { String::new() };
        format!("its user has set {}{more}", self.shown.join(", "))
    }
}

/// What is known about a backup beside its case.
#[derive(Debug, Clone, Copy, Default)]
pub struct Background<'a> {
    /// The other work of its host.
    pub queue: Option<&'a HostQueue>,
    /// Cinder's last message about it.
    pub message: Option<&'a UserMessage>,
    /// What its user has set on it.
    pub metadata: Option<&'a UserMetadata>,
}

/// Adds it to the evidence. The queue matters only if the host may be working.
pub fn add_background(finding: &mut Finding, background: Background<'_>, situation: &Situation) {
    let Background { queue, message, metadata } = background;
    let queue = queue.filter(|queue| finding.verdict == Verdict::Uncertain && queue.creating + queue.restoring > 1);
    if let Some((queue, host)) = queue.zip(finding.host.clone()) {
        finding.note(EvidenceCode::HostQueue, queue.text(&host, situation.now));
    }
    if let Some(message) = message {
        finding.note(EvidenceCode::UserMessage, message.text());
    }
    if let Some(metadata) = metadata {
        finding.note(EvidenceCode::UserMetadata, metadata.text());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn backup(status: &str, created_at: &str, updated_at: &str) -> Backup {
        Backup {
            status: Some(status.into()),
            created_at: Some(created_at.into()),
            updated_at: Some(updated_at.into()),
            ..Backup::default()
        }
    }

    fn texts(verdict: Verdict, backups: &[Backup], detail: Option<&str>) -> Vec<String> {
        let mut queue = HostQueue::default();
        backups.iter().for_each(|backup| queue.add(backup));
        let message = detail.map(|detail| UserMessage { created_at: Some("2026-11-22 10:00:00".into()), detail_id: Some(detail.into()) });
        let mut finding = Finding { verdict, host: Some("ctl1".into()), ..Finding::default() };
        let situation = Situation {
            now: parse("2026-11-22 12:00:00").unwrap(),
            server_uptime_seconds: None,
            services: crate::domain::Services::default(),
            columns: crate::domain::ColumnSet::Mitaka,
            has_attachments: true,
        };
        let background = Background { queue: Some(&queue), message: message.as_ref(), metadata: None };
        add_background(&mut finding, background, &situation);
        finding.evidence.into_iter().map(|evidence| evidence.text).collect()
    }

    #[test]
    fn the_other_work_of_a_host_that_may_be_working_is_evidence() {
        let backups = [
            backup("creating", "2026-11-22 08:00:00", "2026-11-22 08:00:01"),
            backup("restoring", "2026-01-01 00:00:00", "2026-11-22 11:57:00"),
            backup("available", "2025-01-01 00:00:00", "2026-11-22 11:59:00"),
            backup("deleting", "2025-01-01 00:00:00", "2026-11-22 11:59:00"),
        ];
        let found = texts(Verdict::Uncertain, &backups, None);
        let expected = "ctl1 has 1 backup in creating and 1 in restoring, this one included; the oldest operation began 4 h ago, and the \
                        last change of a row was 3 min ago";
        assert_eq!(found, [expected]);
        assert_eq!(texts(Verdict::Uncertain, &backups[..1], None), [""; 0]);
        assert_eq!(texts(Verdict::Stuck, &backups, None), [""; 0]);
    }

    #[test]
    fn a_message_is_in_cinders_words() {
        let found = texts(Verdict::Stuck, &[], Some("020"));
        assert_eq!(found, ["Cinder's last message about it, of 2026-11-22T10:00:00.000000Z: backup driver failed to create backup (020)"]);
        assert!(texts(Verdict::Stuck, &[], Some("999")).concat().contains("does not know (999)"));
    }

    #[test]
    fn what_a_user_sets_is_escaped_and_cut() {
        let mut metadata = UserMetadata::default();
        metadata.add(Some("a\"b\u{1b}[2J\u{202e}\n"), None);
        metadata.add(Some(""), Some(&"ä".repeat(CHARACTERS)));
        (0..PAIRS).for_each(|_| metadata.add(Some("k"), Some(&"ä".repeat(255))));
        let (whole, cut) = ("ä".repeat(CHARACTERS), format!("\"k\" = \"{}\"…", "ä".repeat(CHARACTERS)));
        let expected = format!(r#"its user has set "a\"b\u{{1b}}[2J\u{{202e}}\n" = NULL, "" = "{whole}", {cut}, {cut}, {cut}, and 2 more"#);
        assert_eq!(metadata.text(), expected);
    }
}
