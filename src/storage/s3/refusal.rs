//! What S3's errors mean. The code in the document says more than the status.

use super::xml::{self, Complaint};
use crate::storage::http::Answer;
use crate::storage::{StorageError, StorageErrorKind};

/// An answer that is no success, or none at all.
#[derive(Debug)]
pub(super) struct Refused {
    /// `None` where no answer came.
    pub(super) status: Option<u16>,
    /// S3's own word for it.
    pub(super) code: Option<String>,
    /// The region that the server wants the signature for.
    pub(super) region: Option<String>,
    pub(super) error: StorageError,
}

impl From<StorageError> for Refused {
    fn from(error: StorageError) -> Self {
        Self { status: None, code: None, region: None, error }
    }
}

impl Refused {
    /// From the answer.
    pub(super) fn new(answer: Answer) -> Self {
        let status = answer.status();
        let header = answer.header("x-amz-bucket-region").map(str::to_owned);
        let mut complaint: Option<Complaint> = None;
        let mut error = answer.refusal(|body| {
            complaint = xml::complaint(body);
            complaint.as_ref().map(|complaint| format!("{}: {}", complaint.code, complaint.message))
        });
        if let Some((kind, hint)) = complaint.as_ref().and_then(|complaint| meaning(&complaint.code, status)) {
            error.kind = kind;
            error.text.push_str(hint);
        }
        if let Some(region) = header.as_ref().filter(|_| status == 301) {
            error.text.push_str(&format!("; the bucket is in the region {region:?}"));
        }
        let region = match &complaint {
            Some(complaint) => complaint.region.clone().filter(|_| complaint.code.starts_with("AuthorizationHeaderMalformed")),
            // HEAD has no document.
            None => header.filter(|_| status == 400),
        };
        Self { status: Some(status), code: complaint.map(|complaint| complaint.code), region, error }
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
