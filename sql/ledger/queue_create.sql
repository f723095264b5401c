-- queue_create: puts the due backups in their order: chains by their most urgent member, the members of a chain by their age.
CREATE TEMP TABLE queue AS
SELECT row_number() OVER (ORDER BY chains.urgency, due.chain, due.created_at, due.number) AS place, due.number, due.chain
  FROM due
  JOIN (SELECT chain, min(urgency) AS urgency FROM due GROUP BY chain) AS chains USING (chain);
