//! Changes that share a commit: each is its own, and all are durable before anybody is told.

use std::sync::Arc;

use crate::store::{
    ActorKind, By, Database, NewAccount, Page, Role, Store, StoreError, on_both_databases, sql,
};

async fn open(database: &Database) -> Arc<Store> {
    let store = Store::open(database, true).await.unwrap();
    let mut change = store.change(&By::system()).await.unwrap();
    let account = NewAccount {
        name: "default".to_owned(),
        ipv4_range: "100.64.0.0/11".parse().unwrap(),
        ipv6_range: "fd00::/107".parse().unwrap(),
        ipv4_proxy_range: "100.96.0.0/11".parse().unwrap(),
        ipv6_proxy_range: "fd00::20:0/107".parse().unwrap(),
        dns_upstreams: Vec::new(),
        search_domains: Vec::new(),
    };
    change.create_account(&account).await.unwrap();
    change.commit().await.unwrap();
    store.close().await;
    Arc::new(Store::open(database, false).await.unwrap())
}

async fn create(store: &Store, name: &str) -> Result<(), StoreError> {
    let mut change = store.change(&By::system()).await?;
    change.create_actor(ActorKind::User, name, Role::None).await?;
    change.commit().await
}

async fn names(store: &Store) -> Vec<String> {
    store.actors(Page::FIRST).await.unwrap().into_iter().map(|actor| actor.name).collect()
}

/// Two hundred at once: half of them fail, some are given up, and nothing else goes with them.
async fn a_failure_undoes_only_itself(database: Database) {
    let store = open(&database).await;
    create(&store, "taken").await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..200 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            match number % 4 {
                0 => {
                    let mut change = store.change(&By::system()).await.unwrap();
                    change.create_actor(ActorKind::User, "given up", Role::None).await.unwrap();
                    drop(change);
                }
                1 => match create(&store, "taken").await {
                    Err(StoreError::Conflict(_)) => {}
                    other => panic!("{other:?}"),
                },
                _ => {
                    let name = format!("actor-{number}");
                    create(&store, &name).await.unwrap();
                    // Told is durable: another connection sees it.
                    assert!(names(&store).await.contains(&name));
                }
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let names = names(&store).await;
    assert_eq!(names.len(), 101, "{names:?}");
    assert!(!names.contains(&"given up".to_owned()));
}

async fn changes_that_wait_share_commits(database: Database) {
    let store = open(&database).await;
    let holder = store.change(&By::system()).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..20 {
        let store = Arc::clone(&store);
        tasks.spawn(async move { create(&store, &format!("actor-{number}")).await.unwrap() });
    }
    while store.changes.waiting.load(std::sync::atomic::Ordering::Relaxed) < 20 {
        tokio::task::yield_now().await;
    }
    let before = store.changes.commits();
    holder.commit().await.unwrap();
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!(names(&store).await.len(), 20);
    let commits = store.changes.commits() - before;
    // Twenty-one changes; a busy machine closes groups that have become old.
    assert!(commits <= 10, "{commits} commits");
}

/// Whoever stops waiting takes its own change back, or finds it done; nobody stands still.
async fn one_that_is_interrupted_holds_up_nobody(database: Database) {
    let store = open(&database).await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..50 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            let patience = std::time::Duration::from_micros(number * 200);
            let _ = tokio::time::timeout(patience, create(&store, &format!("hasty-{number}"))).await;
        });
        tokio::task::yield_now().await;
    }
    while tasks.join_next().await.is_some() {}
    let patience = std::time::Duration::from_secs(5);
    tokio::time::timeout(patience, create(&store, "patient")).await.expect("it has its turn").unwrap();
    assert!(names(&store).await.contains(&"patient".to_owned()));
}

on_both_databases! {
    a_failure_undoes_only_itself,
    changes_that_wait_share_commits,
    one_that_is_interrupted_holds_up_nobody,
}

/// A disk without room, as SQLite sees it.
#[tokio::test]
async fn a_full_database_refuses_changes_until_there_is_room() {
    let scratch = crate::store::conformance::Scratch::sqlite();
    let store = open(&scratch.database()).await;
    create(&store, "first").await.unwrap();
    let pages = "SELECT page_count FROM pragma_page_count";
    let pages: i64 = sql::query_scalar(pages).fetch_one(&store.writer).await.unwrap();
    assert!((30..200).contains(&pages), "{pages}: the limit below is for a small database");
    sql::query("PRAGMA max_page_count = 1").execute(&store.writer).await.unwrap();
    let mut done = Vec::new();
    let error = loop {
        let name = format!("{}-{}", "x".repeat(90), done.len());
        match create(&store, &name).await {
            Ok(()) => done.push(name),
            Err(error) => break error,
        }
        assert!(done.len() < 10_000, "the limit is not reached");
    };
    assert!(error.to_string().contains("full"), "{error}");
    // Nothing that was acknowledged is lost, reading goes on, and the next try fails the same way.
    let mut found = names(&store).await;
    found.truncate(done.len() + 1);
    assert_eq!(found[1..].to_vec(), done[..found.len() - 1].to_vec());
    assert!(create(&store, &"y".repeat(5000)).await.is_err());
    sql::query("PRAGMA max_page_count = 1000000").execute(&store.writer).await.unwrap();
    create(&store, "last").await.unwrap();
    assert_eq!(store.integrity().await.unwrap(), "ok");
}
