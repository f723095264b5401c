-- session_check: reads back what session_set and the BEGIN before it set, times in milliseconds.
SELECT current_setting('TimeZone'),
       current_setting('standard_conforming_strings'),
       current_setting('row_security'),
       CAST(EXTRACT(EPOCH FROM CAST(current_setting('lock_timeout') AS interval)) * 1000 AS bigint),
       CAST(EXTRACT(EPOCH FROM CAST(current_setting('statement_timeout') AS interval)) * 1000 AS bigint),
       current_setting('client_encoding'),
       current_setting('transaction_isolation'),
       current_setting('transaction_read_only');
