//! The doorstep of `publish-manifest`.

fn main() -> std::process::ExitCode {
    functions::run(functions::Function::PublishManifest)
}
