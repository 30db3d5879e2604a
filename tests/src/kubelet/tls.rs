//! Certificates of a lab node: an authority, and what it signs.

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair};

use crate::error::{LabError, Result};

/// Certificates and their keys, as PEM.
pub(super) struct Made {
    pub(super) authority: String,
    pub(super) kubelet: String,
    pub(super) kubelet_key: String,
    pub(super) client: String,
    pub(super) client_key: String,
    pub(super) asking: String,
    pub(super) asking_key: String,
    pub(super) api: String,
    pub(super) api_key: String,
}

/// Makes them all anew.
pub(super) fn make() -> Result<Made> {
    made().map_err(|error| LabError::Odd(format!("no certificates: {error}")))
}

fn made() -> Result<Made, rcgen::Error> {
    let mut params = named("kubernetes", &[])?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate()?;
    let authority = params.self_signed(&key)?.pem();
    let issuer = Issuer::new(params, key);
    let signed = |params: CertificateParams| -> Result<(String, String), rcgen::Error> {
        let key = KeyPair::generate()?;
        Ok((params.signed_by(&key, &issuer)?.pem(), key.serialize_pem()))
    };
    // kubelet signs its own, for the node's name and no address.
    let kubelet_key = KeyPair::generate()?;
    let kubelet = named("lab-node@1767607200", &["lab-node"])?.self_signed(&kubelet_key)?;
    let mut client = named("system:node:lab-node", &[])?;
    client
        .distinguished_name
        .push(DnType::OrganizationName, "system:nodes");
    let (client, client_key) = signed(client)?;
    let (asking, asking_key) = signed(named("kube-apiserver-kubelet-client", &[])?)?;
    let (api, api_key) = signed(named(
        "kube-apiserver",
        &["kubernetes", "localhost", "127.0.0.1"],
    )?)?;
    Ok(Made {
        authority,
        kubelet: kubelet.pem(),
        kubelet_key: kubelet_key.serialize_pem(),
        client,
        client_key,
        asking,
        asking_key,
        api,
        api_key,
    })
}

fn named(common: &str, alternatives: &[&str]) -> Result<CertificateParams, rcgen::Error> {
    let alternatives: Vec<String> = alternatives.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(alternatives)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common);
    Ok(params)
}
