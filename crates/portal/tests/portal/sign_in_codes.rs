//! How many codes of devices may wait: strangers can ask for them, so their number is bounded.

use std::net::IpAddr;

use adit_protocol::sign_in::{CLIENT_ID, DEVICE_PATH, SignInError};

use crate::conditions::run_sql;
use crate::device_sign_in::{begin, decide, person, poll, refused};
use crate::sign_in::{Browser, Page};
use crate::world::World;

/// A device that asks for a code from one of the addresses of the loopback interface.
async fn ask_from(world: &World, number: u8) -> Page {
    let mut browser = Browser::new(world);
    let address = IpAddr::from([127, 0, 0, number]);
    browser.http = reqwest::Client::builder().no_proxy().local_address(address).build().unwrap();
    browser.post_with(DEVICE_PATH, &[("client_id", CLIENT_ID), ("device_name", "laptop")], &[]).await
}

#[tokio::test]
async fn a_place_that_asks_for_too_many_codes_waits_until_one_is_decided_or_over() {
    let world = World::new().await;
    let (mut browser, _) = person(&world, "ana").await;
    let first = begin(&world, "laptop").await;
    for _ in 1..20 {
        begin(&world, "laptop").await;
    }
    let full = ask_from(&world, 1).await;
    assert_eq!((full.status, full.headers["retry-after"].to_str().unwrap()), (429, "60"), "{}", full.text);
    assert_eq!(ask_from(&world, 2).await.status, 200, "another place is another matter");
    assert_eq!(decide(&mut browser, &first.user_code, "deny").await.status, 200);
    assert_eq!(ask_from(&world, 1).await.status, 200, "a code that was denied waits no longer");
    assert_eq!(ask_from(&world, 1).await.status, 429);
    run_sql(&world, "UPDATE device_sign_in SET expires_ms = expires_ms - 600000").await;
    assert_eq!(ask_from(&world, 1).await.status, 200, "the others are over");
}

#[tokio::test]
async fn so_many_codes_wait_from_everywhere_together() {
    let world = World::new().await;
    let first = begin(&world, "laptop").await;
    for number in 1..=25 {
        for _ in usize::from(number == 1)..20 {
            assert_eq!(ask_from(&world, number).await.status, 200);
        }
    }
    assert_eq!(ask_from(&world, 99).await.status, 429, "500 wait");
    assert_eq!(refused(&world, &poll(&first.device_code)).await, SignInError::AuthorizationPending);
    run_sql(&world, "UPDATE device_sign_in SET expires_ms = expires_ms - 600000").await;
    assert_eq!(ask_from(&world, 99).await.status, 200);
}
