-- session_compound_begin: begins a compound statement of MariaDB, which runs complete statements of this folder in one trip to the server.
BEGIN NOT ATOMIC;
