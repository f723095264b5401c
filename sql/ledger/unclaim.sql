-- unclaim: takes a backup back that was not checked.
UPDATE backups SET claim = NULL WHERE number = ?1;
