-- unclaim_all: takes all backups back that were not checked.
UPDATE backups SET claim = NULL WHERE claim IS NOT NULL;
