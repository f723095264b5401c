-- chains_link: gives each backup that was added the chain of its parent, parents first.
WITH RECURSIVE
     linked (number, chain) AS (
         SELECT unlinked.number, parent.chain
           FROM unlinked JOIN backups AS parent ON parent.number = unlinked.parent
          WHERE parent.chain <> 0
          UNION ALL
         SELECT unlinked.number, linked.chain FROM linked JOIN unlinked ON unlinked.parent = linked.number
     )
UPDATE backups SET chain = linked.chain
  FROM linked
 WHERE linked.number = backups.number;
