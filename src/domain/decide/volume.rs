//! The status that a volume in `backing-up` goes back to.

use crate::domain::status::{AVAILABLE, IN_USE};
use crate::domain::{Attachment, Evidence, EvidenceCode, Situation, Volume};

/// The status that a volume had before its backup, with evidence. `previous_status` and the live attachments decide; if they disagree, the
/// safer status wins: `in-use`.
///
/// Cinder itself copies `previous_status` without a look at it, and leaves volumes in NULL, `backing-up` or `error_backing-up`.
/// `backup_host` names the host whose own attachment (it reads the volume through one) does not count.
pub(super) fn before_backup(
    volume: &Volume,
    attachments: &[Attachment],
    backup_host: Option<&str>,
    situation: &Situation,
) -> (&'static str, Vec<Evidence>) {
    let mut evidence = Vec::new();
    let previous = match volume.previous_status.as_deref() {
        Some(AVAILABLE) => Some(AVAILABLE),
        Some(IN_USE) => Some(IN_USE),
        Some(other) => {
            let text = format!("volume {} has previous_status {other:?}, which it cannot go back to", volume.id);
            evidence.push(Evidence::new(EvidenceCode::PreviousStatusUnusable, text));
            None
        }
        None => None,
    };
    let live = attachments.iter().filter(|attachment| attachment.is_live());
    let attached = if situation.has_attachments && live.clone().next().is_some() {
        live.into_iter().any(|attachment| !attachment.is_of_backup_host(backup_host))
    } else {
        // Only the volume's own column is left: before Kilo always, later only in rows that contradict each other.
        volume.attach_status.as_deref() == Some("attached")
    };
    if attached {
        if previous == Some(AVAILABLE) {
            let text = format!("volume {} was available before the backup, but is attached now: in-use is the safer status", volume.id);
            evidence.push(Evidence::new(EvidenceCode::Attached, text));
        }
        return (IN_USE, evidence);
    }
    if previous == Some(IN_USE) {
        let text = format!("volume {} was in-use before the backup, but has no live attachment: in-use is the safer status", volume.id);
        evidence.push(Evidence::new(EvidenceCode::NotAttached, text));
    }
    (previous.unwrap_or(AVAILABLE), evidence)
}
