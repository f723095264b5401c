-- session_rollback: undoes the transaction.
ROLLBACK;
