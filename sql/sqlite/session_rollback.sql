-- session_rollback: rolls back.
ROLLBACK;
