//! The doorstep of `host-worker`.

fn main() -> std::process::ExitCode {
    host_worker::run(std::env::args_os())
}
