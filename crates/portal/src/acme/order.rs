//! One order: account, challenges, certificate (RFC 8555, section 7).

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, ChallengeType, Identifier, NewAccount, NewOrder, Order,
    OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};

use super::{Challenges, Options};
use crate::data_dir::{DataDir, replace_private};

/// The account's key and address, below `tls`.
const ACCOUNT: &str = "acme-account.json";

/// How long each step of the authority may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Gets a certificate for the names: the chain and its key, as PEM.
pub(super) async fn obtain(
    options: &Options,
    directory: &DataDir,
    challenges: &Challenges,
) -> Result<String> {
    let account = account(options, &directory.tls(ACCOUNT)).await?;
    let names: Vec<Identifier> = options.names.iter().cloned().map(Identifier::Dns).collect();
    let mut order = account.new_order(&NewOrder::new(&names)).await.context("the order was refused")?;
    let answered = answer(&mut order, challenges).await;
    // Also when it failed: nobody is answered without an order.
    challenges.clear();
    answered?;
    let key = KeyPair::generate().context("cannot make the certificate's key")?;
    let mut params = CertificateParams::new(options.names.clone()).context("a name is no host name")?;
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key).context("cannot make the request")?;
    order.finalize_csr(request.der()).await.context("the authority refuses the request")?;
    let chain = order.poll_certificate(&patience()).await.context("the authority gave no certificate")?;
    Ok(format!("{}\n{}", chain.trim_end(), key.serialize_pem()))
}

/// Answers the challenges and waits for the verdict.
async fn answer(order: &mut Order, challenges: &Challenges) -> Result<()> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        match authorization.status {
            AuthorizationStatus::Valid => continue,
            AuthorizationStatus::Pending => {}
            status => bail!("the authority says that an authorization is {status:?}"),
        }
        let mut challenge = authorization
            .challenge(ChallengeType::TlsAlpn01)
            .context("the authority does not offer the challenge TLS-ALPN-01")?;
        let name = challenge.identifier().to_string();
        let digest = <[u8; 32]>::try_from(challenge.key_authorization().digest().as_ref())?;
        challenges.add(&name, &digest)?;
        challenge.set_ready().await.with_context(|| format!("the challenge of {name} was refused"))?;
    }
    match order.poll_ready(&patience()).await? {
        OrderStatus::Ready | OrderStatus::Valid => Ok(()),
        status => bail!("{}: the order is {status:?}", reason(order).await),
    }
}

/// What the authority says about the name that it could not reach.
async fn reason(order: &mut Order) -> String {
    let mut authorizations = order.authorizations();
    while let Some(Ok(authorization)) = authorizations.next().await {
        if let Some(problem) = authorization.challenges.iter().find_map(|known| known.error.as_ref()) {
            return problem.to_string();
        }
    }
    "the authority gives no reason".to_owned()
}

fn patience() -> RetryPolicy {
    RetryPolicy::new().timeout(PATIENCE)
}

/// The account at this authority; a new one where there is none yet.
async fn account(options: &Options, path: &Path) -> Result<Account> {
    if let Some(kept) = kept(options, path)? {
        let http = Box::new(super::http::Client::new(options)?);
        return Account::builder_with_http(http)
            .from_credentials(kept)
            .await
            .context("the authority cannot be reached");
    }
    let contact: Vec<String> = options.contact.iter().map(|contact| format!("mailto:{contact}")).collect();
    let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
    let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
    let http = Box::new(super::http::Client::new(options)?);
    let (account, credentials) = Account::builder_with_http(http)
        .create(&new, options.directory.to_string(), None)
        .await
        .context("the authority gives no account")?;
    let kept = Kept { directory: options.directory.to_string(), credentials };
    replace_private(path, &serde_json::to_vec(&kept)?)?;
    Ok(account)
}

/// An account is one authority's.
#[derive(serde::Serialize, serde::Deserialize)]
struct Kept {
    directory: String,
    credentials: AccountCredentials,
}

fn kept(options: &Options, path: &Path) -> Result<Option<AccountCredentials>> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    match serde_json::from_slice::<Kept>(&bytes) {
        Ok(kept) if kept.directory == options.directory.as_str() => Ok(Some(kept.credentials)),
        Ok(_) => Ok(None),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the account's file is damaged; a new one is made");
            Ok(None)
        }
    }
}
