-- missing_privileges: none, as a file knows no accounts; whether it can be written shows when it is opened.
SELECT NULL, NULL, NULL
 WHERE 0;
