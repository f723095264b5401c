//! No certificate authority at all, in the place of Mozilla's list.
//!
//! The `mysql` crate adds the public crate's list to every CA file that it is given. A database's private authority
//! would then be one of some 140, and with `verify-ca`, where the name is not looked at, any public certificate would
//! do. With this list a connection trusts what it was told to trust and nothing else.

#![no_std]
#![forbid(unsafe_code)]

use rustls_pki_types::{Der, TrustAnchor};

/// One entry that no certificate can descend from: its name and its key are not valid DER. A list of none would be
/// refused by rustls even where the certificate is not to be verified.
pub const TLS_SERVER_ROOTS: &[TrustAnchor<'static>] =
    &[TrustAnchor { subject: Der::from_slice(b"\xff"), subject_public_key_info: Der::from_slice(b"\xff"), name_constraints: None }];
