//! What each kind of condition says of what is known, and of what is not.

use super::*;

const NOW: u64 = 1_800_000_000;

fn read(text: &str) -> Conditions {
    let conditions: Conditions = serde_json::from_str(text).unwrap();
    conditions.check().unwrap();
    conditions
}

/// Whether the conditions are met; `None` when nobody knows.
fn met(conditions: &Conditions, circumstances: &Circumstances<'_>) -> Option<bool> {
    match conditions.unmet(NOW, circumstances)[..] {
        [] => Some(true),
        [Unmet { is_unknown: true, .. }] => None,
        [Unmet { is_unknown: false, .. }] => Some(false),
        ref several => panic!("{several:?}"),
    }
}

fn from(address: &str) -> Circumstances<'static> {
    Circumstances { remote_address: Some(address.parse().unwrap()), ..Circumstances::default() }
}

#[test]
fn addresses_in_and_outside_of_networks() {
    let inside = read(r#"{"remote_address":{"any_of":["192.0.2.0/24","2001:db8::/32"]}}"#);
    let outside = read(r#"{"remote_address":{"none_of":["192.0.2.0/24"]}}"#);
    for (address, is_inside, is_outside) in [
        ("192.0.2.9", Some(true), Some(false)),
        ("::ffff:192.0.2.9", Some(true), Some(false)),
        ("198.51.100.1", Some(false), Some(true)),
        ("2001:db8::1", Some(true), None),
    ] {
        assert_eq!(
            (met(&inside, &from(address)), met(&outside, &from(address))),
            (is_inside, is_outside),
            "{address}"
        );
    }
    let nowhere = Circumstances::default();
    assert_eq!((met(&inside, &nowhere), met(&outside, &nowhere)), (None, None));
}

#[test]
fn a_country_that_is_not_known_is_neither_inside_nor_outside() {
    let inside = read(r#"{"region":{"any_of":["de","AT"]}}"#);
    let outside = read(r#"{"region":{"none_of":["DE"]}}"#);
    for (region, is_inside, is_outside) in
        [(Some("DE"), Some(true), Some(false)), (Some("FR"), Some(false), Some(true)), (None, None, None)]
    {
        let region = region.map(|region| region.parse().unwrap());
        let circumstances = Circumstances { region, ..Circumstances::default() };
        assert_eq!((met(&inside, &circumstances), met(&outside, &circumstances)), (is_inside, is_outside));
    }
}

#[test]
fn a_token_of_an_administrator_comes_from_no_provider() {
    let provider: ProviderName = "corp".parse().unwrap();
    let any_of =
        Conditions { auth_provider: Some(Among::AnyOf(vec![provider.clone()])), ..Conditions::default() };
    let none_of = Conditions { auth_provider: Some(Among::NoneOf(vec![provider])), ..Conditions::default() };
    let through = Circumstances { auth_provider: Some("corp"), ..Circumstances::default() };
    assert_eq!((met(&any_of, &through), met(&none_of, &through)), (Some(true), Some(false)));
    let nobody = Circumstances::default();
    assert_eq!((met(&any_of, &nobody), met(&none_of, &nobody)), (None, None));
}

#[test]
fn a_device_must_be_verified_only_if_that_is_asked() {
    let verified = Circumstances { is_device_verified: true, ..Circumstances::default() };
    let must = read(r#"{"verified_device":true}"#);
    assert_eq!((met(&must, &verified), met(&must, &Circumstances::default())), (Some(true), Some(false)));
    assert_eq!(met(&read(r#"{"verified_device":false}"#), &Circumstances::default()), Some(true));
}

#[test]
fn an_old_authentication_ends_a_lease_at_its_age() {
    let hour = read(r#"{"authentication_age":3600}"#);
    let since = |seconds| Circumstances { authenticated_at: Some(NOW - seconds), ..Circumstances::default() };
    assert_eq!(met(&hour, &since(3599)), Some(true));
    assert_eq!(hour.end(NOW, 8 * 3600, &since(600)), Some(NOW + 3000));
    assert_eq!((met(&hour, &since(3600)), met(&hour, &Circumstances::default())), (Some(false), None));
    let day = read(r#"{"authentication_age":86400}"#);
    assert_eq!(day.end(NOW, 8 * 3600, &since(600)), None, "beyond the horizon");
}

#[test]
fn what_turns_with_time_says_when() {
    let office = r#""time":{"time_zone":"UTC","windows":[{"days":["fri"],"from":"08:00","to":"18:00"}]}"#;
    // That moment is eight o'clock on a Friday.
    let eight = NOW;
    let conditions = read(&format!(r#"{{{office},"authentication_age":3600}}"#));
    let since = |at| Circumstances { authenticated_at: Some(at), ..Circumstances::default() };
    assert_eq!(conditions.turns(eight - 600, 7200, &since(eight)), Some(eight), "it opens");
    assert_eq!(conditions.turns(eight, 7200, &since(eight)), Some(eight + 3600), "the sign-in grows old");
    assert_eq!(conditions.turns(eight + 3600, 7200, &since(eight)), None);
    assert_eq!(conditions.turns(eight + 3600, 36_000, &since(eight)), Some(eight + 36_000), "it closes");
    assert_eq!(read("{}").turns(eight, 36_000, &since(eight)), None);
}

#[test]
fn every_kind_must_be_met() {
    let both = read(r#"{"verified_device":true,"region":{"any_of":["DE"]},"authentication_age":60}"#);
    let kinds: Vec<_> =
        both.unmet(NOW, &Circumstances::default()).iter().map(|unmet| unmet.condition).collect();
    assert_eq!(
        kinds,
        [ConditionKind::Region, ConditionKind::VerifiedDevice, ConditionKind::AuthenticationAge]
    );
    assert!(read("{}").is_empty() && !both.is_empty());
}

#[test]
fn what_makes_no_sense_is_refused() {
    for text in [
        r#"{"remote_adress":{"any_of":["192.0.2.0/24"]}}"#,
        r#"{"remote_address":{"some_of":["192.0.2.0/24"]}}"#,
        r#"{"remote_address":{"any_of":["192.0.2.0/33"]}}"#,
        r#"{"region":{"any_of":["Germany"]}}"#,
        r#"{"time":{"time_zone":"Mars/Olympus","windows":[{"days":["mon"],"from":"08:00","to":"09:00"}]}}"#,
    ] {
        assert!(serde_json::from_str::<Conditions>(text).is_err(), "{text}");
    }
    let check =
        |text: &str| serde_json::from_str::<Conditions>(text).unwrap().check().unwrap_err().to_string();
    assert_eq!(check(r#"{"region":{"any_of":[]}}"#), "there must be 1 to 256 values in a condition");
    let age = "an authentication age below 60 s would lock everybody out";
    assert_eq!(check(r#"{"authentication_age":59}"#), age);
}
