-- session_mark: reads the mark that session_state_mariadb gave the session.
SELECT @cinder_backup_repair;
