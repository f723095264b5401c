-- cut_off: the first backup of a run that was stopped or killed in the middle of it goes behind those that were tried longer ago. Otherwise
-- a backup that takes longer than a run would keep all others from being checked.
UPDATE backups SET unanswered_at = ?1
 WHERE claim = (SELECT min(claim) FROM backups WHERE claim IS NOT NULL);
