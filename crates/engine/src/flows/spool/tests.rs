use std::path::PathBuf;

use adit_policy::{AuthorizationId, ClientId, ResourceId};
use adit_protocol::flow::FlowRecord;

use super::*;

const NAME_OF_TESTS: Uuid = Uuid::from_u128(7);

/// A directory that goes away.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!("adit-flow-spool-{}", Uuid::new_v4())))
    }

    fn open(&self) -> Spool {
        self.open_with(64 * 1024 * 1024)
    }

    fn open_with(&self, most_bytes: u64) -> Spool {
        Spool::open(&self.0, most_bytes, Uuid::new_v4()).unwrap()
    }

    /// A copy whose newest segment is changed by `damage`.
    fn damaged(&self, damage: impl FnOnce(&mut Vec<u8>)) -> Self {
        let copy = Self::new();
        fs::create_dir_all(&copy.0).unwrap();
        let mut newest = None;
        for entry in fs::read_dir(&self.0).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, copy.0.join(path.file_name().unwrap())).unwrap();
            newest = newest.max(Segment::first_of(&path).map(|first| (first, path)));
        }
        let path = copy.0.join(newest.unwrap().1.file_name().unwrap());
        let mut bytes = fs::read(&path).unwrap();
        damage(&mut bytes);
        fs::write(path, bytes).unwrap();
        copy
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn report(opened_ms: u64) -> FlowReport {
    FlowReport::Flow(Box::new(FlowRecord {
        id: Uuid::from_u128(u128::from(opened_ms)),
        authorization: AuthorizationId::from_uuid(NAME_OF_TESTS),
        client: Some(ClientId::from_uuid(NAME_OF_TESTS)),
        gateway: None,
        resource: ResourceId::from_uuid(NAME_OF_TESTS),
        protocol: 6,
        source: [100, 64, 0, 2].into(),
        source_port: 4000,
        destination: [10, 0, 0, 5].into(),
        destination_port: 443,
        name: Some("wiki.corp".to_owned()),
        path: None,
        opened_ms,
        at_ms: opened_ms + 5,
        end: None,
        sent_packets: 1,
        sent_bytes: 40,
        received_packets: 0,
        received_bytes: 0,
    }))
}

fn push(spool: &mut Spool, reports: std::ops::RangeInclusive<u64>) {
    for number in reports {
        spool.push(&report(number)).unwrap();
    }
    spool.flush().unwrap();
}

/// Everything that is left, as the portal would get it: numbers, and what each report says.
fn take_all(spool: &mut Spool) -> Vec<(u64, u64)> {
    let mut all = Vec::new();
    while let Some(batch) = spool.batch().unwrap() {
        for flow in &batch.flows {
            let FlowReport::Flow(record) = &flow.report else { panic!("{flow:?}") };
            all.push((flow.number, record.opened_ms));
        }
        let last = batch.flows.last().unwrap().number;
        spool.stored(batch.spool, last).unwrap();
    }
    all
}

fn same(numbers: std::ops::RangeInclusive<u64>) -> Vec<(u64, u64)> {
    numbers.map(|number| (number, number)).collect()
}

#[test]
fn what_is_not_stored_is_given_out_again() {
    let directory = Directory::new();
    let mut spool = directory.open();
    push(&mut spool, 1..=700);
    let first = spool.batch().unwrap().unwrap();
    assert_eq!(first.flows.len(), MAX_FLOWS);
    assert_eq!(spool.batch().unwrap().unwrap(), first);
    spool.stored(first.spool, 100).unwrap();
    assert_eq!(spool.batch().unwrap().unwrap().flows[0].number, 101);
    drop(spool);
    let mut spool = directory.open();
    assert_eq!(take_all(&mut spool), same(101..=700));
    assert_eq!(spool.batch().unwrap(), None);
    push(&mut spool, 701..=701);
    assert_eq!(take_all(&mut spool), same(701..=701));
}

#[test]
fn answers_about_what_was_never_sent_are_ignored() {
    let directory = Directory::new();
    let mut spool = directory.open();
    push(&mut spool, 1..=3);
    let name = spool.batch().unwrap().unwrap().spool;
    spool.stored(name, 4).unwrap();
    spool.stored(name, u64::MAX).unwrap();
    spool.stored(NAME_OF_TESTS, 3).unwrap();
    assert_eq!(take_all(&mut spool), same(1..=3));
    spool.stored(name, 1).unwrap();
    assert_eq!(spool.batch().unwrap(), None, "an old answer takes nothing back");
}

#[test]
fn a_crash_at_any_byte_loses_only_what_was_not_durable() {
    let directory = Directory::new();
    let mut spool = directory.open();
    push(&mut spool, 1..=4);
    let durable = spool.length();
    push(&mut spool, 5..=7);
    let (whole, name) = (spool.length(), spool.name);
    for cut in durable..=whole {
        let crashed = directory.damaged(|bytes| bytes.truncate(usize::try_from(cut).unwrap()));
        let mut spool = crashed.open();
        assert_eq!(spool.name, name);
        let next = spool.segments[0].end();
        assert!((5..=8).contains(&next), "{cut}");
        // Whoever goes on does so behind what is left, and all of it can be read.
        push(&mut spool, next..=next + 2);
        assert_eq!(take_all(&mut spool), same(1..=next + 2), "{cut}");
        drop(spool);
        assert_eq!(crashed.open().batch().unwrap(), None);
    }
}

#[test]
fn a_damaged_byte_is_never_taken_for_a_report() {
    let directory = Directory::new();
    let mut spool = directory.open();
    push(&mut spool, 1..=2);
    for at in 0..usize::try_from(spool.length()).unwrap() {
        let damaged = directory.damaged(|bytes| bytes[at] ^= 4);
        let mut spool = damaged.open();
        let next = spool.segments[0].end();
        assert!(next < 3, "byte {at}");
        push(&mut spool, next..=next);
        assert_eq!(take_all(&mut spool), same(1..=next), "byte {at}");
    }
}

#[test]
fn a_lost_disk_begins_another_numbering() {
    let directory = Directory::new();
    let mut spool = directory.open();
    push(&mut spool, 1..=5);
    let name = spool.name;
    assert_eq!(take_all(&mut spool).len(), 5);
    drop(spool);
    // The note of what is stored came to the disk, the reports did not: their numbers must not come again.
    let lost = directory.damaged(|bytes| bytes.clear());
    let mut spool = lost.open();
    assert_ne!(spool.name, name);
    push(&mut spool, 1..=2);
    assert_eq!(take_all(&mut spool), same(1..=2));
}

#[test]
fn the_oldest_go_when_it_is_full_and_are_counted() {
    let directory = Directory::new();
    let mut spool = directory.open_with(2 * SEGMENT);
    let mut last = 0;
    while spool.dropped() == 0 {
        push(&mut spool, last + 1..=last + 200);
        last += 200;
        assert!(spool.length() <= 2 * SEGMENT + 200 * 1024);
    }
    let left = take_all(&mut spool);
    assert_eq!(left, same(spool.dropped() + 1..=last));
    assert_eq!(spool.segments.len(), 1, "what is stored is deleted");
}

#[test]
fn a_failed_write_leaves_nothing_in_front_of_the_next() {
    let directory = Directory::new();
    let mut spool = directory.open();
    push(&mut spool, 1..=2);
    // A handle that cannot be written to fails as a full disk does.
    spool.file = File::open(&spool.segments[0].path).unwrap();
    spool.push(&report(99)).unwrap();
    spool.flush().unwrap_err();
    assert_eq!(spool.dropped(), 1);
    push(&mut spool, 3..=4);
    assert_eq!(take_all(&mut spool), same(1..=4));
}
