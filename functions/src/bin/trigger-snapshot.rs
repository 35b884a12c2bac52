//! The doorstep of `trigger-snapshot`.

fn main() -> std::process::ExitCode {
    functions::run(functions::Function::TriggerSnapshot)
}
