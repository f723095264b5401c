-- schema: creates the seven Cinder tables that this program reads, for `cinder-backup-repair demo`.
--
-- Columns, types and indexes are those that `cinder-manage db sync` of 2026.2 creates on SQLite, without the other 29 tables and the
-- foreign keys into them. SQLite stores times as text in naive UTC with six decimals, and booleans as 0 and 1.

-- The revision of the schema, which has not changed since 2024.1.
CREATE TABLE alembic_version (
    version_num VARCHAR(32) NOT NULL,
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO alembic_version (version_num) VALUES ('9c74c1c6971f');

-- One row for each process; updated_at is its heartbeat, every ten seconds.
CREATE TABLE services (
    created_at             DATETIME,
    updated_at             DATETIME,
    deleted_at             DATETIME,
    deleted                BOOLEAN,
    id                     INTEGER NOT NULL,
    host                   VARCHAR(255),
    binary                 VARCHAR(255),
    topic                  VARCHAR(255),
    report_count           INTEGER NOT NULL,
    disabled               BOOLEAN,
    availability_zone      VARCHAR(255),
    disabled_reason        VARCHAR(255),
    modified_at            DATETIME,
    rpc_current_version    VARCHAR(36),
    object_current_version VARCHAR(36),
    replication_status     VARCHAR(36),
    frozen                 BOOLEAN,
    active_backend_id      VARCHAR(255),
    cluster_name           VARCHAR(255),
    uuid                   VARCHAR(36),
    PRIMARY KEY (id)
);
CREATE UNIQUE INDEX services_uuid_idx ON services (uuid);

CREATE TABLE volumes (
    created_at                  DATETIME,
    updated_at                  DATETIME,
    deleted_at                  DATETIME,
    deleted                     BOOLEAN,
    id                          VARCHAR(36) NOT NULL,
    ec2_id                      VARCHAR(255),
    user_id                     VARCHAR(255),
    project_id                  VARCHAR(255),
    host                        VARCHAR(255),
    size                        INTEGER,               -- GiB
    availability_zone           VARCHAR(255),
    status                      VARCHAR(255),
    attach_status               VARCHAR(255),
    scheduled_at                DATETIME,
    launched_at                 DATETIME,
    terminated_at               DATETIME,
    display_name                VARCHAR(255),
    display_description         VARCHAR(255),
    provider_location           VARCHAR(256),
    provider_auth               VARCHAR(256),
    snapshot_id                 VARCHAR(36),
    volume_type_id              VARCHAR(36) NOT NULL,
    source_volid                VARCHAR(36),
    bootable                    BOOLEAN,
    provider_geometry           VARCHAR(255),
    _name_id                    VARCHAR(36),
    encryption_key_id           VARCHAR(36),
    migration_status            VARCHAR(255),
    replication_status          VARCHAR(255),
    replication_extended_status VARCHAR(255),
    replication_driver_data     VARCHAR(255),
    consistencygroup_id         VARCHAR(36),
    provider_id                 VARCHAR(255),
    multiattach                 BOOLEAN,
    previous_status             VARCHAR(255),          -- the status before the API set backing-up
    cluster_name                VARCHAR(255),
    group_id                    VARCHAR(36),
    service_uuid                VARCHAR(36),
    shared_targets              BOOLEAN,
    use_quota                   BOOLEAN DEFAULT 1 NOT NULL,
    PRIMARY KEY (id),
    FOREIGN KEY (service_uuid) REFERENCES services (uuid)
);
CREATE INDEX volumes_deleted_host_idx ON volumes (deleted, host);
CREATE INDEX ix_volumes_group_id ON volumes (group_id);
CREATE INDEX volumes_deleted_project_id_idx ON volumes (deleted, project_id);
CREATE INDEX volumes_service_uuid_idx ON volumes (service_uuid, deleted);
CREATE INDEX ix_volumes_consistencygroup_id ON volumes (consistencygroup_id);

CREATE TABLE snapshots (
    created_at          DATETIME,
    updated_at          DATETIME,
    deleted_at          DATETIME,
    deleted             BOOLEAN,
    id                  VARCHAR(36) NOT NULL,
    volume_id           VARCHAR(36) NOT NULL,
    user_id             VARCHAR(255),
    project_id          VARCHAR(255),
    status              VARCHAR(255),                  -- there is no previous_status here
    progress            VARCHAR(255),
    volume_size         INTEGER,
    scheduled_at        DATETIME,
    display_name        VARCHAR(255),
    display_description VARCHAR(255),
    provider_location   VARCHAR(255),
    encryption_key_id   VARCHAR(36),
    volume_type_id      VARCHAR(36) NOT NULL,
    cgsnapshot_id       VARCHAR(36),
    provider_id         VARCHAR(255),
    provider_auth       VARCHAR(255),
    group_snapshot_id   VARCHAR(36),
    use_quota           BOOLEAN DEFAULT 1 NOT NULL,
    PRIMARY KEY (id),
    CONSTRAINT snapshots_volume_id_fkey FOREIGN KEY (volume_id) REFERENCES volumes (id)
);
CREATE INDEX ix_snapshots_volume_id ON snapshots (volume_id);
CREATE INDEX snapshots_deleted_project_id_idx ON snapshots (deleted, project_id);
CREATE INDEX ix_snapshots_cgsnapshot_id ON snapshots (cgsnapshot_id);
CREATE INDEX ix_snapshots_group_snapshot_id ON snapshots (group_snapshot_id);

-- Attachments of a volume to a server (instance_uuid) or to a host itself.
CREATE TABLE volume_attachment (
    created_at      DATETIME,
    updated_at      DATETIME,
    deleted_at      DATETIME,
    deleted         BOOLEAN,
    id              VARCHAR(36) NOT NULL,
    volume_id       VARCHAR(36) NOT NULL,
    attached_host   VARCHAR(255),
    instance_uuid   VARCHAR(36),
    mountpoint      VARCHAR(255),
    attach_time     DATETIME,
    detach_time     DATETIME,
    attach_mode     VARCHAR(36),
    attach_status   VARCHAR(255),
    connection_info TEXT,
    connector       TEXT,
    PRIMARY KEY (id),
    FOREIGN KEY (volume_id) REFERENCES volumes (id)
);
CREATE INDEX ix_volume_attachment_volume_id ON volume_attachment (volume_id);

-- Soft delete: a deleted backup remains as a row with deleted = 1, so most rows of an old table are deleted.
CREATE TABLE backups (
    created_at            DATETIME,
    updated_at            DATETIME,                    -- NULL until the first update; no heartbeat
    deleted_at            DATETIME,
    deleted               BOOLEAN,
    id                    VARCHAR(36) NOT NULL,
    volume_id             VARCHAR(36) NOT NULL,
    user_id               VARCHAR(255),
    project_id            VARCHAR(255),
    host                  VARCHAR(255),                -- NULL until the scheduler chooses one
    availability_zone     VARCHAR(255),
    display_name          VARCHAR(255),                -- chosen by a user of the cloud: hostile text
    display_description   VARCHAR(255),
    container             VARCHAR(255),
    status                VARCHAR(255),
    fail_reason           VARCHAR(255),
    service_metadata      VARCHAR(255),                -- the driver's data: a prefix, or JSON for Ceph
    service               VARCHAR(255),                -- the driver's class
    size                  INTEGER,                     -- GiB; NULL in an unfinished import
    object_count          INTEGER,
    parent_id             VARCHAR(36),                 -- the parent of an increment
    temp_volume_id        VARCHAR(36),
    temp_snapshot_id      VARCHAR(36),
    num_dependent_backups INTEGER,
    snapshot_id           VARCHAR(36),
    data_timestamp        DATETIME,
    restore_volume_id     VARCHAR(36),
    encryption_key_id     VARCHAR(36),
    PRIMARY KEY (id),
    CHECK (deleted IN (0, 1))
);
CREATE INDEX backups_deleted_project_id_idx ON backups (deleted, project_id);

CREATE TABLE quota_usages (
    created_at     DATETIME,
    updated_at     DATETIME,
    deleted_at     DATETIME,
    deleted        BOOLEAN,
    id             INTEGER NOT NULL,
    project_id     VARCHAR(255),
    resource       VARCHAR(300),
    in_use         INTEGER NOT NULL,
    reserved       INTEGER NOT NULL,
    until_refresh  INTEGER,
    race_preventer BOOLEAN,
    PRIMARY KEY (id),
    UNIQUE (project_id, resource, race_preventer)
);
CREATE INDEX quota_usage_project_resource_idx ON quota_usages (project_id, resource);
CREATE INDEX ix_quota_usages_project_id ON quota_usages (project_id);

CREATE TABLE reservations (
    created_at DATETIME,
    updated_at DATETIME,
    deleted_at DATETIME,
    deleted    BOOLEAN,
    id         INTEGER NOT NULL,
    uuid       VARCHAR(36) NOT NULL,
    usage_id   INTEGER REFERENCES quota_usages (id),
    project_id VARCHAR(255),
    resource   VARCHAR(300),
    delta      INTEGER NOT NULL,
    expire     DATETIME,
    PRIMARY KEY (id)
);
CREATE INDEX ix_reservations_project_id ON reservations (project_id);

CREATE TABLE backup_metadata (
    created_at DATETIME,
    updated_at DATETIME,
    deleted_at DATETIME,
    deleted    BOOLEAN,
    id         INTEGER NOT NULL,
    backup_id  VARCHAR(36) NOT NULL REFERENCES backups (id),
    "key"      VARCHAR(255),
    value      VARCHAR(255),
    PRIMARY KEY (id)
);
CREATE INDEX ix_backup_metadata_backup_id ON backup_metadata (backup_id);
