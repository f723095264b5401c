-- session_rollback: rolls back the transaction.
ROLLBACK;
