-- heartbeat: updates the row of ctl2, as its cinder-backup does every ten seconds.
UPDATE services
   SET updated_at = strftime('%Y-%m-%d %H:%M:%f000', 'now'),
       report_count = report_count + 1
 WHERE host = 'ctl2'
   AND binary = 'cinder-backup';
