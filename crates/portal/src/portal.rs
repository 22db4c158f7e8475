//! What every request and every session of one portal shares.

use std::sync::{Arc, PoisonError, RwLock};

use adit_policy::{ClientId, GatewayId};
use adit_protocol::client::AuthorizationCreated;
use adit_protocol::gateway::GatewayAuthorization;
use adit_protocol::{EncodedKey, PeerIntroduction};

use crate::authorize::Waiting;
use crate::clock;
use crate::connect_limit::ConnectLimit;
use crate::credential::{NoRandomness, Secrets};
use crate::hub::Hub;
use crate::nodes::Node;
use crate::store::{Account, Lease, Store};
use crate::web::SignIn;

/// One portal.
#[derive(Debug)]
pub(crate) struct Portal {
    /// What lasts.
    pub(crate) store: Store,
    /// Who is here.
    pub(crate) hub: Hub,
    /// Requests for access that wait for their turn.
    pub(crate) requests: Waiting,
    /// This node among others.
    pub(crate) node: Node,
    /// Keys of the portal itself.
    pub(crate) secrets: Secrets,
    /// Address ranges and DNS settings, as they were read last.
    pub(crate) account: RwLock<Arc<Account>>,
    /// How often one address or token may connect.
    pub(crate) limit: ConnectLimit,
    /// Passwords being checked, and failures to sign in.
    pub(crate) sign_in: SignIn,
    /// The CA that peers must be told of (`sha256:…`), if it is the portal's own.
    pub(crate) authority: Option<String>,
}

/// A portal that is shared by tasks.
pub(crate) type SharedPortal = Arc<Portal>;

impl Portal {
    /// Address ranges and DNS settings of this moment.
    pub(crate) fn account(&self) -> Arc<Account> {
        Arc::clone(&self.account.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Goes on with other settings.
    pub(crate) fn set_account(&self, account: Account) {
        *self.account.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(account);
    }

    /// Both sides of an introduction, without candidates.
    pub(crate) fn introduction(
        &self,
        lease: &Lease,
        request_id: u64,
    ) -> Result<(AuthorizationCreated, GatewayAuthorization), NoRandomness> {
        let to_client = AuthorizationCreated {
            request_id,
            id: lease.id,
            resource: lease.resource.id,
            site: lease.resource.site.id,
            expires_at_ms: clock::wire_ms(lease.expires_ms),
            gateway: self.gateway_introduction(lease)?,
        };
        Ok((to_client, self.gateway_authorization(lease)?))
    }

    /// What a gateway must know of a lease, without the client's candidates.
    pub(crate) fn gateway_authorization(&self, lease: &Lease) -> Result<GatewayAuthorization, NoRandomness> {
        let epoch = lease.connection.wire_epoch();
        let (ipv4, ipv6) = self.account().tunnel_addresses(lease.client.address_index);
        Ok(GatewayAuthorization {
            id: lease.id,
            client: PeerIntroduction {
                id: ClientId::from_uuid(lease.client.id),
                name: lease.client.name.clone(),
                public_key: EncodedKey(lease.client.public_key),
                ipv4,
                ipv6,
                preshared_key: self.secrets.preshared_key(&lease.client, &lease.gateway, epoch)?,
                epoch,
                local_ice: lease.connection.gateway_ice(),
                remote_ice: lease.connection.client_ice(),
                candidates: Vec::new(),
            },
            resource: lease.resource.clone(),
            expires_at_ms: clock::wire_ms(lease.expires_ms),
        })
    }

    fn gateway_introduction(&self, lease: &Lease) -> Result<PeerIntroduction<GatewayId>, NoRandomness> {
        let epoch = lease.connection.wire_epoch();
        let (ipv4, ipv6) = self.account().tunnel_addresses(lease.gateway.address_index);
        Ok(PeerIntroduction {
            id: GatewayId::from_uuid(lease.gateway.id),
            name: lease.gateway.name.clone(),
            public_key: EncodedKey(lease.gateway.public_key),
            ipv4,
            ipv6,
            preshared_key: self.secrets.preshared_key(&lease.client, &lease.gateway, epoch)?,
            epoch,
            local_ice: lease.connection.client_ice(),
            remote_ice: lease.connection.gateway_ice(),
            candidates: Vec::new(),
        })
    }
}
