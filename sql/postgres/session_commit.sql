-- session_commit: makes the transaction last.
COMMIT;
