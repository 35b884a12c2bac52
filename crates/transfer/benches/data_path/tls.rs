//! The certificates of the run: a CA of its own, trusted by every client, and the store's certificate for 127.0.0.1.

use std::{path::Path, sync::Arc};

use anyhow::Context as _;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio_rustls::rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

/// What clients trust.
pub(crate) const CA: &str = "ca.pem";
const CERTIFICATE: &str = "store.pem";
const KEY: &str = "store.key";

/// Makes the certificates in the folder of the run.
pub(crate) fn make(work: &Path) -> anyhow::Result<()> {
    let mut ca = CertificateParams::default();
    ca.distinguished_name.push(DnType::CommonName, "benchmark CA");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate()?;
    fs_err::write(work.join(CA), ca.self_signed(&ca_key)?.pem())?;
    let mut store = CertificateParams::new(["127.0.0.1".to_owned()])?;
    store.distinguished_name.push(DnType::CommonName, "benchmark store");
    store.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = store.signed_by(&key, &Issuer::new(ca, ca_key))?;
    fs_err::write(work.join(CERTIFICATE), certificate.pem())?;
    fs_err::write(work.join(KEY), key.serialize_pem())?;
    Ok(())
}

/// The store's side.
pub(crate) fn server(work: &Path) -> anyhow::Result<Arc<ServerConfig>> {
    let certificate = CertificateDer::from_pem_file(work.join(CERTIFICATE)).context("read certificate")?;
    let key = PrivateKeyDer::from_pem_file(work.join(KEY)).context("read key")?;
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    Ok(Arc::new(config))
}

/// The side of the plain client.
pub(crate) fn client(work: &Path) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(work.join(CA)).context("read CA")?)?;
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
