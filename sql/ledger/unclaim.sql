-- unclaim: releases the claim on a backup that was not checked.
UPDATE backups SET claim = NULL WHERE number = ?1;
