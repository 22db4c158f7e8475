use adit_policy::{Conditions, Filter, PortRange, ResourceAddress};
use proptest::prelude::*;

use super::access::{Access, Reach};
use super::model::{GroupModel, PolicyModel, ResourceModel};
use super::*;

fn checks() -> Checks<'static> {
    Checks {
        name: &|name| {
            if name.trim().is_empty() { Err("no name".to_owned()) } else { Ok(name.trim().to_owned()) }
        },
        address: &|address| address.validated().map_err(|error| error.to_string()),
        conditions: &|conditions| conditions.check().map_err(|error| error.to_string()),
        most_filters: 100,
    }
}

fn declared(now: &Model, text: &str, prune: bool) -> Result<Model, String> {
    let file = File::read(text).map_err(|error| error.to_string())?;
    now.declared(&file, prune, checks()).map_err(|error| error.to_string())
}

/// Ana and Ben, a site, a resource, and a group of Ana's that may reach it.
fn office() -> Model {
    let mut model = Model::default();
    model.actors.extend([("ana".to_owned(), true), ("ben".to_owned(), true), ("eve".to_owned(), false)]);
    let everyone = GroupModel {
        everyone: true,
        members: model.actors.keys().cloned().collect(),
        ..GroupModel::default()
    };
    model.groups.insert("Everyone".to_owned(), everyone);
    declared(
        &model,
        "
sites:
  - name: office
resources:
  - {name: wiki, site: office, type: dns, address: wiki.corp, filters: [tcp/443, icmp]}
groups:
  - {name: staff, members: [ana]}
policies:
  - {group: staff, resource: wiki}
",
        false,
    )
    .unwrap()
}

fn changes(before: &Model, after: &Model) -> Vec<String> {
    Plan::between(before, after).steps.iter().map(|step| format!("{step:?}")).collect()
}

fn access(before: &Model, after: &Model) -> Vec<(String, Reach, Reach)> {
    let access = Plan::between(before, after).access.into_iter();
    access
        .map(|Access { actor, resource, before, after }| (format!("{actor} {resource}"), before, after))
        .collect()
}

#[test]
fn what_is_declared_already_changes_nothing() {
    let model = office();
    assert_eq!(declared(&model, "", true).unwrap(), model);
    assert_eq!(declared(&model, "# nothing\n", true).unwrap(), model);
    assert_eq!(declared(&model, "sites: [{name: office}]", true).unwrap(), model, "other sections stay");
    assert!(changes(&model, &declared(&model, &model.write().unwrap(), true).unwrap()).is_empty());
}

#[test]
fn members_are_complete_when_they_are_given() {
    let model = office();
    let wanted = declared(&model, "groups: [{name: staff, members: [ben, eve]}]", false).unwrap();
    assert_eq!(
        changes(&model, &wanted),
        [r#"AddMember("staff", "ben")"#, r#"AddMember("staff", "eve")"#, r#"RemoveMember("staff", "ana")"#]
    );
    assert_eq!(
        access(&model, &wanted),
        [
            ("ana wiki".to_owned(), Reach::Always, Reach::Never),
            ("ben wiki".to_owned(), Reach::Never, Reach::Always),
        ],
        "eve is disabled and gains nothing"
    );
    assert_eq!(declared(&model, "groups: [{name: staff}]", false).unwrap(), model);
}

#[test]
fn access_is_what_the_policies_say_and_not_what_the_file_touches() {
    let model = office();
    // Another way to what Ana may reach already: only Ben gains.
    let more = "groups: [{name: guests, members: [ana, ben]}]\npolicies: [{group: guests, resource: wiki}]";
    let wanted = declared(&model, more, false).unwrap();
    assert_eq!(access(&model, &wanted), [("ben wiki".to_owned(), Reach::Never, Reach::Always)]);
    // One of two ways goes: nobody loses who has the other.
    let fewer = declared(&wanted, "policies: [{group: guests, resource: wiki}]", true).unwrap();
    assert_eq!(access(&wanted, &fewer), []);
    let conditional = declared(
        &model,
        "policies: [{group: staff, resource: wiki, conditions: {verified_device: true}}]",
        false,
    )
    .unwrap();
    assert_eq!(
        access(&model, &conditional),
        [("ana wiki".to_owned(), Reach::Always, Reach::UnderConditions)]
    );
    let other = "policies: [{group: staff, resource: wiki, conditions: {authentication_age: 3600}}]";
    let other = declared(&model, other, false).unwrap();
    assert_eq!(
        access(&conditional, &other),
        [("ana wiki".to_owned(), Reach::UnderConditions, Reach::UnderConditions)]
    );
    let disabled =
        declared(&model, "policies: [{group: staff, resource: wiki, enabled: false}]", false).unwrap();
    assert_eq!(access(&model, &disabled), [("ana wiki".to_owned(), Reach::Always, Reach::Never)]);
}

#[test]
fn pruning_takes_along_what_rests_on_it_and_leaves_everyone() {
    let model = office();
    let wanted = declared(&model, "groups: []", true).unwrap();
    assert_eq!(changes(&model, &wanted), [r#"DeletePolicy("staff", "wiki")"#, r#"DeleteGroup("staff")"#]);
    let wanted = declared(&model, "sites: []", true).unwrap();
    assert_eq!(
        changes(&model, &wanted),
        [r#"DeletePolicy("staff", "wiki")"#, r#"DeleteResource("wiki")"#, r#"DeleteSite("office")"#]
    );
    assert_eq!(access(&model, &wanted), [("ana wiki".to_owned(), Reach::Always, Reach::Never)]);
    let moved = "sites: [{name: hall}]\nresources: [{name: wiki, site: hall, type: dns, address: wiki.corp}]";
    let wanted = declared(&model, moved, true).unwrap();
    assert_eq!(
        changes(&model, &wanted),
        [r#"CreateSite("hall")"#, r#"UpdateResource("wiki")"#, r#"DeleteSite("office")"#],
        "a resource that moves keeps its policies"
    );
}

#[test]
fn errors_say_where() {
    let model = office();
    for (text, says) in [
        ("sites:\n  - nmae: office\n", "line 2, column 5: "),
        ("sites: [{name: a}, {name: a}]", "line 1, column 27: this site is declared twice"),
        ("sites:\n  - name: ''\n", "line 2, column 11: no name"),
        (
            "resources:\n  - name: a\n    site: nowhere\n    type: ip\n    address: 192.0.2.1\n",
            "line 3, column 11: there is no site `nowhere`",
        ),
        ("resources: [{name: a, site: office, type: ip, address: 127.0.0.1}]", "line 1, column 56: "),
        (
            "resources: [{name: a, site: office, type: ip, address: 192.0.2.1, filters: [80]}]",
            "line 1, column 77: ",
        ),
        ("groups: [{name: a, members: [zoe]}]", "line 1, column 30: there is no actor `zoe`"),
        (
            "groups: [{name: Everyone, members: [ana]}]",
            "line 1, column 17: this group always holds everybody",
        ),
        ("policies: [{group: none, resource: wiki}]", "line 1, column 20: there is no group `none`"),
        ("policies: [{group: staff, resource: none}]", "line 1, column 37: there is no resource `none`"),
        (
            "policies: [{group: staff, resource: wiki, conditions: {authentication_age: 1}}]",
            "line 1, column 55: ",
        ),
        ("policies: [{group: staff, resource: wiki, conditions: {moon: full}}]", "line 1, column 56: "),
        ("sites: {", "line 1, column "),
        ("- a\n- b\n", "line 1, column 1: "),
        ("sites: &a [*a]", "line 1, column "),
    ] {
        let error = declared(&model, text, false).unwrap_err();
        assert!(error.starts_with(says) && error.lines().count() == 1, "{text}: {error}");
    }
}

fn any_name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]{1,3}",
        prop::sample::select(vec![
            "yes",
            "null",
            "~",
            "1",
            "1.0",
            "a: b",
            "- x",
            "#c",
            "ä ö",
            "'",
            "\"",
            "<b>",
            "0x1",
            "!t",
            "*a",
            "&a",
            "{",
            "%",
            "@",
            "2026-01-01"
        ])
        .prop_map(str::to_owned),
    ]
}

fn any_address() -> impl Strategy<Value = ResourceAddress> {
    prop_oneof![
        Just(ResourceAddress::Internet),
        "[a-z]{1,5}\\.corp".prop_map(|pattern| ResourceAddress::Dns { pattern }),
        (1..=254_u8).prop_map(|last| ResourceAddress::Ip { address: [192, 0, 2, last].into() }),
    ]
}

fn any_conditions() -> impl Strategy<Value = Conditions> {
    let texts = [
        "{}",
        r#"{"verified_device":true}"#,
        r#"{"authentication_age":3600,"remote_address":{"none_of":["192.0.2.0/24","2001:db8::/32"]}}"#,
        r#"{"time":{"time_zone":"Europe/Berlin","windows":[{"days":["mon","sun"],"from":"22:00","to":"06:00"}]}}"#,
    ];
    prop::sample::select(texts.to_vec()).prop_map(|text| serde_json::from_str(text).unwrap())
}

prop_compose! {
    fn any_model()(
        actors in prop::collection::btree_map(any_name(), any::<bool>(), 0..5),
        sites in prop::collection::btree_set(any_name(), 1..4),
        resources in prop::collection::btree_map(any_name(), (any::<prop::sample::Index>(), any_address(), any::<u16>()), 0..5),
        groups in prop::collection::btree_map(any_name(), any::<u8>(), 0..5),
        policies in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<bool>(), any_conditions()), 0..8),
    ) -> Model {
        let sites_list: Vec<&String> = sites.iter().collect();
        let resources = resources.into_iter().map(|(name, (site, address, port))| {
            let filters = vec![Filter::Tcp { ports: PortRange::new(port, port).unwrap() }, Filter::Icmp];
            (name, ResourceModel { site: (*site.get(&sites_list)).clone(), address, filters })
        }).collect();
        let groups = groups.into_iter().map(|(name, mask)| {
            let members = actors.keys().enumerate();
            let members = members.filter(|(n, _)| mask >> n & 1 == 1).map(|(_, name)| name.clone()).collect();
            (name, GroupModel { members, ..GroupModel::default() })
        }).collect();
        let mut model = Model { actors, sites, resources, groups, ..Model::default() };
        let groups: Vec<String> = model.groups.keys().cloned().collect();
        let names: Vec<String> = model.resources.keys().cloned().collect();
        if !groups.is_empty() && !names.is_empty() {
            for (group, resource, enabled, conditions) in policies {
                let name = (group.get(&groups).clone(), resource.get(&names).clone());
                model.policies.insert(name, PolicyModel { enabled, conditions });
            }
        }
        model
    }
}

proptest! {
    /// What is written declares what is there, whatever the names look like in YAML.
    #[test]
    fn what_is_exported_plans_to_nothing(model in any_model()) {
        let text = model.write().unwrap();
        prop_assert_eq!(declared(&model, &text, true), Ok(model.clone()), "{}", text);
        let actors = Model { actors: model.actors.clone(), ..Model::default() };
        prop_assert_eq!(declared(&actors, &text, true), Ok(model), "from nothing: {}", text);
    }

    /// Access by the plan is what a plain reading of the definition gives.
    #[test]
    fn access_agrees_with_the_definition(before in any_model(), after in any_model()) {
        let reaches = |model: &Model, actor: &str, resource: &str| {
            model.actors.get(actor) == Some(&true) && model.policies.iter().any(|((group, to), policy)| {
                to == resource && policy.enabled && model.groups[group].members.contains(actor)
            })
        };
        let plan = Plan::between(&before, &after);
        for Access { actor, resource, before: had, after: has } in &plan.access {
            prop_assert_eq!(*had != Reach::Never, reaches(&before, actor, resource));
            prop_assert_eq!(*has != Reach::Never, reaches(&after, actor, resource));
        }
        for actor in before.actors.keys().chain(after.actors.keys()) {
            for resource in before.resources.keys().chain(after.resources.keys()) {
                let differs = reaches(&before, actor, resource) != reaches(&after, actor, resource);
                let is_told = plan.access.iter().any(|one| one.actor == *actor && one.resource == *resource);
                prop_assert!(is_told || !differs || before.actors != after.actors, "{} {}", actor, resource);
            }
        }
    }

    #[test]
    fn no_text_makes_reading_panic(text in "(?s).{0,200}", yaml in "[a-z:\\[\\]{}&*!|> \\n,'\"#-]{0,120}") {
        let _ = (declared(&office(), &text, true), declared(&office(), &yaml, true));
    }
}
