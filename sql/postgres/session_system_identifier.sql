-- session_system_identifier: reads the number that a cluster gets when it is created and that its standbys share.
SELECT CAST(system_identifier AS text) FROM pg_control_system();
