-- missing_privileges: none, because a file has no accounts; opening it shows whether it can be written.
SELECT NULL, NULL, NULL
 WHERE 0;
