-- session_transaction_id: the id of the open transaction, if it has written anything.
SELECT CAST(txid_current_if_assigned() AS text);
