//! `cargo xtask bench`: the race against others, its verdicts, profiles of our own programs, and the pure code alone.

mod client;
mod crypto;
mod debian;
mod figure;
mod peers;
mod portal;
mod profile;
mod pure;
mod relay;
mod relay_programs;
mod report;
mod speed;

use std::path::PathBuf;

use adit_lab::bench::{self, Case, Implementation, Plan, relay as relay_race};
use adit_lab::system::Programs;
use anyhow::{Context as _, Result};

use crate::workspace::Workspace;
use crate::{BenchArguments, Verdict, lab, packages};

use report::Report;

/// Groups and what they do.
const GROUPS: [(&str, &str); 9] = [
    ("tunnel", "our tunnel, others and bare forwarding over the same wire, in turn"),
    ("relay", "our relay, coturn and the bare way through a relay, in turn"),
    ("client", "what a user waits for, and what a device pays while nothing happens"),
    ("portal", "devices that a portal carries, authorizations a second, the death of a node"),
    ("profile", "perf profiles of our client and gateway under TCP load (needs --out)"),
    ("pure", "instructions of the hot paths, counted by valgrind, against the baseline"),
    ("crypto", "what ciphers and key agreements cost on this machine"),
    ("handshake", "complete handshakes a second, against boringtun"),
    ("scale", "one worker with 5,000 peers and 100,000 flows"),
];

/// Groups that raise a world of namespaces with all our programs in it.
const WITH_PROGRAMS: [&str; 3] = ["tunnel", "client", "profile"];

/// The group that raises one with our relay alone.
const RELAY: &str = "relay";

pub(crate) fn run(arguments: &BenchArguments) -> Result<Verdict> {
    if arguments.list {
        list();
        return Ok(Verdict::Good);
    }
    let chosen = match choose(arguments) {
        Ok(chosen) => chosen,
        Err(complaint) => {
            eprintln!("{complaint}; `cargo xtask bench --list` names them");
            return Ok(Verdict::Impossible);
        }
    };
    let workspace = Workspace::read()?;
    let needs_programs = arguments.groups.iter().any(|group| WITH_PROGRAMS.contains(&group.as_str()));
    let needs_world = needs_programs || arguments.groups.iter().any(|group| group == RELAY);
    if needs_world && (!lab::is_possible()? || !packages::ensure_for_bench()?) {
        return Ok(Verdict::Impossible);
    }
    if needs_programs {
        workspace.build_lab_programs(&arguments.profile)?;
    }
    let mut report = Report::new(arguments.json.as_deref())?;
    let mut verdict = Verdict::Good;
    for group in &arguments.groups {
        let of_group = match group.as_str() {
            "client" => client::run(arguments, &workspace, &mut report)?,
            "profile" => profile::run(arguments, &workspace)?,
            "pure" => pure::run(arguments, &workspace, &mut report)?,
            "crypto" => crypto::run(arguments, &workspace, &mut report)?,
            "handshake" => speed::handshake(arguments, &workspace, &mut report)?,
            "scale" => speed::scale(arguments, &workspace, &mut report)?,
            "portal" => portal::run(arguments, &workspace, &chosen.portal, &mut report)?,
            RELAY => relay::run(arguments, &workspace, &chosen.relay, &mut report)?,
            _ => tunnel(arguments, &workspace, &chosen.cases, &chosen.peers, &mut report)?,
        };
        if of_group != Verdict::Good {
            verdict = of_group;
        }
    }
    Ok(verdict)
}

fn list() {
    println!("groups:");
    for (name, description) in GROUPS {
        println!("  {name:<20} {description}");
    }
    println!("cases of `tunnel`:");
    for case in bench::ALL {
        println!("  {:<20} {}", case.name, case.description);
    }
    let names: Vec<&str> = Implementation::PEERS.into_iter().map(Implementation::name).collect();
    println!("peers of `tunnel`:\n  {}", names.join(" "));
    println!("cases of `relay`:");
    for case in relay_race::ALL {
        println!("  {:<20} {}", case.name, case.description);
    }
    for measured in &relay_programs::ALL {
        println!("  {:<20} {}", measured.case, measured.description);
    }
    println!("cases of `portal`:");
    for case in &portal::ALL {
        println!("  {:<20} {}", case.name, case.description);
    }
    let names: Vec<&str> =
        relay_race::Contestant::PEERS.into_iter().map(relay_race::Contestant::name).collect();
    println!("peers of `relay`:\n  {}", names.join(" "));
}

/// What the races shall run, and among whom.
#[derive(Debug)]
struct Chosen {
    cases: Vec<Case>,
    peers: Vec<Implementation>,
    relay: relay::Chosen,
    portal: Vec<&'static portal::Case>,
}

/// Cases and peers, or what is wrong with the request. A name must belong to one of the groups that were asked for.
fn choose(arguments: &BenchArguments) -> Result<Chosen, String> {
    if arguments.groups.is_empty() {
        return Err("say which group to run".to_owned());
    }
    let is_group = |name: &String| GROUPS.iter().any(|(group, _)| group == name);
    if let Some(unknown) = arguments.groups.iter().find(|name| !is_group(name)) {
        return Err(format!("no such group: {unknown}"));
    }
    let has = |group: &str| arguments.groups.iter().any(|name| name == group);
    let (has_tunnel, has_relay, has_portal) = (has("tunnel"), has(RELAY), has("portal"));
    let is_of_tunnel = |name: &str| has_tunnel && bench::ALL.iter().any(|case| case.name == name);
    let is_of_relay = |name: &str| has_relay && relay::is_case(name);
    let is_of_portal = |name: &str| has_portal && portal::is_case(name);
    let cases = &arguments.cases;
    let is_known = |name: &str| is_of_tunnel(name) || is_of_relay(name) || is_of_portal(name);
    if let Some(unknown) = cases.iter().find(|name| !is_known(name)) {
        return Err(format!("no such case: {unknown}"));
    }
    let tunnel_peer = |name: &String| Implementation::peer(name).filter(|_| has_tunnel);
    let relay_peer = |name: &String| relay_race::Contestant::peer(name).filter(|_| has_relay);
    let peers = &arguments.peers;
    if let Some(unknown) = peers.iter().find(|name| tunnel_peer(name).is_none() && relay_peer(name).is_none())
    {
        return Err(format!("no such peer: {unknown}"));
    }
    let (everything, everybody) = (cases.is_empty(), peers.is_empty());
    let named = |name: &str| everything || cases.iter().any(|case| case == name);
    Ok(Chosen {
        cases: bench::ALL.iter().filter(|case| named(case.name)).copied().collect(),
        peers: if everybody {
            Implementation::PEERS.to_vec()
        } else {
            peers.iter().filter_map(tunnel_peer).collect()
        },
        portal: portal::ALL.iter().filter(|case| named(case.name)).collect(),
        relay: relay::Chosen {
            cases: relay_race::ALL.iter().filter(|case| named(case.name)).copied().collect(),
            programs: relay_programs::ALL.iter().filter(|measured| named(measured.case)).collect(),
            peers: if everybody {
                relay_race::Contestant::PEERS.to_vec()
            } else {
                peers.iter().filter_map(relay_peer).collect()
            },
        },
    })
}

fn tunnel(
    arguments: &BenchArguments,
    workspace: &Workspace,
    cases: &[Case],
    peers: &[Implementation],
    report: &mut Report,
) -> Result<Verdict> {
    workspace.build_examples(&arguments.profile, &[bench::ROD])?;
    let log_dir = arguments.log_dir.clone().unwrap_or_else(default_log_dir);
    let plan = Plan {
        programs: Programs::new(workspace.binaries(&arguments.profile)),
        found: peers::find(peers)?,
        peers: peers.to_vec(),
        cases: cases.to_vec(),
        rounds: arguments.rounds,
        seconds: arguments.seconds,
        log_dir,
    };
    plan.programs.require()?;
    let result = bench::run(&plan).with_context(|| format!("logs in {}", plan.log_dir.display()));
    let (samples, lines) = result?;
    if arguments.log_dir.is_none() {
        // Logs are for whoever asks for them, and for a run that failed.
        let _ = std::fs::remove_dir_all(&plan.log_dir);
    }
    println!("\n{}", bench::medians(&samples));
    let verdict = report.add(&lines)?;
    say_what_was_measured(&plan);
    Ok(verdict)
}

fn say_what_was_measured(plan: &Plan) {
    println!(
        "{} rounds of {} s; ratios are medians of the ratios of single rounds",
        plan.rounds, plan.seconds
    );
    for program in &plan.found {
        println!("{:<14} {}", program.implementation.name(), program.version);
    }
}

fn default_log_dir() -> PathBuf {
    std::env::temp_dir().join(format!("adit-bench-logs-{}", std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(groups: &[&str], cases: &[&str], peers: &[&str]) -> BenchArguments {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        BenchArguments {
            groups: owned(groups),
            cases: owned(cases),
            peers: owned(peers),
            ..BenchArguments::default()
        }
    }

    #[test]
    fn all_cases_and_peers_take_part_unless_some_are_named() {
        let chosen = choose(&arguments(&["tunnel"], &[], &[])).unwrap();
        let counts = (chosen.cases.len(), chosen.peers.len());
        assert_eq!(counts, (bench::ALL.len(), Implementation::PEERS.len()));
        let chosen = choose(&arguments(&["tunnel"], &["tcp1"], &["rod", "raw"])).unwrap();
        assert_eq!(chosen.cases[0].name, "tcp1");
        assert_eq!(chosen.peers, [Implementation::Rod, Implementation::Raw]);
    }

    #[test]
    fn names_belong_to_the_groups_that_know_them() {
        let both = choose(&arguments(&["relay", "tunnel"], &["bursts_1", "tcp1"], &["rod"])).unwrap();
        assert_eq!((both.cases.len(), both.relay.cases.len(), both.relay.programs.len()), (1, 1, 0));
        assert_eq!(both.relay.peers, [relay_race::Contestant::Rod]);
        let pure = choose(&arguments(&["relay"], &["machine"], &[])).unwrap().relay;
        assert_eq!((pure.cases.len(), pure.programs[0].case), (0, "machine"));
        assert_eq!(choose(&arguments(&["relay"], &["tcp1"], &[])).unwrap_err(), "no such case: tcp1");
        assert_eq!(choose(&arguments(&["tunnel"], &[], &["coturn"])).unwrap_err(), "no such peer: coturn");
    }

    #[test]
    fn unknown_names_are_refused() {
        for (groups, cases, peers) in [
            (&["tunel"][..], &[][..], &[][..]),
            (&["tunnel"], &["tcp2"], &[]),
            (&["tunnel"], &[], &["openvpn"]),
            (&[], &[], &[]),
        ] {
            assert!(choose(&arguments(groups, cases, peers)).is_err());
        }
    }
}
