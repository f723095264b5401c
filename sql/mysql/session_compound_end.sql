-- session_compound_end: ends a compound statement.
END;
