//! Errors of S3. The code in the error document is more specific than the status.

use super::xml::{self, ErrorDocument};
use crate::storage::http::HttpResponse;
use crate::storage::{StorageError, StorageErrorKind};

/// An error response, or a request without a response.
#[derive(Debug)]
pub(super) struct S3Error {
    /// `None` without a response.
    pub(super) status: Option<u16>,
    /// The code of the error document.
    pub(super) code: Option<String>,
    /// The region for which the server wants the signature.
    pub(super) region: Option<String>,
    pub(super) error: StorageError,
}

impl From<StorageError> for S3Error {
    fn from(error: StorageError) -> Self {
        Self { status: None, code: None, region: None, error }
    }
}

impl S3Error {
    /// Converts an error response.
    pub(super) fn new(response: HttpResponse) -> Self {
        let status = response.status();
        let header = response.header("x-amz-bucket-region").map(str::to_owned);
        let mut document: Option<ErrorDocument> = None;
        let mut error = response.into_error(|body| {
            document = xml::error_document(body);
            document.as_ref().map(|document| format!("{}: {}", document.code, document.message))
        });
        if let Some((kind, hint)) = document.as_ref().and_then(|document| meaning(&document.code, status)) {
            error.kind = kind;
            error.text.push_str(hint);
        }
        if let Some(region) = header.as_ref().filter(|_| status == 301) {
            error.text.push_str(&format!("; the bucket is in the region {region:?}"));
        }
        let region = match &document {
            Some(document) => document.region.clone().filter(|_| document.code.starts_with("AuthorizationHeaderMalformed")),
            // The response to HEAD has no document.
            None => header.filter(|_| status == 400),
        };
        Self { status: Some(status), code: document.map(|document| document.code), region, error }
    }
}

/// Returns the kind of a code and a hint; `None` if the status is sufficient.
fn meaning(code: &str, status: u16) -> Option<(StorageErrorKind, &'static str)> {
    Some(match code {
        "NoSuchKey" => (StorageErrorKind::NoObject, ""),
        "NoSuchBucket" => (StorageErrorKind::NoContainer, ""),
        "SlowDown"
        | "RequestTimeout"
        | "InternalError"
        | "ServiceUnavailable"
        | "Throttling"
        | "ThrottlingException"
        | "RequestThrottled"
        | "RequestLimitExceeded"
        | "TooManyRequests" => (StorageErrorKind::Transient, ""),
        "RequestTimeTooSkewed" => {
            (StorageErrorKind::Configuration, "; the clocks of this host and of the server differ: correct the clock of this host")
        }
        "InvalidAccessKeyId" => (StorageErrorKind::Authentication, "; check backup_s3_store_access_key"),
        "SignatureDoesNotMatch" => (
            StorageErrorKind::Authentication,
            "; check backup_s3_store_secret_key, and that no proxy changes the path or the host of requests",
        ),
        "InvalidToken" | "ExpiredToken" | "TokenRefreshRequired" => (StorageErrorKind::Authentication, ""),
        "AccessDenied" | "AllAccessDisabled" | "AccountProblem" => (StorageErrorKind::Permission, ""),
        "InvalidObjectState" => (StorageErrorKind::Permission, "; the object is in an archive and must be restored from there first"),
        "InvalidBucketName" => (StorageErrorKind::Configuration, ""),
        "PermanentRedirect" | "TemporaryRedirect" => (StorageErrorKind::Protocol, ""),
        "AuthorizationHeaderMalformed" => (StorageErrorKind::Configuration, ""),
        "InvalidRequest" | "InvalidArgument" if status == 400 => (
            StorageErrorKind::Configuration,
            "; check backup_s3_sse_customer_key: it must be set only for objects that were stored with it",
        ),
        _ => return None,
    })
}
