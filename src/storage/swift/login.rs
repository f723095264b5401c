//! The login protocols.

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use ureq::http::Method;

use super::settings::{AuthVersion, EndpointFilter, Settings};
use crate::storage::http::{self, HttpClient, HttpResponse, quote};
use crate::storage::{StorageError, StorageErrorKind};

/// The limit for the response to a login, in bytes. Catalogues of large clouds have some 100 KiB.
const LARGEST_ANSWER: usize = 8 * 1024 * 1024;

/// The result of a login.
#[derive(Debug)]
pub(super) struct ScopedToken {
    /// The token.
    pub(super) secret: SecretString,
    /// The storage URL of the account of `project`.
    pub(super) storage_url: Option<String>,
    /// The id of the project that the token is for, from Keystone.
    pub(super) project: Option<String>,
}

/// Logs in for the project of the options or, if they have none, for the project with this id.
///
/// # Errors
/// [`StorageErrorKind::Authentication`] if the credentials are refused.
pub(super) fn login(http: &HttpClient, settings: &Settings, project_id: Option<&str>) -> Result<ScopedToken, StorageError> {
    match settings.version {
        AuthVersion::V1 => v1(http, settings),
        AuthVersion::V2 => v2(http, settings, project_id),
        AuthVersion::V3 => v3(http, settings, project_id),
    }
}

fn v1(http: &HttpClient, settings: &Settings) -> Result<ScopedToken, StorageError> {
    let headers = [
        http::header("x-auth-user", &settings.user, false)?,
        http::header("x-auth-key", settings.key.expose_secret(), true)?,
        // Headers of older servers.
        http::header("x-storage-user", &settings.user, false)?,
        http::header("x-storage-pass", settings.key.expose_secret(), true)?,
    ];
    let response = http.send(Method::GET, settings.auth_url.as_str(), &headers, None)?;
    if !response.is_success() {
        return Err(refused(response, "check backup_swift_user and backup_swift_key, and that backup_swift_auth_version = 1 is right"));
    }
    let token = response.header("x-storage-token").or_else(|| response.header("x-auth-token"));
    let Some(token) = token.filter(|token| !token.is_empty()) else {
        return Err(
            response.protocol_error("the response to the login has no token; check that the URL is for backup_swift_auth_version = 1")
        );
    };
    let storage_url = response.header("x-storage-url").map(str::to_owned);
    Ok(ScopedToken { secret: SecretString::from(token), storage_url, project: None })
}

fn v2(http: &HttpClient, settings: &Settings, project_id: Option<&str>) -> Result<ScopedToken, StorageError> {
    let mut auth = json!({"passwordCredentials": {"username": settings.user, "password": settings.key.expose_secret()}});
    let scope = match (&settings.project, project_id) {
        (Some(name), _) => Some(("tenantName", name.as_str())),
        (None, Some(id)) => Some(("tenantId", id)),
        (None, None) => None,
    };
    if let (Some((key, value)), Some(auth)) = (scope, auth.as_object_mut()) {
        auth.insert(key.to_owned(), Value::from(value));
    }
    let response = post(http, &versioned(settings, "v2.0", "tokens"), &json!({"auth": auth}))?;
    let empty_token = response.protocol_error("the token is empty");
    let Access { access } = document(response)?;
    let urls = endpoints(&access.catalog, settings).filter_map(|endpoint| {
        let url = match settings.endpoint.interface.as_str() {
            "internal" => &endpoint.internal_url,
            "admin" => &endpoint.admin_url,
            _ => &endpoint.public_url,
        };
        Some((endpoint.region.as_deref(), url.as_deref()?))
    });
    let storage_url = chosen(urls, &settings.endpoint);
    if access.token.id.is_empty() {
        return Err(empty_token);
    }
    Ok(ScopedToken { secret: SecretString::from(access.token.id), storage_url, project: access.token.tenant.map(|tenant| tenant.id) })
}

fn v3(http: &HttpClient, settings: &Settings, project_id: Option<&str>) -> Result<ScopedToken, StorageError> {
    // Keystone's default domain, as in the client library.
    let domain = |name: &Option<String>| match name {
        Some(name) => json!({"name": name}),
        None => json!({"id": "default"}),
    };
    let scope = match (&settings.project, project_id) {
        (Some(name), _) => Some(json!({"project": {"name": name, "domain": domain(&settings.project_domain)}})),
        (None, Some(id)) => Some(json!({"project": {"id": id}})),
        (None, None) => None,
    };
    let user = json!({"name": settings.user, "domain": domain(&settings.user_domain), "password": settings.key.expose_secret()});
    let mut auth = json!({"identity": {"methods": ["password"], "password": {"user": user}}});
    if let (Some(scope), Some(auth)) = (scope, auth.as_object_mut()) {
        auth.insert("scope".to_owned(), scope);
    }
    let response = post(http, &versioned(settings, "v3", "auth/tokens"), &json!({"auth": auth}))?;
    let Some(secret) = response.header("x-subject-token").filter(|token| !token.is_empty()).map(SecretString::from) else {
        return Err(response.protocol_error("the response to the login has no token; check that the URL is for Keystone version 3"));
    };
    let Token { token } = document(response)?;
    let urls = endpoints(&token.catalog, settings)
        .filter(|endpoint| endpoint.interface == settings.endpoint.interface)
        .map(|endpoint| (endpoint.region.as_deref().or(endpoint.region_id.as_deref()), endpoint.url.as_str()));
    Ok(ScopedToken { secret, storage_url: chosen(urls, &settings.endpoint), project: token.project.map(|project| project.id) })
}

/// Returns the endpoints of the services of the right type.
fn endpoints<'a, E>(catalog: &'a [Service<E>], settings: &Settings) -> impl Iterator<Item = &'a E> {
    catalog.iter().filter(|service| service.kind == settings.endpoint.service).flat_map(|service| &service.endpoints)
}

/// Returns the first endpoint in the region or, as Cinder does, the first of all if the region has none.
fn chosen<'a>(urls: impl Iterator<Item = (Option<&'a str>, &'a str)>, endpoint: &EndpointFilter) -> Option<String> {
    let mut first = None;
    for (region, url) in urls {
        if endpoint.region.as_deref().is_none_or(|endpoint| region == Some(endpoint)) {
            return Some(url.to_owned());
        }
        first = first.or(Some(url));
    }
    first.map(str::to_owned)
}

/// Returns the URL of a call. As in the client library, the version is appended if the URL has none.
fn versioned(settings: &Settings, version: &str, call: &str) -> String {
    let base = settings.auth_url.as_str();
    let last = settings.auth_url.path().rsplit('/').next().unwrap_or_default();
    let named = last.strip_prefix('v').is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()));
    if named { format!("{base}/{call}") } else { format!("{base}/{version}/{call}") }
}

fn post(http: &HttpClient, url: &str, body: &Value) -> Result<HttpResponse, StorageError> {
    let headers = [http::header("content-type", "application/json", false)?, http::header("accept", "application/json", false)?];
    let response = http.send(Method::POST, url, &headers, Some(body.to_string().into_bytes()))?;
    if response.is_success() {
        return Ok(response);
    }
    Err(refused(response, "check backup_swift_user, backup_swift_key, backup_swift_project and the two domains"))
}

fn refused(response: HttpResponse, hint: &str) -> StorageError {
    let mut error = response.into_error(complaint);
    match error.kind {
        StorageErrorKind::Authentication | StorageErrorKind::Permission => error.text.push_str(&format!("; {hint}")),
        // A missing login URL is not a missing object.
        StorageErrorKind::NoObject => {
            error.kind = StorageErrorKind::Configuration;
            error.text.push_str("; check backup_swift_auth_url and backup_swift_auth_version");
        }
        _ => {}
    }
    error
}

/// Returns the message of Keystone's error document.
fn complaint(body: &[u8]) -> Option<String> {
    let document: Value = serde_json::from_slice(body).ok()?;
    document.get("error")?.get("message")?.as_str().map(str::to_owned)
}

fn document<T: for<'de> Deserialize<'de>>(response: HttpResponse) -> Result<T, StorageError> {
    // The document may contain a token, so none of it is shown.
    response.parse(LARGEST_ANSWER, |body| {
        serde_json::from_slice(body).map_err(|error| {
            let category = format!("{:?}", error.classify()).to_lowercase();
            format!("the response to the login is not a document of Keystone ({} at byte {})", quote(&category), error.column())
        })
    })
}

#[derive(Deserialize)]
struct Access {
    access: AccessBody,
}

#[derive(Deserialize)]
struct AccessBody {
    token: OldToken,
    #[serde(default, rename = "serviceCatalog")]
    catalog: Vec<Service<OldEndpoint>>,
}

#[derive(Deserialize)]
struct OldToken {
    id: String,
    tenant: Option<Project>,
}

#[derive(Deserialize)]
struct OldEndpoint {
    region: Option<String>,
    #[serde(rename = "publicURL")]
    public_url: Option<String>,
    #[serde(rename = "internalURL")]
    internal_url: Option<String>,
    #[serde(rename = "adminURL")]
    admin_url: Option<String>,
}

#[derive(Deserialize)]
struct Token {
    token: TokenBody,
}

#[derive(Deserialize)]
struct TokenBody {
    #[serde(default)]
    catalog: Vec<Service<Endpoint>>,
    project: Option<Project>,
}

#[derive(Deserialize)]
struct Project {
    id: String,
}

#[derive(Deserialize)]
struct Service<E> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default = "Vec::new")]
    endpoints: Vec<E>,
}

#[derive(Deserialize)]
struct Endpoint {
    interface: String,
    region: Option<String>,
    region_id: Option<String>,
    url: String,
}
