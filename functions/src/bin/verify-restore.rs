//! The doorstep of `verify-restore`.

fn main() -> std::process::ExitCode {
    functions::run(functions::Function::VerifyRestore)
}
