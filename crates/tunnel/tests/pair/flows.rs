//! What a gateway reports of the flows that went through it, and a client of its own.

use std::time::Duration;

use adit_protocol::flow::{FlowEnd, FlowLogChanged, FlowPath, FlowRecord};
use adit_protocol::{PortalToClient, PortalToGateway};

use crate::packets::{A, ip, socket, udp};
use crate::portal::{Out, cidr, client_id, dns, gateway_id, resource, resource_id};
use crate::world::{World, client_address};

/// Everything that is to be reported now.
fn reports(world: &mut World) -> Vec<FlowRecord> {
    world.with_gateway(0, |gateway, now| std::iter::from_fn(|| gateway.poll_flow(now)).collect())
}

/// The same of the client.
fn own_reports(world: &mut World) -> Vec<FlowRecord> {
    world.with_client(0, |client, now| std::iter::from_fn(|| client.poll_flow(now)).collect())
}

#[test]
fn both_ends_tell_the_same_of_a_flow() {
    let mut world = World::new([resource(1, cidr("10.1.0.0/16"))]);
    for _ in 0..3 {
        assert!(world.exchange(0, 5000, socket("10.1.0.7:53")).is_answer());
    }
    world.run(Duration::from_secs(150));
    let (gateways, clients) = (reports(&mut world), own_reports(&mut world));
    let (there, here) = (gateways.last().unwrap(), clients.last().unwrap());
    assert_eq!((there.client, there.gateway), (Some(client_id(0)), None));
    assert_eq!((here.client, here.gateway), (None, Some(gateway_id(0))));
    let told = |record: &FlowRecord| {
        let ends = (record.source, record.source_port, record.destination, record.destination_port);
        let sums = [record.sent_packets, record.sent_bytes, record.received_packets, record.received_bytes];
        (record.authorization, record.resource, record.protocol, ends, record.path, record.end, sums)
    };
    assert_eq!(told(here), told(there));
    assert_eq!((here.end, here.path), (Some(FlowEnd::Idle), Some(FlowPath::Direct)));
    assert_ne!(here.id, there.id, "each names its own account");
}

#[test]
fn a_client_reports_the_name_and_its_last_flows_when_it_stops() {
    let mut world = World::new([resource(1, dns("*.corp"))]);
    world.zone.insert("wiki.corp".into(), vec![ip("10.9.0.1")]);
    let proxies = world.look_up(0, "wiki.corp", A);
    assert!(world.exchange(0, 5000, (proxies[0], 443).into()).is_answer());
    world.with_client(0, |client, now| client.shut_down(now, adit_protocol::peer::GoodbyeReason::SignedOut));
    let all = own_reports(&mut world);
    let [record] = &all[..] else { panic!("{all:?}") };
    assert_eq!(record.name.as_deref(), Some("wiki.corp"));
    assert_eq!(record.destination, proxies[0], "it knows no other");
    assert_eq!(record.end, Some(FlowEnd::ShuttingDown));
    assert_eq!(own_reports(&mut world), []);
}

#[test]
fn a_flow_is_reported_once_with_everything_that_it_carried() {
    let mut world = World::new([resource(1, cidr("10.1.0.0/16"))]);
    let destination = socket("10.1.0.7:53");
    for _ in 0..3 {
        assert!(world.exchange(0, 5000, destination).is_answer());
    }
    assert_eq!(reports(&mut world), [], "it is young and open");
    let carried = |world: &World| -> (usize, usize) {
        let received = &world.gateways[0].received;
        (received.len(), received.iter().map(|(_, packet)| packet.len()).sum())
    };
    let (packets, bytes) = carried(&world);
    world.run(Duration::from_secs(150));
    let all = reports(&mut world);
    let (last, open) = all.split_last().unwrap();
    assert!(open.iter().all(|record| record.end.is_none() && record.id == last.id), "{all:?}");
    assert_eq!(last.end, Some(FlowEnd::Idle));
    assert_eq!((last.sent_packets, last.sent_bytes), (packets as u64, bytes as u64));
    assert_eq!((last.received_packets, last.received_bytes), (packets as u64, bytes as u64), "an echo");
    assert_eq!((last.source, last.source_port), (client_address(0, 5000).ip(), 5000));
    assert_eq!((last.destination, last.destination_port), (destination.ip(), 53));
    assert_eq!((last.protocol, last.name.as_deref(), last.path), (17, None, Some(FlowPath::Direct)));
    assert_eq!(last.id.get_version_num(), 7);
    assert!(last.opened_ms <= last.at_ms);
}

#[test]
fn a_flow_to_a_name_says_which_name_and_where_it_really_went() {
    let mut world = World::new([resource(1, dns("*.corp"))]);
    world.zone.insert("wiki.corp".into(), vec![ip("10.9.0.1")]);
    let proxies = world.look_up(0, "wiki.corp", A);
    assert!(world.exchange(0, 5000, (proxies[0], 443).into()).is_answer());
    world.with_gateway(0, |gateway, now| {
        gateway.shut_down(now, adit_protocol::peer::GoodbyeReason::ShuttingDown);
    });
    let all = reports(&mut world);
    let [record] = &all[..] else { panic!("{all:?}") };
    assert_eq!(record.name.as_deref(), Some("wiki.corp"));
    assert_eq!((record.destination, record.destination_port), (ip("10.9.0.1"), 443));
    assert_eq!(record.end, Some(FlowEnd::ShuttingDown));
    assert_eq!(reports(&mut world), []);
}

#[test]
fn a_revoked_flow_says_so() {
    let mut world = World::new([resource(1, cidr("10.1.0.0/16")), resource(2, cidr("10.2.0.0/16"))]);
    assert!(world.exchange(0, 5000, socket("10.1.0.7:53")).is_answer());
    assert!(world.exchange(0, 5000, socket("10.2.0.7:53")).is_answer());
    let revoked = resource_id(1);
    world.administer(|portal| portal.revoke(revoked));
    world.run(Duration::from_millis(200));
    let all = reports(&mut world);
    let [record] = &all[..] else { panic!("{all:?}") };
    assert_eq!((record.resource, record.end), (revoked, Some(FlowEnd::AuthorizationEnded)));
}

#[test]
fn an_open_flow_is_reported_now_and_then_if_it_carries_something() {
    let mut world = World::new([resource(1, cidr("10.1.0.0/16"))]);
    let destination = socket("10.1.0.7:53");
    let mut bytes = Vec::new();
    for round in 0..13 {
        assert!(world.exchange(0, 5000, destination).is_answer(), "{round}");
        let open = reports(&mut world);
        assert!(open.iter().all(|record| record.end.is_none()), "{open:?}");
        bytes.extend(open.into_iter().map(|record| record.sent_bytes));
        world.client_sends(0, &udp(client_address(0, 5000), destination, b"more"));
        world.run(Duration::from_secs(15));
    }
    let open = reports(&mut world);
    bytes.extend(open.into_iter().map(|record| record.sent_bytes));
    assert_eq!(bytes.len(), 1, "after ten seconds, and then only after five minutes: {bytes:?}");
}

#[test]
fn nothing_is_kept_for_a_portal_without_a_flow_log() {
    let mut world = World::new([resource(1, cidr("10.1.0.0/16"))]);
    world.portal.keeps_flows = false;
    world.connect_gateway(0);
    world.connect_client(0);
    world.run(Duration::from_millis(100));
    assert!(world.exchange(0, 5000, socket("10.1.0.7:53")).is_answer());
    world.run(Duration::from_secs(200));
    assert_eq!(reports(&mut world), []);
    assert_eq!(own_reports(&mut world), []);
}

#[test]
fn whoever_is_connected_stops_and_begins_when_the_log_is_switched() {
    let switch = |world: &mut World, keeps_flows| {
        let changed = FlowLogChanged { keeps_flows };
        let to_client = Out::Client(client_id(0), PortalToClient::FlowLogChanged(changed));
        let to_gateway = Out::Gateway(gateway_id(0), PortalToGateway::FlowLogChanged(changed));
        world.administer(|_| vec![to_client, to_gateway]);
        world.run(Duration::from_millis(100));
    };
    let mut world = World::new([resource(1, cidr("10.1.0.0/16"))]);
    assert!(world.exchange(0, 5000, socket("10.1.0.7:53")).is_answer());
    switch(&mut world, false);
    assert!(world.exchange(0, 5001, socket("10.1.0.7:53")).is_answer());
    world.run(Duration::from_secs(200));
    assert_eq!((reports(&mut world), own_reports(&mut world)), (vec![], vec![]), "not even what was open");
    switch(&mut world, true);
    assert!(world.exchange(0, 5002, socket("10.1.0.7:53")).is_answer());
    world.run(Duration::from_secs(200));
    for told in [reports(&mut world), own_reports(&mut world)] {
        let last = told.last().unwrap();
        assert_eq!((last.source_port, last.end), (5002, Some(FlowEnd::Idle)));
        assert!(told.iter().all(|record| record.id == last.id), "{told:?}");
    }
}
