//! What is read again when its files change: the tenants, and the listener's certificate.

use std::path::PathBuf;

use riser_core::TenantTable;
use riser_edge::ServerTls;

use super::config::{ConfigError, TlsFiles, read_file};
use super::reload::{Loaded, Source};
use crate::tenants::file as tenants_file;

/// Largest certificate or key file, in bytes: a long chain is some tens of thousands.
const PEM_BYTES: u64 = 1 << 20;

pub(super) struct Tenants(pub(super) PathBuf);

impl Source for Tenants {
    type Value = TenantTable;
    const NAME: &'static str = "tenants";

    fn load(&self) -> Result<Loaded<TenantTable>, ConfigError> {
        tenants_file::load(&self.0)
    }
}

/// A certificate and its key, and what they were made from, which tells them from others.
pub(crate) struct Certificate {
    pem: [String; 2],
    pub(super) tls: ServerTls,
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.pem == other.pem
    }
}

impl Source for TlsFiles {
    type Value = Certificate;
    const NAME: &'static str = "tls";

    fn load(&self) -> Result<Loaded<Certificate>, ConfigError> {
        let cert = read_file("the certificate", &self.cert, PEM_BYTES)?;
        let key = read_file("the key", &self.key, PEM_BYTES)?;
        let refused = |error: riser_edge::tls::TlsError| {
            let error = anyhow::Error::new(error);
            let (cert, key) = (self.cert.display(), self.key.display());
            ConfigError::Unreadable(format!("tls: {cert} and {key}: {error:#}"))
        };
        let tls = ServerTls::new(cert.as_bytes(), key.as_bytes()).map_err(refused)?;
        let files = vec![self.cert.clone(), self.key.clone()];
        Ok(Loaded { value: Certificate { pem: [cert, key], tls }, files })
    }
}
