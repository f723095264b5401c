-- session_commit: commits the transaction.
COMMIT;
