//! Writes sample pages of drills into a directory, for whoever changes how they look: `cargo run -p host-worker --example drill_report -- DIR`.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a tool for the people who work on the page")]

#[path = "../tests/it/drill_samples.rs"]
mod drill_samples;

fn main() {
    let dir = std::env::args_os().nth(1).expect("the directory to write to");
    fs_err::create_dir_all(&dir).unwrap();
    for (name, report) in drill_samples::all() {
        let path = std::path::Path::new(&dir).join(format!("{name}.html"));
        fs_err::write(&path, host_worker::drill::html::render(&report)).unwrap();
        println!("{}", path.display());
    }
}
