//! The table against a naive model, and its bounds.

use std::collections::BTreeMap;

use adit_packet::{TcpFlags, protocol};
use proptest::prelude::*;

use super::*;
use crate::{FlowCounters, Origin};

const SECOND: u64 = 1000;
const UDP_LIFE: u64 = 120 * SECOND;

fn table(capacity: usize) -> FlowTable {
    use rand::SeedableRng;
    let mut random = rand_chacha::ChaCha20Rng::from_seed([3; 32]);
    FlowTable::new(SeededState::new(&mut random), capacity)
}

fn install(table: &mut FlowTable, now: u64, flow: &Flow) {
    table.install(now, flow, Arc::default()).unwrap();
}

fn key(number: u16, protocol: u8) -> FlowKey {
    FlowKey {
        origin: Origin::Peer(PeerId(u64::from(number % 3))),
        protocol,
        source: [100, 64, 0, 1].into(),
        destination: [10, 0, 0, 1].into(),
        source_port: number,
        destination_port: 443,
    }
}

fn flow(number: u16, protocol: u8) -> Flow {
    Flow::untranslated(key(number, protocol), Origin::Local, GrantId(u64::from(number % 4)))
}

/// Removes everything that is still there and checks that nothing is left in any list.
fn assert_sound(mut table: FlowTable) {
    for peer in 0..3 {
        table.forget(PeerId(peer));
    }
    assert_eq!(table.len(), 0);
    assert_eq!(table.next_deadline(), None);
    assert!(table.grants.is_empty() && table.peers.is_empty());
    assert_eq!(table.index.len(), 0);
}

#[derive(Debug, Clone)]
enum Operation {
    Install(u16),
    Refuse(u16, u64),
    Packet { number: u16, reply: bool },
    Revoke(u64),
    Forget(u64),
    Wait(u64),
    Expire,
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let number = 0u16..12;
    let operation = prop_oneof![
        4 => number.clone().prop_map(Operation::Install),
        2 => (number.clone(), 1u64..20_000).prop_map(|(number, life)| Operation::Refuse(number, life)),
        8 => (number, any::<bool>()).prop_map(|(number, reply)| Operation::Packet { number, reply }),
        1 => (0u64..4).prop_map(Operation::Revoke),
        1 => (0u64..3).prop_map(Operation::Forget),
        4 => (1u64..150_000).prop_map(Operation::Wait),
        1 => Just(Operation::Wait(3 * 3600 * SECOND)),
        3 => Just(Operation::Expire),
    ];
    prop::collection::vec(operation, 1..120)
}

/// What the table should say, by number: refusal or flow with the time of its end.
#[derive(Default)]
struct Model {
    entries: BTreeMap<u16, (bool, u64)>,
    now: u64,
}

impl Model {
    fn apply(&mut self, operation: &Operation) {
        match *operation {
            Operation::Install(number) => {
                self.entries.insert(number, (false, self.now + UDP_LIFE));
            }
            Operation::Refuse(number, life) => {
                self.entries.insert(number, (true, self.now + life));
            }
            Operation::Packet { number, .. } => {
                if let Some((false, end)) = self.entries.get_mut(&number).filter(|(_, end)| *end > self.now) {
                    *end = self.now + UDP_LIFE;
                }
            }
            Operation::Revoke(grant) => {
                self.entries.retain(|number, (refusal, _)| *refusal || u64::from(number % 4) != grant);
            }
            Operation::Forget(peer) => self.entries.retain(|number, _| u64::from(number % 3) != peer),
            Operation::Wait(millis) => self.now += millis,
            Operation::Expire => {}
        }
        let now = self.now;
        self.entries.retain(|_, (_, end)| *end > now);
    }
}

fn apply(table: &mut FlowTable, now: u64, operation: &Operation) {
    match *operation {
        Operation::Install(number) => install(table, now, &flow(number, protocol::UDP)),
        Operation::Refuse(number, life) => {
            table.refuse(now, key(number, protocol::UDP), DropReason::Refused, now + life);
        }
        Operation::Packet { number, reply } => {
            let flow = flow(number, protocol::UDP);
            let key = if reply { flow.reply_key } else { flow.key };
            if let Some((handle, _)) = table.lookup(now, &key) {
                assert_eq!(handle.reply, reply);
                table.note_use(now, handle, TcpFlags(0));
            }
        }
        Operation::Revoke(grant) => table.revoke(GrantId(grant)),
        Operation::Forget(peer) => table.forget(PeerId(peer)),
        Operation::Wait(_) => {}
        Operation::Expire => table.expire(now),
    }
}

proptest! {
    #[test]
    fn agrees_with_the_model(operations in operations()) {
        let (mut table, mut model) = (table(1000), Model::default());
        for operation in operations {
            model.apply(&operation);
            apply(&mut table, model.now, &operation);
        }
        let now = model.now;
        for number in 0..12 {
            let flow = flow(number, protocol::UDP);
            let found = table.lookup(now, &flow.key).map(|(_, entry)| entry.verdict);
            let refused = found.map(|verdict| matches!(verdict, Verdict::Refuse { .. }));
            prop_assert_eq!(refused, model.entries.get(&number).map(|(refusal, _)| *refusal), "{}", number);
            let reply = table.lookup(now, &flow.reply_key).is_some();
            prop_assert_eq!(reply, refused == Some(false), "reply of {}", number);
        }
        table.expire(now);
        prop_assert_eq!(table.len(), model.entries.len());
        prop_assert!(table.next_deadline().is_none_or(|deadline| deadline + SECOND > now));
        assert_sound(table);
    }

    #[test]
    fn a_full_table_stays_bounded_and_sound(numbers in prop::collection::vec((0u16..500, any::<bool>()), 1..800)) {
        let mut table = table(40);
        for (now, (number, refuse)) in numbers.into_iter().enumerate() {
            let operation = if refuse { Operation::Refuse(number, 900) } else { Operation::Install(number) };
            apply(&mut table, now as u64 * 10, &operation);
            prop_assert!(table.len() <= 40);
        }
        assert_sound(table);
    }
}

#[test]
fn refusals_and_idle_flows_are_evicted_first() {
    let mut table = table(30);
    for number in 0..10 {
        install(&mut table, 0, &flow(number, protocol::UDP));
    }
    for number in 10..20 {
        install(&mut table, 50 * SECOND, &flow(number, protocol::UDP));
    }
    for number in 20..30 {
        table.refuse(50 * SECOND, key(number, protocol::UDP), DropReason::Refused, 52 * SECOND);
    }
    let now = 51 * SECOND;
    for number in 100..110 {
        install(&mut table, now, &flow(number, protocol::UDP));
    }
    let present = |table: &mut FlowTable, number| table.lookup(now, &key(number, protocol::UDP)).is_some();
    assert!((20..30).all(|number| !present(&mut table, number)), "refusals end soonest");
    assert!((0..20).all(|number| present(&mut table, number)));
    for number in 110..120 {
        install(&mut table, now, &flow(number, protocol::UDP));
    }
    assert!((0..10).all(|number| !present(&mut table, number)), "then the idle ones");
    assert!((10..20).chain(100..120).all(|number| present(&mut table, number)));
    assert_eq!(table.evictions, 20);
    let evicted = std::iter::from_fn(|| table.poll_event());
    assert!(
        evicted.into_iter().all(|event| matches!(event, Event::FlowEnded { cause: EndCause::Evicted, .. }))
    );
}

#[test]
fn a_handle_does_not_outlive_its_entry() {
    let mut table = table(10);
    install(&mut table, 0, &flow(1, protocol::UDP));
    let handle = table.lookup(0, &key(1, protocol::UDP)).unwrap().0;
    assert!(table.get(0, handle).is_some());
    table.revoke(GrantId(1));
    install(&mut table, 0, &flow(1, protocol::UDP));
    assert!(table.get(0, handle).is_none(), "same number, another generation");
}

#[test]
fn expiry_stops_after_a_batch_and_goes_on() {
    let mut table = table(100_000);
    for number in 0..5000 {
        install(&mut table, 0, &flow(number, protocol::UDP));
    }
    let now = UDP_LIFE + 5;
    table.expire(now);
    assert_eq!(table.len(), 5000 - EXPIRY_BATCH);
    assert!(table.next_deadline().is_some_and(|deadline| deadline <= now), "still due");
    for _ in 0..5 {
        table.expire(now);
    }
    assert_eq!((table.len(), table.next_deadline()), (0, None));
    assert_eq!(table.events_lost, 5000 - EVENTS as u64, "events are bounded, and the loss is counted");
}

#[test]
fn an_open_connection_is_looked_at_a_few_times_in_two_hours() {
    let mut table = table(10);
    install(&mut table, 0, &flow(7, protocol::TCP));
    for reply in [false, true] {
        let flow = flow(7, protocol::TCP);
        let key = if reply { flow.reply_key } else { flow.key };
        let handle = table.lookup(1, &key).unwrap().0;
        table.note_use(1, handle, TcpFlags::ACK);
    }
    let mut looks = 0;
    while let Some(deadline) = table.next_deadline() {
        table.expire(deadline);
        looks += 1;
    }
    assert_eq!(looks, 9, "after the opening time, every quarter of an hour, and at the end");
    let key = key(7, protocol::TCP);
    let ended = Event::FlowEnded { key, cause: EndCause::Idle, counters: FlowCounters::default() };
    assert_eq!(table.poll_event(), Some(ended));
}

#[test]
fn the_flows_of_a_peer_move_with_all_that_belongs_to_them() {
    let mut table = table(16);
    let (from, to) = (PeerId(1), PeerId(9));
    for number in [1, 4, 2] {
        install(&mut table, 0, &flow(number, protocol::TCP));
    }
    let (handle, entry) = table.lookup(5, &key(1, protocol::TCP)).unwrap();
    entry.count(false, 1, 100);
    table.note_use(5, handle, TcpFlags::default());
    table.rename_peer(6, from, to);
    let moved = |number| FlowKey { origin: Origin::Peer(to), ..key(number, protocol::TCP) };
    assert_eq!(table.lookup(7, &moved(1)).unwrap().1.usage.as_ref().unwrap().counters().forward_bytes, 100);
    assert!(table.lookup(7, &moved(4)).is_some() && table.lookup(7, &key(1, protocol::TCP)).is_none());
    assert!(table.lookup(7, &key(2, protocol::TCP)).is_some(), "another peer's flow stays");
    assert_eq!(table.poll_event(), None, "nothing ended");
    table.revoke(GrantId(1));
    assert!(table.lookup(7, &moved(1)).is_none(), "it still rests on its grant");
    table.forget(to);
    assert_sound(table);
}

#[test]
fn flows_move_to_another_grant_and_end_with_it() {
    let mut table = table(16);
    for number in [1, 5, 2] {
        install(&mut table, 0, &flow(number, protocol::UDP));
    }
    table.rename_grant(1, GrantId(1), GrantId(7));
    table.revoke(GrantId(1));
    assert!(
        table.lookup(2, &key(1, protocol::UDP)).is_some()
            && table.lookup(2, &key(5, protocol::UDP)).is_some()
    );
    assert_eq!(table.poll_event(), None, "nothing ended");
    table.revoke(GrantId(7));
    assert!(
        table.lookup(2, &key(1, protocol::UDP)).is_none()
            && table.lookup(2, &key(5, protocol::UDP)).is_none()
    );
    assert!(table.lookup(2, &key(2, protocol::UDP)).is_some(), "another grant's flow stays");
    assert_sound(table);
}

#[test]
fn a_flow_in_two_tables_lives_and_ends_once() {
    let (mut there, mut back) = (table(16), table(16));
    let (flow, usage) = (flow(3, protocol::TCP), Arc::<FlowUsage>::default());
    for table in [&mut there, &mut back] {
        table.install(0, &flow, Arc::clone(&usage)).unwrap();
    }
    for now in (0..40).map(|step| step * 100 * SECOND) {
        let handle = there.lookup(now, &flow.key).unwrap().0;
        there.note_use(now, handle, TcpFlags::ACK);
        back.expire(now);
        let handle = back.lookup(now, &flow.reply_key).expect("the other direction keeps it").0;
        if now == 0 {
            back.note_use(now, handle, TcpFlags::ACK);
        }
    }
    let now = 3_900 * SECOND;
    there.expire(now + 7_199 * SECOND);
    assert_eq!((there.len(), there.poll_event()), (1, None), "open, for both directions were seen");
    there.expire(now + 7_201 * SECOND);
    back.expire(now + 7_201 * SECOND);
    assert_eq!((there.len(), back.len()), (0, 0));
    let ended: Vec<_> = std::iter::from_fn(|| there.poll_event().or_else(|| back.poll_event())).collect();
    assert!(matches!(ended[..], [Event::FlowEnded { cause: EndCause::Idle, .. }]), "{ended:?}");
}

#[test]
fn what_one_table_ends_is_over_in_the_other() {
    let (mut one, mut other) = (table(16), table(16));
    let (flow, usage) = (flow(3, protocol::UDP), Arc::<FlowUsage>::default());
    for table in [&mut one, &mut other] {
        table.install(0, &flow, Arc::clone(&usage)).unwrap();
    }
    one.revoke(flow.grant);
    assert!(other.lookup(1, &flow.reply_key).is_none(), "before its own update has come");
    assert_eq!(other.len(), 0);
    assert!(one.poll_event().is_some() && other.poll_event().is_none());
}
