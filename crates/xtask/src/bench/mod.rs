//! `cargo xtask bench`: the race against others, its verdicts, profiles of our own programs, and the pure code alone.

mod crypto;
mod debian;
mod figure;
mod peers;
mod profile;
mod pure;
mod report;
mod speed;

use std::path::PathBuf;

use adit_lab::bench::{self, Case, Implementation, Plan};
use adit_lab::system::Programs;
use anyhow::{Context as _, Result};

use crate::workspace::Workspace;
use crate::{BenchArguments, Verdict, lab, packages};

use report::Report;

/// Groups and what they do.
const GROUPS: [(&str, &str); 6] = [
    ("tunnel", "our tunnel, others and bare forwarding over the same wire, in turn"),
    ("profile", "perf profiles of our client and gateway under TCP load (needs --out)"),
    ("pure", "instructions of the hot paths, counted by valgrind, against the baseline"),
    ("crypto", "what ciphers and key agreements cost on this machine"),
    ("handshake", "complete handshakes a second, against boringtun"),
    ("scale", "one worker with 5,000 peers and 100,000 flows"),
];

/// Groups that raise a world of namespaces with our programs in it.
const WITH_WORLD: [&str; 2] = ["tunnel", "profile"];

pub(crate) fn run(arguments: &BenchArguments) -> Result<Verdict> {
    if arguments.list {
        list();
        return Ok(Verdict::Good);
    }
    let (cases, peers) = match choose(arguments) {
        Ok(chosen) => chosen,
        Err(complaint) => {
            eprintln!("{complaint}; `cargo xtask bench --list` names them");
            return Ok(Verdict::Impossible);
        }
    };
    let workspace = Workspace::read()?;
    if arguments.groups.iter().any(|group| WITH_WORLD.contains(&group.as_str())) {
        if !lab::is_possible()? || !packages::ensure_for_bench()? {
            return Ok(Verdict::Impossible);
        }
        workspace.build_programs(&arguments.profile)?;
    }
    let mut report = Report::new(arguments.json.as_deref())?;
    let mut verdict = Verdict::Good;
    for group in &arguments.groups {
        let of_group = match group.as_str() {
            "profile" => profile::run(arguments, &workspace)?,
            "pure" => pure::run(arguments, &workspace, &mut report)?,
            "crypto" => crypto::run(arguments, &workspace, &mut report)?,
            "handshake" => speed::handshake(arguments, &workspace, &mut report)?,
            "scale" => speed::scale(arguments, &workspace, &mut report)?,
            _ => tunnel(arguments, &workspace, &cases, &peers, &mut report)?,
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
}

/// Cases and peers, or what is wrong with the request.
fn choose(arguments: &BenchArguments) -> Result<(Vec<Case>, Vec<Implementation>), String> {
    if arguments.groups.is_empty() {
        return Err("say which group to run".to_owned());
    }
    let is_group = |name: &String| GROUPS.iter().any(|(group, _)| group == name);
    if let Some(unknown) = arguments.groups.iter().find(|name| !is_group(name)) {
        return Err(format!("no such group: {unknown}"));
    }
    let cases = bench::choose(&arguments.cases).map_err(|unknown| format!("no such case: {unknown}"))?;
    if arguments.peers.is_empty() {
        return Ok((cases, Implementation::PEERS.to_vec()));
    }
    let find = |name: &String| Implementation::peer(name).ok_or(format!("no such peer: {name}"));
    Ok((cases, arguments.peers.iter().map(find).collect::<Result<_, _>>()?))
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
        let (cases, peers) = choose(&arguments(&["tunnel"], &[], &[])).unwrap();
        assert_eq!((cases.len(), peers.len()), (bench::ALL.len(), Implementation::PEERS.len()));
        let (cases, peers) = choose(&arguments(&["tunnel"], &["tcp1"], &["rod", "raw"])).unwrap();
        assert_eq!(cases[0].name, "tcp1");
        assert_eq!(peers, [Implementation::Rod, Implementation::Raw]);
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
