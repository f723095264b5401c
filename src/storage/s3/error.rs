//! What S3's errors mean. The code in the document says more than the status.

use super::xml::{self, ErrorDocument};
use crate::storage::http::HttpResponse;
use crate::storage::{StorageError, StorageErrorKind};

/// A response that is no success, or none at all.
#[derive(Debug)]
pub(super) struct S3Error {
    /// `None` where no response came.
    pub(super) status: Option<u16>,
    /// S3's own word for it.
    pub(super) code: Option<String>,
    /// The region that the server wants the signature for.
    pub(super) region: Option<String>,
    pub(super) error: StorageError,
}

impl From<StorageError> for S3Error {
    fn from(error: StorageError) -> Self {
        Self { status: None, code: None, region: None, error }
    }
}

impl S3Error {
    /// From the response.
    pub(super) fn new(response: HttpResponse) -> Self {
        let status = response.status();
        let header = response.header("x-amz-bucket-region").map(str::to_owned);
        let mut error_document: Option<ErrorDocument> = None;
        let mut error = response.into_error(|body| {
            error_document = xml::error_document(body);
            error_document.as_ref().map(|error_document| format!("{}: {}", error_document.code, error_document.message))
        });
        if let Some((kind, hint)) = error_document.as_ref().and_then(|error_document| meaning(&error_document.code, status)) {
            error.kind = kind;
            error.text.push_str(hint);
        }
        if let Some(region) = header.as_ref().filter(|_| status == 301) {
            error.text.push_str(&format!("; the bucket is in the region {region:?}"));
        }
        let region = match &error_document {
            Some(error_document) => {
                error_document.region.clone().filter(|_| error_document.code.starts_with("AuthorizationHeaderMalformed"))
            }
            // HEAD has no document.
            None => header.filter(|_| status == 400),
        };
        Self { status: Some(status), code: error_document.map(|error_document| error_document.code), region, error }
    }
}

/// A code's meaning, and what to do; `None` where the status says enough.
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
            (StorageErrorKind::Configuration, "; the clocks of this host and of the server differ: set this host's clock")
        }
        "InvalidAccessKeyId" => (StorageErrorKind::Authentication, "; check backup_s3_store_access_key"),
        "SignatureDoesNotMatch" => (
            StorageErrorKind::Authentication,
            "; check backup_s3_store_secret_key, and that nothing on the way changes the path or the host of requests",
        ),
        "InvalidToken" | "ExpiredToken" | "TokenRefreshRequired" => (StorageErrorKind::Authentication, ""),
        "AccessDenied" | "AllAccessDisabled" | "AccountProblem" => (StorageErrorKind::Permission, ""),
        "InvalidObjectState" => {
            (StorageErrorKind::Permission, "; the object was moved to an archive and must be restored from there first")
        }
        "InvalidBucketName" => (StorageErrorKind::Configuration, ""),
        "PermanentRedirect" | "TemporaryRedirect" => (StorageErrorKind::Protocol, ""),
        "AuthorizationHeaderMalformed" => (StorageErrorKind::Configuration, ""),
        "InvalidRequest" | "InvalidArgument" if status == 400 => (
            StorageErrorKind::Configuration,
            "; was it stored with a customer's key (backup_s3_sse_customer_key), or is one given for an object without?",
        ),
        _ => return None,
    })
}
