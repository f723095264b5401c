-- session_system_identifier: the number that a cluster got when it was made and that its standbys share.
SELECT CAST(system_identifier AS text) FROM pg_control_system();
