//! The log shows every change that was made to it behind the portal's back.

use uuid::Uuid;

use super::seal::Sealer;
use super::{AuditFilter, Verified};
use crate::store::{ActorKind, By, Database, NewAccount, Page, Role, Store, on_both_databases, sql};

const KEY: [u8; 32] = [7; 32];

fn account() -> NewAccount {
    NewAccount {
        name: "default".to_owned(),
        ipv4_range: "100.64.0.0/11".parse().unwrap(),
        ipv6_range: "fd00::/107".parse().unwrap(),
        ipv4_proxy_range: "100.96.0.0/11".parse().unwrap(),
        ipv6_proxy_range: "fd00::20:0/107".parse().unwrap(),
        dns_upstreams: Vec::new(),
        search_domains: Vec::new(),
    }
}

/// A store with entries of four changes.
async fn with_entries(database: &Database) -> Store {
    let store = Store::open(database, true).await.unwrap();
    let mut change = store.change(&By::system()).await.unwrap();
    change.create_account(&account()).await.unwrap();
    change.commit().await.unwrap();
    store.close().await;
    let store = Store::open(database, false).await.unwrap();
    store.seal_audit(Sealer::new(&KEY));
    for name in ["ana", "ben", "eva"] {
        let mut change = store.change(&By::system()).await.unwrap();
        let actor = change.create_actor(ActorKind::User, name, Role::None).await.unwrap();
        if name == "eva" {
            change.set_actor_enabled(adit_policy::ActorId::from_uuid(actor.id), false).await.unwrap();
        }
        change.commit().await.unwrap();
    }
    store
}

async fn verified(store: &Store) -> Verified {
    store.verify_audit(&Sealer::new(&KEY)).await.unwrap()
}

/// What somebody does who can write to the database, triggers removed.
async fn tamper(store: &Store, statement: &'static str) {
    let triggers: &[&'static str] = if store.is_shared() {
        &["ALTER TABLE audit DISABLE TRIGGER USER"]
    } else {
        &["DROP TRIGGER IF EXISTS audit_is_not_changed", "DROP TRIGGER IF EXISTS audit_is_not_deleted"]
    };
    for text in triggers.iter().copied().chain([statement]) {
        sql::query(text).execute(&store.writer).await.unwrap();
    }
}

async fn an_untouched_log_is_whole(database: Database) {
    let store = with_entries(&database).await;
    let found = verified(&store).await;
    assert_eq!((found.entries, found.unsealed, found.last_seq, found.fault), (4, 0, 4, None));
    // Another key is another portal's.
    let other = store.verify_audit(&Sealer::new(&[8; 32])).await.unwrap();
    assert!(other.fault.unwrap().contains("entry 1 "));
}

async fn what_was_changed_says_from_what_to_what(database: Database) {
    let store = with_entries(&database).await;
    let rows = store.audit(Page::FIRST).await.unwrap();
    assert_eq!(rows[0].action, "actor.disable");
    assert_eq!(rows[0].before.as_deref(), Some(r#"{"enabled":true}"#));
    assert_eq!(rows[0].after.as_deref(), Some(r#"{"enabled":false}"#));
    assert_eq!((rows[1].action.as_str(), &rows[1].before), ("actor.create", &None));
    assert!(rows[1].after.as_ref().unwrap().contains("eva"));
}

async fn the_database_refuses_to_change_or_delete_entries(database: Database) {
    let store = with_entries(&database).await;
    for statement in
        ["UPDATE audit SET who = 'nobody'", "DELETE FROM audit", "DELETE FROM audit WHERE seq = 4"]
    {
        let error = sql::query(statement).execute(&store.writer).await.unwrap_err();
        assert!(error.to_string().contains("append-only"), "{error}");
    }
    assert_eq!(verified(&store).await.entries, 4);
}

macro_rules! tampering {
    ($($name:ident: $statement:literal => $fault:literal,)*) => {
        $(async fn $name(database: Database) {
            let store = with_entries(&database).await;
            tamper(&store, $statement).await;
            let found = verified(&store).await.fault.unwrap_or_default();
            assert!(found.contains($fault), "{found}");
        })*
    };
}

tampering! {
    another_name_shows: "UPDATE audit SET who = 'nobody' WHERE seq = 2" => "entry 2 was changed",
    a_missing_state_shows: "UPDATE audit SET after = NULL WHERE seq = 3" => "entry 3 was changed",
    another_time_shows: "UPDATE audit SET at_ms = at_ms + 1 WHERE seq = 4" => "entry 4 was changed",
    a_missing_entry_shows: "DELETE FROM audit WHERE seq = 2" => "entry 2 is missing",
    a_missing_beginning_shows: "DELETE FROM audit WHERE seq = 1" => "entry 1 is missing",
    a_broken_first_seal_shows: "UPDATE audit SET seal = NULL WHERE seq = 1" => "entry 2 was changed",
    a_broken_last_seal_shows: "UPDATE audit SET seal = NULL WHERE seq = 4" => "entry 4 was changed",
}

async fn what_is_forgotten_in_order_leaves_a_whole_log(database: Database) {
    let store = with_entries(&database).await;
    let rows = store.audit(Page::FIRST).await.unwrap();
    let before_ms = rows[0].at_ms + 1;
    let mut change = store.change(&By::system()).await.unwrap();
    assert_eq!(change.forget_audit(before_ms).await.unwrap(), 4);
    change.commit().await.unwrap();
    let found = verified(&store).await;
    assert_eq!((found.entries, found.last_seq, found.fault), (1, 5, None));
    // The permission to forget does not outlive its change.
    assert!(sql::query("DELETE FROM audit").execute(&store.writer).await.is_err());
    tamper(&store, "UPDATE audit SET detail = replace(detail, '\"last_seq\":4', '\"last_seq\":3')").await;
    assert!(verified(&store).await.fault.is_some());
}

async fn entries_are_found_by_what_they_say(database: Database) {
    let store = with_entries(&database).await;
    let count = async |filter: AuditFilter| store.audit_of(Page::FIRST, &filter).await.unwrap().len();
    let all = AuditFilter::default();
    assert_eq!(count(all.clone()).await, 4);
    assert_eq!(count(AuditFilter { action: Some("actor".to_owned()), ..all.clone() }).await, 4);
    assert_eq!(count(AuditFilter { action: Some("act".to_owned()), ..all.clone() }).await, 0);
    assert_eq!(count(AuditFilter { action: Some("actor.disable".to_owned()), ..all.clone() }).await, 1);
    assert_eq!(count(AuditFilter { who: Some("system".to_owned()), ..all.clone() }).await, 4);
    assert_eq!(count(AuditFilter { subject: Some(Uuid::nil()), ..all.clone() }).await, 0);
    assert_eq!(count(AuditFilter { since_ms: Some(i64::MAX), ..all.clone() }).await, 0);
    assert_eq!(count(AuditFilter { until_ms: Some(0), ..all }).await, 0);
}

on_both_databases! {
    an_untouched_log_is_whole,
    what_was_changed_says_from_what_to_what,
    the_database_refuses_to_change_or_delete_entries,
    another_name_shows,
    a_missing_state_shows,
    another_time_shows,
    a_missing_entry_shows,
    a_missing_beginning_shows,
    a_broken_first_seal_shows,
    a_broken_last_seal_shows,
    what_is_forgotten_in_order_leaves_a_whole_log,
    entries_are_found_by_what_they_say,
}
