-- session_commit: commits.
COMMIT;
