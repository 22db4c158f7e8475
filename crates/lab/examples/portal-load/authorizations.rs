//! Requests for access through real sessions: a request counts when both ends have been told.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use adit_policy::ResourceId;
use adit_protocol::ClientToPortal;
use adit_protocol::client::RequestAuthorization;
use anyhow::{Context as _, Result, bail, ensure};
use uuid::Uuid;

use crate::Arguments;
use crate::peer::{Payload, Peer};
use crate::world::World;

/// Each client asks for this many different things, and then begins anew.
const RESOURCES: u32 = 200;

/// Gateways of the site.
const GATEWAYS: u32 = 4;

/// Who has been told of what, and how long requests took.
#[derive(Default)]
struct Book {
    /// Authorizations of which one end was told, and when the request was sent where that end is the client.
    half: HashMap<Uuid, Option<Instant>>,
    complete: u64,
    times: Vec<Duration>,
}

impl Book {
    fn told(&mut self, id: Uuid, asked: Option<Instant>) {
        match self.half.remove(&id) {
            None => drop(self.half.insert(id, asked)),
            Some(other) => {
                self.complete += 1;
                self.times.extend(asked.or(other).map(|asked| asked.elapsed()));
            }
        }
    }
}

pub(crate) async fn measure(arguments: &Arguments, time: Duration) -> Result<Vec<(&'static str, f64)>> {
    let world = World::new(arguments, RESOURCES, GATEWAYS).await?;
    let gateways = world.gateways().await?;
    let clients = world.clients().await?;
    let book = Rc::new(RefCell::new(Book::default()));
    let local = tokio::task::LocalSet::new();
    for gateway in gateways {
        local.spawn_local(listen(gateway, Rc::clone(&book)));
    }
    for (number, client) in (0_usize..).zip(clients) {
        let mut resources = world.resources.clone();
        // Not everybody asks for the same thing first.
        resources.rotate_left(number % world.resources.len());
        local.spawn_local(ask(client, resources, Rc::clone(&book)));
    }
    let measured = async {
        // The first requests of everybody open connections.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (begun, before) = (Instant::now(), book.borrow().complete);
        book.borrow_mut().times.clear();
        tokio::time::sleep(time).await;
        let book = book.borrow();
        ((book.complete - before) as f64 / begun.elapsed().as_secs_f64(), book.times.clone())
    };
    let (rate, mut times) = local.run_until(measured).await;
    times.sort_unstable();
    let part = |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or_default();
    ensure!(rate > 0.0, "nobody was answered");
    let [rate_name, p50, p99] = if arguments.postgres {
        ["authorizations_per_s_postgres", "authorization_p50_ms_postgres", "authorization_p99_ms_postgres"]
    } else {
        ["authorizations_per_s_sqlite", "authorization_p50_ms_sqlite", "authorization_p99_ms_sqlite"]
    };
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    Ok(vec![(rate_name, rate), (p50, ms(part(50))), (p99, ms(part(99)))])
}

async fn listen(mut gateway: Peer, book: Rc<RefCell<Book>>) {
    while let Ok(told) = gateway.hear_of("authorization_created").await {
        if let Some(id) = told.id {
            book.borrow_mut().told(id, None);
        }
    }
}

/// One request after the other, each for something that the client does not hold.
async fn ask(mut client: Peer, resources: Vec<ResourceId>, book: Rc<RefCell<Book>>) {
    for (request_id, resource) in (1..).zip(resources) {
        let asked = Instant::now();
        match request(&mut client, request_id, resource).await {
            Ok(granted) => {
                if let Some(id) = granted.id {
                    book.borrow_mut().told(id, Some(asked));
                }
            }
            Err(error) => return eprintln!("a client gives up: {error:#}"),
        }
    }
}

/// Asks for access until it is granted.
pub(crate) async fn request(client: &mut Peer, request_id: u64, resource: ResourceId) -> Result<Payload> {
    let request = RequestAuthorization {
        request_id,
        resource,
        connected_gateways: Vec::new(),
        avoid_gateways: Vec::new(),
        prefer_gateway: None,
    };
    client.say(&ClientToPortal::RequestAuthorization(request)).await?;
    loop {
        let heard = client.hear().await.context("waiting for an answer")?;
        match heard.kind.as_str() {
            "authorization_created" if heard.payload.request_id == Some(request_id) => {
                return Ok(heard.payload);
            }
            "authorization_failed" => bail!("refused: {heard:?}"),
            _ => {}
        }
    }
}
