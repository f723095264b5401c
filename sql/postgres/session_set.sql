-- session_set: puts the transaction into the known state, and on a direct connection the session, too. Through a pooler the settings end
-- with the transaction, so that it passes the connection on unchanged.
-- Parameters: milliseconds to wait for a lock, milliseconds for a statement (0: no limit), whether the settings end with the transaction.
-- row_security = off turns a row policy that would hide rows into an error. A confirmed commit must be on disk. A transaction that may
-- write and whose COMMIT is delayed on the way is rolled back after two minutes at most, so that the COMMIT cannot take effect after that.
SELECT set_config('TimeZone', 'UTC', CAST(CAST($3 AS text) AS boolean)),
       set_config('standard_conforming_strings', 'on', CAST(CAST($3 AS text) AS boolean)),
       set_config('row_security', 'off', CAST(CAST($3 AS text) AS boolean)),
       set_config('lock_timeout', CAST($1 AS text), CAST(CAST($3 AS text) AS boolean)),
       set_config('statement_timeout', CAST($2 AS text), CAST(CAST($3 AS text) AS boolean)),
       set_config('synchronous_commit',
                  CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END,
                  CAST(CAST($3 AS text) AS boolean)),
       set_config('idle_in_transaction_session_timeout',
                  CASE current_setting('transaction_read_only')
                  WHEN 'off' THEN
                      CAST(LEAST(120000,
                                 NULLIF(CAST(EXTRACT(EPOCH FROM CAST(current_setting('idle_in_transaction_session_timeout') AS interval))
                                             * 1000 AS bigint), 0)) AS text)
                  ELSE current_setting('idle_in_transaction_session_timeout')
                  END,
                  CAST(CAST($3 AS text) AS boolean));
