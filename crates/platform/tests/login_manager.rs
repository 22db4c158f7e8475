//! The login manager over a bus of its own: sleep, people who come and go, and a service that dies.

#[expect(dead_code, reason = "each test file uses its part of the helpers")]
mod managers;
#[expect(dead_code, reason = "each test file uses its part of the helpers")]
mod namespace;

use std::collections::BTreeSet;
use std::time::Duration;

use adit_platform::dns_control::Bus;
use adit_platform::login_manager::{LoginEvent, LoginManager as _, Logind};
use managers::Machine;
use namespace::isolated;
use zbus::{Connection, OwnedObjectPath, connection, interface};

const ROOT: &str = "/org/freedesktop/login1";
const SEAT: &str = "/org/freedesktop/login1/seat/seat0";

fn path(text: &str) -> OwnedObjectPath {
    OwnedObjectPath::try_from(text).expect("a path")
}

struct Manager;

#[interface(name = "org.freedesktop.login1.Manager")]
impl Manager {
    fn list_seats(&self) -> Vec<(String, OwnedObjectPath)> {
        vec![("seat0".to_owned(), path(SEAT))]
    }
}

/// The number of the session that is active; 0 is none.
struct Seat(u32);

#[interface(name = "org.freedesktop.login1.Seat")]
impl Seat {
    #[zbus(property)]
    fn active_session(&self) -> (String, OwnedObjectPath) {
        match self.0 {
            0 => (String::new(), path("/")),
            number => (number.to_string(), path(&format!("{ROOT}/session/_{number}"))),
        }
    }
}

struct Session {
    user: u32,
    class: &'static str,
}

#[interface(name = "org.freedesktop.login1.Session")]
impl Session {
    #[zbus(property)]
    fn class(&self) -> String {
        self.class.to_owned()
    }

    #[zbus(property)]
    fn user(&self) -> (u32, OwnedObjectPath) {
        (self.user, path(&format!("{ROOT}/user/_{}", self.user)))
    }
}

/// What logind shows: a seat, sessions of two people, and the screen where they sign in.
async fn logind(machine: &Machine) -> Connection {
    let Bus::At(address) = machine.bus() else { panic!("a bus of its own") };
    let connection = connection::Builder::address(address.as_str()).build().await.expect("a bus");
    let objects = connection.object_server();
    objects.at(ROOT, Manager).await.expect("serves");
    objects.at(SEAT, Seat(1)).await.expect("serves");
    for (number, user, class) in [(1, 1000, "user"), (2, 1001, "user"), (3, 107, "greeter")] {
        let place = format!("{ROOT}/session/_{number}");
        objects.at(place.as_str(), Session { user, class }).await.expect("serves");
    }
    connection.request_name("org.freedesktop.login1").await.expect("the name");
    connection
}

async fn activate(logind: &Connection, session: u32) {
    let seat = logind.object_server().interface::<_, Seat>(SEAT).await.expect("the seat");
    let mut inner = seat.get_mut().await;
    inner.0 = session;
    inner.active_session_changed(seat.signal_emitter()).await.expect("a signal");
}

async fn prepare_for_sleep(logind: &Connection, begins: bool) {
    let manager = "org.freedesktop.login1.Manager";
    let nobody = None::<&str>;
    logind.emit_signal(nobody, ROOT, manager, "PrepareForSleep", &(begins,)).await.expect("a signal");
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
        let logind = logind(&machine).await;
        let mut ours = Logind::new(machine.bus());
        assert_eq!(next(&mut ours).await, users(&[1000]));
        activate(&logind, 2).await;
        assert_eq!(next(&mut ours).await, users(&[1001]));
        prepare_for_sleep(&logind, true).await;
        assert_eq!(next(&mut ours).await, LoginEvent::Sleeping);
        prepare_for_sleep(&logind, false).await;
        assert_eq!(next(&mut ours).await, LoginEvent::Resumed);
        activate(&logind, 3).await;
        assert_eq!(next(&mut ours).await, users(&[]), "a greeter is nobody");
        activate(&logind, 1).await;
        assert_eq!(next(&mut ours).await, users(&[1000]));
        activate(&logind, 0).await;
        assert_eq!(next(&mut ours).await, users(&[]), "nobody sits there");
    });
}

#[test]
fn nobody_sits_at_a_machine_whose_bus_is_gone() {
    isolated(|| async {
        let mut machine = Machine::start();
        let _logind = logind(&machine).await;
        let mut ours = Logind::new(machine.bus());
        assert_eq!(next(&mut ours).await, users(&[1000]));
        machine.kill_newest();
        assert_eq!(next(&mut ours).await, users(&[]));
    });
}
