-- evidence: the results that a plan may need: those about backups that were not available.
SELECT results.document, results.settle
  FROM results JOIN backups ON backups.number = results.backup
 WHERE results.status IS NOT 'available' AND backups.gone_at IS NULL;
