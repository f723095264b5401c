//! Cinder's defaults (release 29.0.0, 2026.2) for the options that this program reads or that other values refer to.

/// Options of `[DEFAULT]`. `None` is an option that Cinder knows and leaves unset; it is substituted by an empty text.
const DEFAULTS: &[(&str, Option<&str>)] = &[
    ("backup_ceph_conf", Some("/etc/ceph/ceph.conf")),
    ("backup_ceph_pool", Some("backups")),
    ("backup_ceph_user", Some("cinder")),
    ("backup_container", None),
    ("backup_driver", Some("cinder.backup.drivers.swift.SwiftBackupDriver")),
    ("backup_file_size", Some("1999994880")),
    ("backup_gcs_bucket", None),
    ("backup_gcs_credential_file", None),
    ("backup_gcs_project_id", None),
    ("backup_gcs_proxy_url", None),
    ("backup_max_operations", Some("15")),
    ("backup_mount_options", None),
    ("backup_mount_point_base", Some("$state_path/backup_mount")),
    ("backup_name_template", Some("backup-%s")),
    ("backup_posix_path", Some("$state_path/backup")),
    ("backup_s3_ca_cert_file", None),
    ("backup_s3_endpoint_url", None),
    ("backup_s3_http_proxy", Some("")),
    ("backup_s3_https_proxy", Some("")),
    ("backup_s3_sse_customer_algorithm", None),
    ("backup_s3_sse_customer_key", None),
    ("backup_s3_store_access_key", None),
    ("backup_s3_store_bucket", Some("volumebackups")),
    ("backup_s3_store_secret_key", None),
    ("backup_s3_timeout", Some("60")),
    ("backup_s3_verify_ssl", Some("true")),
    ("backup_sha_block_size_bytes", Some("32768")),
    ("backup_share", None),
    ("backup_swift_auth", Some("per_user")),
    ("backup_swift_auth_insecure", Some("false")),
    ("backup_swift_auth_url", None),
    ("backup_swift_auth_version", Some("1")),
    ("backup_swift_ca_cert_file", None),
    ("backup_swift_container", Some("volumebackups")),
    ("backup_swift_key", None),
    ("backup_swift_project", None),
    ("backup_swift_project_domain", None),
    ("backup_swift_region_name", None),
    ("backup_swift_tenant", None),
    ("backup_swift_url", None),
    ("backup_swift_user", None),
    ("backup_swift_user_domain", None),
    ("backup_use_same_host", Some("false")),
    ("glusterfs_backup_mount_point", Some("$state_path/backup_mount")),
    ("glusterfs_backup_share", None),
    ("image_conversion_dir", Some("$state_path/conversion")),
    ("keystone_catalog_info", Some("identity:Identity Service:publicURL")),
    ("report_interval", Some("10")),
    ("service_down_time", Some("60")),
    ("state_path", Some("/var/lib/cinder")),
    ("storage_availability_zone", Some("nova")),
    ("swift_catalog_info", Some("object-store:swift:publicURL")),
    ("volumes_dir", Some("$state_path/volumes")),
];

/// The names of the options of `[DEFAULT]`.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    DEFAULTS.iter().map(|(name, _)| *name)
}

/// The default of an option of `[DEFAULT]`; the outer `None` is an option that is not in the table.
pub(super) fn of(group: &str, name: &str) -> Option<Option<&'static str>> {
    if group != "DEFAULT" {
        return None;
    }
    DEFAULTS.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
}
