-- session_matched: reads how many rows the last UPDATE of a compound statement matched; through a proxy that drops CLIENT_FOUND_ROWS, how
-- many it changed.
SELECT ROW_COUNT();
