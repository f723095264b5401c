-- paused: since when scrubbing is paused, by whom and why.
SELECT paused_at, paused_by, paused_why FROM ledger WHERE paused_at IS NOT NULL;
