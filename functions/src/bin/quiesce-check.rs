//! The doorstep of `quiesce-check`.

fn main() -> std::process::ExitCode {
    functions::run(functions::Function::QuiesceCheck)
}
