-- pause: pauses scrubbing (or, with NULL, resumes it) until it is resumed.
UPDATE ledger SET paused_at = ?1, paused_by = ?2, paused_why = ?3;
