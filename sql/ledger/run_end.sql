-- run_end: notes the end of a run, and what stopped it.
UPDATE runs SET ended_at = ?2, stopped_by = ?3 WHERE number = ?1;
