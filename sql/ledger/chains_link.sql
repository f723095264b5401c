-- chains_link: finds the oldest known ancestor of each backup that was added. UNION ends at a circle of parents.
WITH RECURSIVE
     ancestors (number, at, parent_id) AS (
         SELECT number, number, parent_id FROM backups WHERE chain = 0
          UNION
         SELECT ancestors.number, parent.number, parent.parent_id
           FROM ancestors JOIN backups AS parent ON parent.id = ancestors.parent_id
     ),
     roots (number, root) AS MATERIALIZED (
         SELECT ancestors.number, min(at) FROM ancestors
          WHERE NOT EXISTS (SELECT 1 FROM backups AS parent WHERE parent.id = ancestors.parent_id)
          GROUP BY ancestors.number
     )
UPDATE backups SET chain = roots.root
  FROM roots
 WHERE roots.number = backups.number;
