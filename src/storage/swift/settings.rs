//! The options of cinder.conf for Swift, with the meaning that Cinder's driver and its client library give them.

use secrecy::SecretString;
use ureq::tls::TlsConfig;

use crate::config::{ConfigError, Origin, Setting, StorageOptions};
use crate::storage::StorageError;
use crate::storage::http::{BaseUrl, trust};

/// The credentials that Cinder uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AuthMode {
    /// Those of each user, for the account of the user's project.
    PerUser,
    /// Those of cinder.conf, for one account.
    SingleUser,
}

/// The login protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AuthVersion {
    /// User, key, token and storage URL in headers: Swift's tempauth, Ceph's gateway.
    V1,
    /// Keystone version 2: tenants.
    V2,
    /// Keystone version 3: projects and domains.
    V3,
}

/// The endpoint to choose from the catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EndpointFilter {
    /// `object-store`.
    pub(super) service: String,
    /// `public`, `internal` or `admin`.
    pub(super) interface: String,
    /// The region, if one is configured.
    pub(super) region: Option<String>,
}

/// The validated options.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) mode: AuthMode,
    pub(super) version: AuthVersion,
    pub(super) auth_url: BaseUrl,
    pub(super) user: String,
    pub(super) key: SecretString,
    pub(super) project: Option<String>,
    pub(super) user_domain: Option<String>,
    pub(super) project_domain: Option<String>,
    /// With [`AuthMode::PerUser`] the URL without the id of the project, otherwise the whole URL. `None`: the URL of the login.
    pub(super) storage_url: Option<Setting<String>>,
    pub(super) endpoint: EndpointFilter,
    pub(super) trust: TlsConfig,
    pub(super) warnings: Vec<String>,
}

impl Settings {
    /// Reads and validates the options.
    pub(super) fn new(options: &StorageOptions) -> Result<Self, StorageError> {
        let text = |name: &str| options.text(name);
        let plain = |name: &str| Ok::<_, ConfigError>(text(name)?.map(|setting| setting.value));
        let mut warnings = Vec::new();
        let mode = match text("backup_swift_auth")? {
            None => AuthMode::PerUser,
            Some(setting) => match setting.value.as_str() {
                "per_user" => AuthMode::PerUser,
                "single_user" => AuthMode::SingleUser,
                other => {
                    return Err(StorageError::configuration(format!("{}: {other:?} is neither per_user nor single_user", setting.origin)));
                }
            },
        };
        let auth_url = text("backup_swift_auth_url")?.ok_or_else(|| without(mode, "backup_swift_auth_url"))?;
        let auth_url = BaseUrl::parse(&auth_url.value, &auth_url.origin)?;
        let user = plain("backup_swift_user")?.ok_or_else(|| without(mode, "backup_swift_user"))?;
        let key = options.secret("backup_swift_key")?.ok_or_else(|| without(mode, "backup_swift_key"))?;
        let version = version(text("backup_swift_auth_version")?, mode, &auth_url)?;
        let project = match plain("backup_swift_project")? {
            Some(project) => Some(project),
            None => plain("backup_swift_tenant")?,
        };
        let (project, user) = match (project, user.split_once(':')) {
            // The client library reads "tenant:user" so.
            (None, Some((tenant, user))) if version != AuthVersion::V1 => (Some(tenant.to_owned()), user.to_owned()),
            (project, _) => (project, user),
        };
        if mode == AuthMode::SingleUser && version != AuthVersion::V1 && project.is_none() {
            return Err(without(mode, "backup_swift_project"));
        }
        let storage_url = for_mode(text("backup_swift_url")?, mode, "backup_swift_url", &mut warnings);
        let region = for_mode(text("backup_swift_region_name")?, mode, "backup_swift_region_name", &mut warnings);
        let trust = if options.boolean("backup_swift_auth_insecure", false)?.value {
            warnings.push("backup_swift_auth_insecure is set: the certificates of Swift and Keystone are not verified".to_owned());
            trust::unverified()
        } else {
            trust::configured(text("backup_swift_ca_cert_file")?)?
        };
        Ok(Self {
            mode,
            version,
            auth_url,
            user,
            key: key.value,
            project,
            user_domain: plain("backup_swift_user_domain")?,
            project_domain: plain("backup_swift_project_domain")?,
            storage_url,
            endpoint: endpoint(mode, text("swift_catalog_info")?, region.map(|region| region.value))?,
            trust,
            warnings,
        })
    }
}

/// Drops an option that Cinder's driver ignores with a single user, unless it is from the command line: the data is where Cinder
/// wrote it.
fn for_mode(setting: Option<Setting<String>>, mode: AuthMode, name: &str, warnings: &mut Vec<String>) -> Option<Setting<String>> {
    let setting = setting?;
    if mode == AuthMode::PerUser || matches!(setting.origin, Origin::Flag(_)) {
        return Some(setting);
    }
    warnings
        .push(format!("{}: Cinder does not use {name} with backup_swift_auth = single_user, so it is ignored here too", setting.origin));
    None
}

fn version(setting: Option<Setting<String>>, mode: AuthMode, auth_url: &BaseUrl) -> Result<AuthVersion, StorageError> {
    let Some(setting) = setting else { return Ok(AuthVersion::V1) };
    // With per_user Cinder ignores the option, so its default says nothing about the server.
    let is_from_url = mode == AuthMode::PerUser && setting.origin == Origin::Default;
    let last = auth_url.path().rsplit('/').next().unwrap_or_default();
    match setting.value.trim() {
        _ if is_from_url && last.starts_with("v3") => Ok(AuthVersion::V3),
        _ if is_from_url && last.starts_with("v2") => Ok(AuthVersion::V2),
        // The spellings that swiftclient accepts.
        "1" | "1.0" | "v1" | "v1.0" => Ok(AuthVersion::V1),
        "2" | "2.0" | "v2" | "v2.0" => Ok(AuthVersion::V2),
        "3" | "3.0" | "v3" | "v3.0" => Ok(AuthVersion::V3),
        other => Err(StorageError::configuration(format!("{}: {other:?} is not a version: use 1, 2 or 3", setting.origin))),
    }
}

/// Returns the endpoint that Cinder chooses from the catalogue. With a single user this is the default of the client library.
fn endpoint(mode: AuthMode, info: Option<Setting<String>>, region: Option<String>) -> Result<EndpointFilter, StorageError> {
    let Some(info) = info.filter(|_| mode == AuthMode::PerUser) else {
        return Ok(EndpointFilter { service: "object-store".to_owned(), interface: "public".to_owned(), region });
    };
    match info.value.split(':').collect::<Vec<_>>().as_slice() {
        [service, _, interface] => {
            Ok(EndpointFilter { service: (*service).to_owned(), interface: interface.trim_end_matches("URL").to_owned(), region })
        }
        _ => Err(StorageError::configuration(format!(
            "{}: swift_catalog_info must be <service_type>:<service_name>:<endpoint_type>",
            info.origin
        ))),
    }
}

fn without(mode: AuthMode, name: &str) -> StorageError {
    match mode {
        AuthMode::SingleUser => StorageError::missing_option(name),
        AuthMode::PerUser => StorageError::configuration(format!(
            "{name} is not set: with backup_swift_auth = per_user Cinder used the token of each user, so use the credentials of a user \
             who may read the accounts of all projects (a reseller admin) or of this one: --storage-option backup_swift_auth_url=…, \
             backup_swift_auth_version=3, backup_swift_user=…, backup_swift_key=@FILE, and for Keystone backup_swift_project=…, \
             backup_swift_user_domain=… and backup_swift_project_domain=…"
        )),
    }
}
