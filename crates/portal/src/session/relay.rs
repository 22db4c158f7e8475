//! The session of a relay. Its secret is kept in memory only.

use adit_policy::RelayId;
use adit_protocol::relay::{RelayHello, RelayInit};
use adit_protocol::{EncodedKey, PortalToRelay, RelayToPortal};
use axum::extract::ws::WebSocket;

use super::link::{Ended, Link, Step};
use super::{Caller, clean_version, note_end, still_valid, turn_away};
use crate::clock;
use crate::hub::{Attendee, Push, RETURN_TIME, Receiver, RelayDetails};
use crate::portal::SharedPortal;
use crate::presentable::device_name;
use crate::store::By;

/// Bounds of a relay's secret in bytes: weak ones and abuse are both refused.
const SECRET_LENGTH: std::ops::RangeInclusive<usize> = 16..=256;

/// Serves one relay from hello to the end.
pub(super) async fn serve(portal: SharedPortal, socket: WebSocket, caller: Caller) {
    let mut link = Link::new(socket, caller.expires_ms);
    let hello = match link.hello::<RelayToPortal>().await {
        Ok(RelayToPortal::Hello(hello)) => hello,
        Ok(_) => return turn_away::<PortalToRelay>(link, "relay", &Ended::NoHello).await,
        Err(ended) => return turn_away::<PortalToRelay>(link, "relay", &ended).await,
    };
    let hello = RelayHello {
        name: device_name(&hello.name),
        version: clean_version(&hello.version).to_string(),
        ..hello
    };
    let id = match sign_in(&portal, &caller, &hello).await {
        Ok(id) => id,
        Err(ended) => return turn_away::<PortalToRelay>(link, "relay", &ended).await,
    };
    let who = Attendee { token: caller.token, key: EncodedKey([0; 32]), address: caller.address.clone() };
    let mut hub = portal.hub.join_relay(id, RelayDetails::new(&hello), who);
    tracing::info!(relay = %id, "relay connected");
    tracing::debug!(relay = %id, name = hello.name, address = caller.address, "who it is");
    let ended = match run(&portal, &mut link, &caller, id, &mut hub).await {
        Err(ended) => ended,
        Ok(never) => match never {},
    };
    if portal.hub.leave_relay(id, hub.session) {
        let portal = SharedPortal::clone(&portal);
        tokio::spawn(async move {
            tokio::time::sleep(RETURN_TIME).await;
            portal.hub.forget_relay(id);
        });
    }
    note_end("relay", &id, &ended);
    link.close::<PortalToRelay>(&ended).await;
}

async fn sign_in(portal: &SharedPortal, caller: &Caller, hello: &RelayHello) -> Result<RelayId, Ended> {
    if hello.revision == 0 {
        return Err(Ended::Misbehaved("revision 0 does not exist"));
    }
    if !SECRET_LENGTH.contains(&hello.secret.len()) {
        return Err(Ended::Misbehaved("a relay's secret has 16 to 256 bytes"));
    }
    if (hello.ipv4.is_none() && hello.ipv6.is_none()) || hello.port == 0 {
        return Err(Ended::Misbehaved("a relay needs an address and a port"));
    }
    if hello.tcp_port == Some(0) || hello.tls.as_ref().is_some_and(|tls| !tls.is_sound()) {
        return Err(Ended::Misbehaved("a relay that listens on TCP or TLS needs a port, and for TLS a name"));
    }
    let by = By { who: hello.name.clone(), address: caller.address.clone() };
    let mut change = portal.store.change(&by).await?;
    let id = change.sign_in_relay(hello, caller.token).await?;
    change.commit().await?;
    Ok(id)
}

async fn run(
    portal: &SharedPortal,
    link: &mut Link,
    caller: &Caller,
    id: RelayId,
    hub: &mut Receiver<PortalToRelay>,
) -> Result<std::convert::Infallible, Ended> {
    still_valid(portal, caller).await?;
    let init = RelayInit { portal_time_ms: clock::wire_ms(clock::now_ms()), relay: id };
    link.send(&PortalToRelay::Init(init)).await?;
    loop {
        match link.step::<RelayToPortal, _>(hub, None).await? {
            Step::Received(RelayToPortal::Hello(_)) => {
                return Err(Ended::Misbehaved("hello was said already"));
            }
            Step::Received(RelayToPortal::SecretRotated(rotated)) => {
                if !SECRET_LENGTH.contains(&rotated.secret.len()) {
                    return Err(Ended::Misbehaved("a relay's secret has 16 to 256 bytes"));
                }
                portal.hub.rotate_relay_secret(id, rotated.secret);
            }
            Step::Received(RelayToPortal::Draining(_)) => portal.hub.drain_relay(id),
            Step::Push(Push::Message { message, .. }) => link.send(&*message).await?,
            Step::Push(_) | Step::Alarm => {}
        }
    }
}
