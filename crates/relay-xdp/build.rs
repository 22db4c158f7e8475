//! Compiles the program with clang, if the feature asks for it.

use std::path::PathBuf;
use std::process::Command;

/// What clang may be called; `CLANG` goes before.
const NAMES: [&str; 8] =
    ["clang", "clang-21", "clang-20", "clang-19", "clang-18", "clang-17", "clang-16", "clang-14"];

/// Everything that the program is made of.
const SOURCES: [&str; 8] =
    ["relay.c", "forward.h", "next_hop.h", "parse.h", "tables.h", "frame.h", "kernel.h", "measured.h"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=CLANG");
    for source in SOURCES {
        println!("cargo::rerun-if-changed=program/{source}");
    }
    if std::env::var_os("CARGO_FEATURE_PROGRAM").is_none() {
        return;
    }
    let clang = clang();
    compile(&clang, "ADIT_XDP_PROGRAM", "relay.o", &[]);
    compile(&clang, "ADIT_XDP_MEASURED", "measured.o", &["-DMEASURED"]);
}

fn clang() -> String {
    println!("cargo::rerun-if-env-changed=PATH");
    if let Ok(named) = std::env::var("CLANG") {
        return named;
    }
    let works =
        |name: &str| Command::new(name).arg("--version").output().is_ok_and(|run| run.status.success());
    let found = NAMES.into_iter().find(|name| works(name));
    let found = found.unwrap_or_else(|| {
        panic!(
            "the XDP program needs clang 14 or newer (Debian: apt-get install clang); or name one with CLANG"
        )
    });
    found.to_owned()
}

fn compile(clang: &str, variable: &str, name: &str, definitions: &[&str]) {
    let directory = std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    let object = PathBuf::from(directory).join(name);
    let endianness = std::env::var("CARGO_CFG_TARGET_ENDIAN").expect("cargo sets the target's endianness");
    let target = if endianness == "big" { "bpfeb" } else { "bpfel" };
    let mut command = Command::new(clang);
    // Debugging information is what the description of the maps (BTF) is made from.
    command.args(["-target", target, "-mcpu=v3", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-nostdinc"]);
    command.args(["-fno-ident", "-fdebug-prefix-map=program=."]);
    command.args(definitions).args(["-c", "program/relay.c", "-o"]).arg(&object);
    match command.status() {
        Ok(status) if status.success() => println!("cargo::rustc-env={variable}={}", object.display()),
        Ok(status) => panic!("{clang} did not compile the XDP program: {status}"),
        Err(error) => panic!("{clang} cannot be started: {error}"),
    }
}
