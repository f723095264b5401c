-- session_begin_write: begins a transaction that may write.
START TRANSACTION READ WRITE;
