-- unclaim_all: releases the claims on all backups that were not checked.
UPDATE backups SET claim = NULL WHERE claim IS NOT NULL;
