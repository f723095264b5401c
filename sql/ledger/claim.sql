-- claim: notes that a run is going to check a backup.
UPDATE backups SET claim = ?2 WHERE number = ?1;
