//! The program `adit-portal`.

fn main() -> std::process::ExitCode {
    adit_portal::cli::main()
}
