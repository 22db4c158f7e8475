//! The ground the programs stand on: delay, loss, translation, blocked paths, names, and what is left behind.
//!
//! Needs root, since it makes network namespaces; without root each test says so and passes.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use adit_lab::link::Profile;
use adit_lab::nat::{Nat, Udp};
use adit_lab::probe::dns::DnsServer;
use adit_lab::probe::udp::{EchoServer, Probe};
use adit_lab::probe::web::WebServer;
use adit_lab::probe::{http, ping};
use adit_lab::process::{Signal, Spawn};
use adit_lab::topology::{Edge, Families, Options, PUBLIC_RESOLVER, Topology};
use adit_lab::world;

/// One world at a time: the figures are about the emulator, not about two worlds sharing two cores.
static ALONE: Mutex<()> = Mutex::new(());

fn alone(test: &str) -> Option<MutexGuard<'static, ()>> {
    if !world::is_permitted() {
        eprintln!("{test}: skipped, network namespaces need root");
        return None;
    }
    Some(ALONE.lock().unwrap_or_else(PoisonError::into_inner))
}

fn log_dir(test: &str) -> PathBuf {
    std::env::temp_dir().join(format!("adit-lab-{}-{test}", std::process::id()))
}

/// A world whose log directory goes with it.
struct Ground {
    topology: Topology,
    log_dir: PathBuf,
}

impl std::ops::Deref for Ground {
    type Target = Topology;

    fn deref(&self) -> &Topology {
        &self.topology
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        // Empty or not, nobody reads it after the test.
        let _ = std::fs::remove_dir_all(&self.log_dir);
    }
}

fn raise(test: &str, options: &Options) -> Ground {
    let log_dir = log_dir(test);
    let topology = Topology::raise(options, &log_dir).expect("raising the world");
    Ground { topology, log_dir }
}

#[test]
fn delay_and_loss_are_what_was_asked_for_and_can_change() {
    let Some(_alone) = alone("delay and loss") else { return };
    let options =
        Options { client_link: Some(Profile::delay_ms(20)), gateways_per_site: 0, ..Options::default() };
    let world = raise("delay", &options);
    let client = world.client();
    let portal = world.portal.address;

    for target in [IpAddr::from(portal.v4), portal.v6.into()] {
        let report = ping::ping(&client.host, &target.to_string(), 20, Duration::from_millis(20)).unwrap();
        let average = report.average.expect("replies");
        println!("round trip to {target} over 2 x 20 ms: {average:?}");
        assert_eq!(report.received, 20);
        // Never early; late only by what a loaded machine adds.
        assert!((40..60).contains(&average.as_millis()), "{average:?}");
    }

    let link = client.link.as_ref().unwrap();
    link.set(Profile::delay_ms(1).with_loss(0.10));
    let _echo = EchoServer::start(&world.portal.host, 7).unwrap();
    let probe = Probe::start(&client.host, (portal.v4, 7).into(), 2_000, 64).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    let report = probe.stop(Duration::from_millis(200));
    println!(
        "{} of {} echoed at 10 % loss each way; round trip {:?}",
        report.received, report.sent, report.median_round_trip
    );
    // 1 - 0.9^2 = 0.19; some 4,000 draws.
    assert!((0.14..0.24).contains(&report.loss()), "{}", report.loss());
    assert!(report.median_round_trip.unwrap() < Duration::from_millis(20));
    assert!(link.counts()[0].lost > 0 && link.counts()[1].lost > 0);

    link.set(Profile { mtu: 600, ..Profile::CLEAR });
    let small = client
        .host
        .finish(&["ping", "-c1", "-W1", "-s", "500", &portal.v4.to_string()], Duration::from_secs(5));
    assert!(small.unwrap().success(), "528 bytes through 600");
    let large = client
        .host
        .finish(&["ping", "-c1", "-W1", "-s", "900", &portal.v4.to_string()], Duration::from_secs(5));
    assert!(!large.unwrap().success(), "928 bytes through 600");
}

#[test]
fn a_rate_spreads_packets_out() {
    let Some(_alone) = alone("rate") else { return };
    let options = Options { client_link: Some(Profile::CLEAR), gateways_per_site: 0, ..Options::default() };
    let world = raise("rate", &options);
    let web = WebServer::start(&world.portal.host, 80, "hello").unwrap();
    let link = world.client().link.as_ref().unwrap();
    link.set(Profile { rate: Some(20_000_000), ..Profile::delay_ms(5) });
    let url = format!("http://{}/bytes/2500000", world.portal.address.v4);
    let page = http::fetch(&world.client().host, &url, Duration::from_secs(20)).unwrap();
    // 20 Mbit in 20 Mbit/s, plus headers and the connection's start.
    println!("2.5 MB at 20 Mbit/s: {:?}", page.total);
    assert!((1.0..2.0).contains(&page.total.as_secs_f64()), "{:?}", page.total);
    assert_eq!(web.requests(), 1);
}

/// Opens a socket on each side, sends as ICE would (both sides, several times), and reports whether each side
/// heard the other. The first side begins early: its first packet is unsolicited at the other's router, which is
/// where a careless firewall spoils the port.
fn punch(world: &Topology, families: Families) -> bool {
    let (client, gateway) = (world.client(), world.gateway());
    let a = socket(client);
    let b = socket(gateway);
    let a_public = mapped(world, &a, families);
    let b_public = mapped(world, &b, families);
    let deadline = Instant::now() + Duration::from_millis(1_500);
    let (mut a_heard, mut b_heard) = (false, false);
    a.send_to(b"early", b_public).expect("a way out");
    std::thread::sleep(Duration::from_millis(40));
    while Instant::now() < deadline && !(a_heard && b_heard) {
        let _ = a.send_to(b"from a", b_public);
        let _ = b.send_to(b"from b", a_public);
        std::thread::sleep(Duration::from_millis(20));
        a_heard |= receive(&a).is_some_and(|(text, _)| text == b"from b");
        b_heard |= receive(&b).is_some_and(|(text, _)| text == b"from a");
    }
    a_heard && b_heard
}

fn socket(edge: &Edge) -> UdpSocket {
    let socket = edge
        .host
        .enter(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)))
        .expect("entering the namespace")
        .expect("opening a socket");
    socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
    socket
}

fn receive(socket: &UdpSocket) -> Option<(Vec<u8>, SocketAddr)> {
    let mut buffer = [0; 128];
    let (length, from) = socket.recv_from(&mut buffer).ok()?;
    Some((buffer[..length].to_vec(), from))
}

/// What a STUN server would say: the address a server on the internet sees.
fn mapped(world: &Topology, socket: &UdpSocket, families: Families) -> SocketAddr {
    let server = world.relays[0]
        .host
        .enter(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)))
        .expect("entering the namespace")
        .expect("opening a socket");
    server.set_read_timeout(Some(Duration::from_secs(2))).expect("a timeout");
    let target = SocketAddr::new(
        world.relays[0].address.of(families),
        server.local_addr().expect("an address").port(),
    );
    socket.send_to(b"who am I", target).expect("a way out");
    receive(&server).expect("the server hears it").1
}

#[test]
fn hole_punching_works_through_port_preserving_routers_and_not_when_blocked() {
    let Some(_alone) = alone("hole punching") else { return };
    let world = raise("punch", &Options { client_link: Some(Profile::delay_ms(5)), ..Options::default() });
    assert!(punch(&world, Families::V4), "IPv4 through two translations");
    assert!(punch(&world, Families::V6), "IPv6 through two firewalls");

    world.direct_paths.block().unwrap();
    assert!(!punch(&world, Families::V4), "blocked IPv4");
    assert!(!punch(&world, Families::V6), "blocked IPv6");

    world.direct_paths.unblock().unwrap();
    assert!(punch(&world, Families::V4), "unblocked");
}

#[test]
fn symmetric_routers_cannot_be_punched() {
    let Some(_alone) = alone("symmetric") else { return };
    let options = Options { client_nat: Nat::Symmetric, gateway_nat: Nat::Symmetric, ..Options::default() };
    let world = raise("symmetric", &options);
    assert!(!punch(&world, Families::V4), "each destination has its own random port");
    assert!(punch(&world, Families::V6), "IPv6 is not translated");
}

#[test]
fn routers_drop_what_nobody_asked_for_and_can_stop_udp() {
    let Some(_alone) = alone("firewall") else { return };
    let world = raise("firewall", &Options::default());
    let client = world.client();
    let _inner = EchoServer::start(&client.host, 9).unwrap();
    let unasked = Probe::start(&world.portal.host, (client.address.v6, 9).into(), 50, 16).unwrap();
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!(unasked.stop(Duration::from_millis(100)).received, 0);

    let _outer = EchoServer::start(&world.portal.host, 9).unwrap();
    let server: SocketAddr = (world.portal.address.v4, 9).into();
    let probe = Probe::start(&client.host, server, 100, 16).unwrap();
    probe.wait_for_reply_after(Instant::now(), Duration::from_secs(2)).expect("UDP gets out");
    client.router.set(Nat::PortPreserving, Udp::Blocked).unwrap();
    probe.wait_for_silence(Duration::from_millis(200), Duration::from_secs(2)).expect("UDP is stopped");
    let web = WebServer::start(&world.portal.host, 80, "hello").unwrap();
    let page =
        http::fetch(&client.host, &format!("http://{}/", server.ip()), Duration::from_secs(5)).unwrap();
    assert_eq!((page.status, page.body.as_str(), web.requests()), (200, "hello", 1));
}

#[test]
fn private_networks_are_private_and_names_are_answered_where_they_belong() {
    let Some(_alone) = alone("names") else { return };
    let world = raise("names", &Options { gateways_per_site: 2, ..Options::default() });
    let site = &world.sites[0];
    let _web = WebServer::start(&site.web, 80, "private").unwrap();
    let private: [IpAddr; 2] = [site.web_address.v4.into(), site.web_address.v6.into()];
    let dns =
        DnsServer::start(&site.dns, site.dns_address.v4.into(), &[("app.corp.example", &private)]).unwrap();
    let public = DnsServer::start(
        &world.internet,
        PUBLIC_RESOLVER.v4.into(),
        &[("www.example.com", &[PUBLIC_RESOLVER.v4.into()])],
    )
    .unwrap();

    for gateway in &site.gateways {
        let page = http::fetch(&gateway.host, "http://app.corp.example/", Duration::from_secs(5)).unwrap();
        assert_eq!(page.body, "private");
    }
    assert!(dns.questions("app.corp.example") >= 2);
    assert!(http::fetch(&world.client().host, "http://app.corp.example/", Duration::from_secs(2)).is_err());
    let by_address = format!("http://{}/", site.web_address.v4);
    assert!(http::fetch(&world.client().host, &by_address, Duration::from_secs(2)).is_err());
    assert_eq!(public.questions("app.corp.example"), 1 + u64::from(public.questions("app.corp.example") > 1));
}

#[test]
fn one_ip_version_is_enough() {
    let Some(_alone) = alone("one version") else { return };
    for (families, other) in [(Families::V4, Families::V6), (Families::V6, Families::V4)] {
        let world = raise("families", &Options { families, ..Options::default() });
        let reach = |families| {
            let target = world.portal.address.of(families).to_string();
            ping::ping(&world.client().host, &target, 1, Duration::from_secs(1))
                .is_ok_and(|report| report.received == 1)
        };
        assert!(reach(families), "{families:?}");
        assert!(!reach(other), "{other:?}");
        assert!(punch(&world, families), "{families:?}");
    }
}

#[test]
fn programs_are_watched_signalled_and_ended_and_nothing_stays_behind() {
    let Some(_alone) = alone("programs") else { return };
    let world = raise("programs", &Options { gateways_per_site: 0, ..Options::default() });
    let host = world.portal.host.clone();
    let script = "echo ready; trap 'echo bye; exit 0' TERM; while :; do sleep 0.05; done";
    let mut program = host.spawn(&Spawn::new("polite", "sh").args(["-c", script])).unwrap();
    program.wait_for_output("ready", Duration::from_secs(5)).unwrap();
    assert!(program.resident_bytes().unwrap() > 100_000);
    program.stop(Duration::from_secs(5)).expect("status 0 on SIGTERM");
    assert!(program.output().contains("bye"));
    assert!(program.signal(Signal::SIGTERM).is_err(), "it has ended");

    let mut failing =
        host.spawn(&Spawn::new("failing", "sh").args(["-c", "echo broken >&2; exit 3"])).unwrap();
    let error = failing.wait_for_output("never", Duration::from_secs(5)).unwrap_err().to_string();
    assert!(error.contains("broken") && error.contains('3'), "{error}");

    let hanging = host.finish(&["sleep", "60"], Duration::from_millis(200));
    assert!(hanging.unwrap_err().to_string().contains("sleep"));

    let stubborn =
        host.spawn(&Spawn::new("stubborn", "sh").args(["-c", "trap '' TERM; sleep 300 & wait; sleep 300"]));
    let pid = stubborn.as_ref().unwrap().pid();
    let namespaces = world::owned();
    assert!(!namespaces.is_empty());
    drop(world);
    assert!(world::owned().is_empty());
    let gone = |name: &String| !std::path::Path::new("/run/netns").join(name).exists();
    assert!(namespaces.iter().all(gone));
    std::thread::sleep(Duration::from_millis(50));
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z "), "{state}");
    assert!(!log_dir("programs").exists());
}

#[test]
fn what_a_killed_run_left_behind_is_swept() {
    let Some(_alone) = alone("sweep") else { return };
    // No process can have this pid, so the owner is gone for certain.
    let name = format!("adit-4194305-7-{}-left", std::process::id());
    let ip = |arguments: &[&str]| std::process::Command::new("ip").args(arguments).spawn().unwrap();
    assert!(ip(&["netns", "add", &name]).wait().unwrap().success());
    let mut orphan = ip(&["netns", "exec", &name, "sleep", "300"]);
    std::fs::create_dir_all(format!("/etc/netns/{name}")).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    assert!(world::sweep_stale().contains(&name));
    assert!(!orphan.wait().unwrap().success(), "killed");
    assert!(!std::path::Path::new("/etc/netns").join(&name).exists());
    assert!(!world::sweep_stale().contains(&name));
}

#[test]
fn the_emulator_carries_a_hundred_thousand_packets_a_second() {
    let Some(_alone) = alone("throughput") else { return };
    let options =
        Options { client_link: Some(Profile::delay_ms(10)), gateways_per_site: 0, ..Options::default() };
    let world = raise("throughput", &options);
    let link = world.client().link.as_ref().unwrap();
    let socket = socket(world.client());
    let target: SocketAddr = (world.portal.address.v4, 9).into();
    let begin = Instant::now();
    for millisecond in 1..=1_000 {
        for _ in 0..100 {
            // Refused now and then, since nothing listens: the frames have crossed by then.
            let _ = socket.send_to(&[0; 200], target);
        }
        let due = begin + Duration::from_millis(millisecond);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    let took = begin.elapsed();
    std::thread::sleep(Duration::from_millis(500));
    let [_, outward] = link.counts();
    println!("100,000 datagrams sent in {took:?}; {outward:?}");
    // The kernel's own socket buffer may overflow on a busy machine; the emulator must not be what loses them.
    assert_eq!(outward.dropped + outward.lost, 0);
    assert!(outward.delivered > 80_000, "{outward:?}");
}
