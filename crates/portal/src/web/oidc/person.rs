//! What the claims say of a person: a name that can be shown, an address that is theirs, and their groups.

use std::collections::BTreeSet;

use serde_json::Value;

use super::token::Claims;
use super::trouble::Trouble;
use crate::presentable::presentable;
use crate::store::{AuthProvider, Identity};

/// Characters of a name: with the provider's behind it, it is still one that people may choose.
const LONGEST_NAME: usize = 60;

/// Groups of one person; more are not looked at.
const MOST_GROUPS: usize = 200;

/// Who somebody is, if the provider's people are let in like that.
pub(super) fn identity(provider: &AuthProvider, claims: &Claims) -> Result<Identity, Trouble> {
    let verified_email = verified_email(claims);
    let mut domains = provider.email_domains.split_whitespace().peekable();
    if domains.peek().is_some() {
        let domain =
            verified_email.as_deref().and_then(|email| email.rsplit_once('@')).map(|(_, domain)| domain);
        if !domain.is_some_and(|domain| domains.any(|known| known.eq_ignore_ascii_case(domain))) {
            return Err(Trouble::Domain);
        }
    }
    let groups = provider.group_claim.as_ref().map(|claim| groups(claims.get(claim)));
    let name = ["preferred_username", "email", "name"]
        .iter()
        .find_map(|claim| presentable(claims.text(claim)?, LONGEST_NAME))
        .or_else(|| presentable(claims.subject(), LONGEST_NAME))
        .unwrap_or_else(|| "user".to_owned());
    Ok(Identity { subject: claims.subject().to_owned(), name, verified_email, groups })
}

/// The address, if the provider says that it is this person's. Some write the truth value as a text.
fn verified_email(claims: &Claims) -> Option<String> {
    let is_verified = match claims.get("email_verified") {
        Some(Value::Bool(value)) => *value,
        Some(Value::String(text)) => text == "true",
        _ => false,
    };
    let email = claims.text("email").filter(|email| is_verified && email.len() <= 254)?;
    let (name, domain) = email.rsplit_once('@')?;
    (!name.is_empty() && !domain.is_empty()).then(|| email.to_owned())
}

/// The names in a claim: a list of texts, or one text.
fn groups(claim: Option<&Value>) -> BTreeSet<String> {
    let texts: Vec<&str> = match claim {
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
        Some(Value::String(text)) => vec![text],
        _ => Vec::new(),
    };
    // A name that would have to be shortened could become that of another group.
    let fits = |text: &&str| text.chars().count() <= LONGEST_NAME;
    texts
        .into_iter()
        .filter(fits)
        .filter_map(|text| presentable(text, LONGEST_NAME))
        .take(MOST_GROUPS)
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    fn provider(domains: &str) -> AuthProvider {
        AuthProvider {
            id: Uuid::nil(),
            name: "corp".to_owned(),
            issuer: "https://id.corp".to_owned(),
            client_id: "adit".to_owned(),
            client_secret_sealed: None,
            scopes: "openid".to_owned(),
            group_claim: Some("groups".to_owned()),
            email_domains: domains.to_owned(),
            ca_pem: None,
            links_directory: false,
            just_in_time: true,
            enabled: true,
            created_ms: 0,
            changed_ms: 0,
        }
    }

    fn is_in(domains: &str, claims: Value) -> bool {
        identity(&provider(domains), &Claims::of("s", claims)).is_ok()
    }

    #[test]
    fn only_addresses_that_are_verified_open_a_domain() {
        assert!(is_in("", json!({})));
        assert!(is_in(
            "other.org CORP.example",
            json!({ "email": "ana@corp.example", "email_verified": true })
        ));
        assert!(is_in("corp.example", json!({ "email": "ana@corp.example", "email_verified": "true" })));
        for claims in [
            json!({}),
            json!({ "email": "ana@corp.example" }),
            json!({ "email": "ana@corp.example", "email_verified": false }),
            json!({ "email": "ana@corp.example", "email_verified": 1 }),
            json!({ "email": "ana@corp.example.evil", "email_verified": true }),
            json!({ "email": "ana@sub.corp.example", "email_verified": true }),
            json!({ "email": "ana@corp.example@evil.org", "email_verified": true }),
            json!({ "email": "corp.example", "email_verified": true }),
        ] {
            assert!(!is_in("corp.example", claims.clone()), "{claims}");
        }
    }

    #[test]
    fn names_can_be_shown_and_groups_are_texts() {
        let named = |claims: Value| identity(&provider(""), &Claims::of("sub-1", claims)).unwrap();
        assert_eq!(named(json!({ "preferred_username": " ana\u{202e}\n " })).name, "ana");
        assert_eq!(named(json!({ "preferred_username": "", "email": "a@b" })).name, "a@b");
        assert_eq!(named(json!({})).name, "sub-1");
        assert_eq!(named(json!({ "name": "x".repeat(500) })).name.len(), LONGEST_NAME);
        let groups =
            named(json!({ "groups": ["staff", "", 7, null, "ops\u{7}", "y".repeat(61)] })).groups.unwrap();
        assert_eq!(groups.into_iter().collect::<Vec<_>>(), ["ops", "staff"]);
        assert_eq!(named(json!({ "groups": "one" })).groups.unwrap().len(), 1);
        let many: Vec<String> = (0..1000).map(|number| format!("g{number}")).collect();
        assert_eq!(named(json!({ "groups": many })).groups.unwrap().len(), MOST_GROUPS);
        assert!(named(json!({ "groups": { "a": 1 } })).groups.unwrap().is_empty());
    }
}
