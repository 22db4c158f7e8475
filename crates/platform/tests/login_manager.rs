//! The login manager over a bus of its own: sleep, people who come and go, and a service that dies.

#[expect(dead_code, reason = "each test file uses its part of the helpers")]
mod managers;
#[expect(dead_code, reason = "each test file uses its part of the helpers")]
mod namespace;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use adit_platform::dns_control::Bus;
use adit_platform::login_manager::{LoginEvent, LoginManager as _, Logind};
use futures_util::StreamExt as _;
use managers::Machine;
use namespace::isolated;
use zbus::{Connection, Message, MessageStream, OwnedObjectPath, Variant, connection, message};

const ROOT: &str = "/org/freedesktop/login1";
const SEAT: &str = "/org/freedesktop/login1/seat/seat0";
const NOBODY: Option<&str> = None;

/// Sessions: of two people, and of the screen where they sign in.
const SESSIONS: [(u32, &str); 3] = [(1000, "user"), (1001, "user"), (107, "greeter")];

fn path(text: &str) -> OwnedObjectPath {
    OwnedObjectPath::try_from(text).expect("a path")
}

/// What logind says on the bus, with one seat.
struct Served {
    bus: Connection,
    /// Which of the sessions, counted from 1, is active; 0 is none.
    active: Arc<AtomicU32>,
}

impl Served {
    async fn start(machine: &Machine) -> Self {
        let Bus::At(address) = machine.bus() else { panic!("a bus of its own") };
        let bus = connection::Builder::address(address.as_str()).build().await.expect("a bus");
        let active = Arc::new(AtomicU32::new(1));
        let mut calls = MessageStream::from(&bus);
        bus.request_name("org.freedesktop.login1").await.expect("the name");
        let (server, shown) = (bus.clone(), Arc::clone(&active));
        tokio::spawn(async move {
            while let Some(Ok(call)) = calls.next().await {
                if call.message_type() == message::Type::MethodCall {
                    answer(&server, &call, shown.load(Ordering::SeqCst)).await;
                }
            }
        });
        Self { bus, active }
    }

    async fn activate(&self, session: u32) {
        self.active.store(session, Ordering::SeqCst);
        let properties = "org.freedesktop.DBus.Properties";
        let changed = ("org.freedesktop.login1.Seat", Vec::<(String, String)>::new(), ["ActiveSession"]);
        self.bus
            .emit_signal(NOBODY, SEAT, properties, "PropertiesChanged", &changed)
            .await
            .expect("a signal");
    }
}

async fn answer(bus: &Connection, call: &Message, active: u32) {
    let header = call.header();
    if header.member().is_some_and(|member| member.as_str() == "ListSeats") {
        bus.reply(&header, &vec![("seat0", path(SEAT))]).await.expect("sends");
        return;
    }
    let (_, property): (String, String) = call.body().deserialize().expect("a property");
    let place = header.path().expect("a path").to_string();
    let session = place.rsplit('_').next().and_then(|number| number.parse::<usize>().ok());
    let (user, class) = session.map_or((0, ""), |number| SESSIONS[number - 1]);
    let value = match property.as_str() {
        "ActiveSession" if active == 0 => Variant::from((String::new(), path("/"))),
        "ActiveSession" => Variant::from((active.to_string(), path(&format!("{ROOT}/session/_{active}")))),
        "Class" => Variant::from(class),
        "User" => Variant::from((user, path(&format!("{ROOT}/user/_{user}")))),
        other => panic!("logind has no {other} here"),
    };
    bus.reply(&header, &value).await.expect("sends");
}

async fn prepare_for_sleep(logind: &Served, begins: bool) {
    let manager = "org.freedesktop.login1.Manager";
    logind.bus.emit_signal(NOBODY, ROOT, manager, "PrepareForSleep", &(begins,)).await.expect("a signal");
}

async fn next(ours: &mut Logind) -> LoginEvent {
    tokio::time::timeout(Duration::from_secs(5), ours.next()).await.expect("an event")
}

fn users(numbers: &[u32]) -> LoginEvent {
    LoginEvent::ActiveUsers(numbers.iter().copied().collect::<BTreeSet<_>>())
}

#[test]
fn people_and_sleep_are_noticed() {
    isolated(|| async {
        let machine = Machine::start();
        let logind = Served::start(&machine).await;
        let mut ours = Logind::new(machine.bus());
        assert_eq!(next(&mut ours).await, users(&[1000]));
        logind.activate(2).await;
        assert_eq!(next(&mut ours).await, users(&[1001]));
        prepare_for_sleep(&logind, true).await;
        assert_eq!(next(&mut ours).await, LoginEvent::Sleeping);
        prepare_for_sleep(&logind, false).await;
        assert_eq!(next(&mut ours).await, LoginEvent::Resumed);
        logind.activate(3).await;
        assert_eq!(next(&mut ours).await, users(&[]), "a greeter is nobody");
        logind.activate(1).await;
        assert_eq!(next(&mut ours).await, users(&[1000]));
        logind.activate(0).await;
        assert_eq!(next(&mut ours).await, users(&[]), "nobody sits there");
    });
}

#[test]
fn nobody_sits_at_a_machine_whose_bus_is_gone() {
    isolated(|| async {
        let mut machine = Machine::start();
        let _logind = Served::start(&machine).await;
        let mut ours = Logind::new(machine.bus());
        assert_eq!(next(&mut ours).await, users(&[1000]));
        machine.kill_newest();
        assert_eq!(next(&mut ours).await, users(&[]));
    });
}
