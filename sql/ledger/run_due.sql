-- run_due: notes how many backups were due.
UPDATE runs SET due = ?2 WHERE number = ?1;
