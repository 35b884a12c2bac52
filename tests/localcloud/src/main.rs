//! The doorstep of `localcloud`.

fn main() -> std::process::ExitCode {
    localcloud::cli::run(std::env::args_os())
}
