-- rollback: takes back the changes of a transaction.
ROLLBACK;
