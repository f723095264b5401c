-- session_transaction_status: what became of a transaction. Parameter: its id.
SELECT txid_status(CAST(CAST($1 AS text) AS bigint));
