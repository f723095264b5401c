-- missing_privileges: returns no row, because a file has no accounts. Opening the file shows whether it can be written.
SELECT NULL, NULL, NULL
 WHERE ?1 IS NULL AND ?2 IS NULL AND ?3 IS NULL AND 0;
