//! The programs themselves: each is one change of the model, or one look at it.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use fs_err as fs;
use rustix::process::{Signal, getppid, kill_process};

use super::{
    model::{ARRAY_NAME, Array, At, Content, FileSystem, Held, Model, Moment, MountedAt},
    print,
};

/// The variable that names the directory of the model.
pub const VARIABLE: &str = "LOCALCLOUD_DISKS";
/// What these stand-ins are called.
pub const NAMES: [&str; 7] = ["lsblk", "wipefs", "findmnt", "mkfs.xfs", "mdadm", "mount", "chown"];
/// The array that the worker makes.
const ARRAY: &str = "/dev/md/qdrant";

/// What a program comes to.
enum Outcome {
    Printed(String),
    Silent,
    /// It fails with this code and these words.
    Refused(u8, String),
}

/// The stand-in that goes by this name.
pub(crate) fn known_as(name: &OsStr) -> Option<&'static str> {
    NAMES.into_iter().find(|known| name == *known)
}

/// Is the program of this name.
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a program of its own")]
pub(crate) fn run(name: &'static str, arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<String> = arguments.map(|word| word.to_string_lossy().into_owned()).collect();
    match outcome(name, &arguments) {
        Ok(Outcome::Printed(text)) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Ok(Outcome::Silent) => ExitCode::SUCCESS,
        Ok(Outcome::Refused(code, words)) => {
            if !words.is_empty() {
                eprintln!("{name}: {words}");
            }
            ExitCode::from(code)
        }
        Err(error) => {
            eprintln!("{name} (stand-in): {error:#}");
            ExitCode::from(70)
        }
    }
}

fn outcome(name: &str, arguments: &[String]) -> anyhow::Result<Outcome> {
    let dir = std::env::var_os(VARIABLE)
        .with_context(|| format!("`{VARIABLE}` does not say where the disks are"))?;
    let mut held = Held::take(Path::new(&dir))?;
    let number = held.model.calls.len();
    held.model.calls.push(std::iter::once(name.to_owned()).chain(arguments.iter().cloned()).collect());
    let cut = held.model.cut.take_if(|cut| match &cut.at {
        At::Number(at) => *at == number,
        At::Words(words) => format!("{name} {}", arguments.join(" ")).starts_with(words.as_str()),
    });
    let cut = cut.map(|cut| cut.moment);
    if cut == Some(Moment::Before) {
        return power_cut(held);
    }
    if let Some((_, words)) = held.model.failures.iter().find(|(program, _)| program == name) {
        let refused = Outcome::Refused(1, words.clone());
        held.save()?;
        return Ok(refused);
    }
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = call(&mut held, name, &words, cut == Some(Moment::Within))?;
    if cut.is_some() {
        return power_cut(held);
    }
    held.save()?;
    Ok(outcome)
}

/// Who called dies, and then this program.
fn power_cut(held: Held) -> anyhow::Result<Outcome> {
    held.save()?;
    let parent = getppid().context("nobody called")?;
    kill_process(parent, Signal::KILL).context("kill who called")?;
    Ok(Outcome::Refused(137, String::new()))
}

fn call(held: &mut Held, name: &str, words: &[&str], half: bool) -> anyhow::Result<Outcome> {
    Ok(match (name, words) {
        ("lsblk", ["--json", "--bytes", "--output", print::LSBLK]) => {
            Outcome::Printed(print::lsblk(held).to_string())
        }
        ("findmnt", ["--json", "--output", print::FINDMNT, "--mountpoint", target]) => {
            match print::findmnt(held, target) {
                Some(found) => Outcome::Printed(found.to_string()),
                None => Outcome::Refused(1, String::new()),
            }
        }
        ("wipefs", ["--no-act", "--json", "--", device]) => {
            match known(held, device).and_then(|name| held.model.content(&name)) {
                Some(content) => Outcome::Printed(print::wipefs(device, content).to_string()),
                None => Outcome::Refused(
                    1,
                    format!("error: {device}: probing initialization failed: No such file or directory"),
                ),
            }
        }
        ("mkfs.xfs", ["-q", "-K", "-L", label, device]) => mkfs(held, label, device, false, half),
        ("mkfs.xfs", ["-q", "-K", "-L", label, "-f", device]) => mkfs(held, label, device, true, half),
        ("mount", ["--types", "xfs", "--options", _, "--", device, target]) => {
            mount(held, device, Path::new(target))?
        }
        ("chown", ["1000:1000", "--", dirs @ ..]) if !dirs.is_empty() => {
            match dirs.iter().find(|dir| !Path::new(dir).is_dir()) {
                Some(missing) => {
                    Outcome::Refused(1, format!("cannot access '{missing}': No such file or directory"))
                }
                None => Outcome::Silent,
            }
        }
        (
            "mdadm",
            [
                "--create",
                ARRAY,
                "--level=0",
                "--metadata=1.2",
                "--homehost=any",
                "--name=qdrant",
                count,
                devices @ ..,
            ],
        ) => create(held, count, devices, half),
        ("mdadm", ["--assemble", ARRAY, devices @ ..]) => assemble(held, devices),
        ("mdadm", ["--zero-superblock", devices @ ..]) => forget(held, devices, half),
        ("mdadm", ["--stop", device]) => stop(held, device),
        _ => Outcome::Refused(
            64,
            format!("these arguments are not known to the stand-in: {}", words.join(" ")),
        ),
    })
}

/// The name of the device at this path, if there is one.
fn known(held: &Held, path: &str) -> Option<String> {
    let name = Path::new(path).file_name()?.to_str()?;
    (held.device(name) == Path::new(path) && held.model.content(name).is_some()).then(|| name.to_owned())
}

fn mkfs(held: &mut Held, label: &str, device: &str, force: bool, half: bool) -> Outcome {
    let Some(name) = known(held, device) else {
        return Outcome::Refused(1, format!("{device}: No such file or directory"));
    };
    if is_busy(&held.model, &name) {
        return Outcome::Refused(1, format!("cannot open {device}: Device or resource busy"));
    }
    if !force && held.model.content(&name) != Some(&Content::Blank) {
        return Outcome::Refused(
            1,
            format!(
                "{device} appears to contain an existing filesystem. Use the -f option to force overwrite."
            ),
        );
    }
    let system = FileSystem {
        kind: "xfs".to_owned(),
        label: Some(label.to_owned()),
        uuid: uuid::Uuid::new_v4().to_string(),
        finished: !half,
    };
    held.model.put(&name, Content::FileSystem(system));
    Outcome::Silent
}

fn mount(held: &mut Held, device: &str, target: &Path) -> anyhow::Result<Outcome> {
    let refused = |words: &str| Ok(Outcome::Refused(32, format!("{}: {words}", target.display())));
    let Some(name) = known(held, device) else {
        return refused(&format!("special device {device} does not exist."));
    };
    let uuid = match held.model.content(&name) {
        Some(Content::FileSystem(system)) if system.kind == "xfs" && system.finished => system.uuid.clone(),
        _ => return refused(&format!("wrong fs type, bad option, bad superblock on {device}.")),
    };
    if !target.is_dir() {
        return refused("mount point does not exist.");
    }
    if held.model.mounts.iter().any(|mount| mount.device == name || mount.target == target) {
        return refused(&format!("{device} already mounted or mount point busy."));
    }
    mount_files(held, &name, &uuid, target)?;
    Ok(Outcome::Silent)
}

/// Lets a directory show what a file system holds.
pub(super) fn mount_files(held: &mut Held, device: &str, uuid: &str, target: &Path) -> anyhow::Result<()> {
    let files = held.files(uuid);
    fs::create_dir_all(&files)?;
    fs::rename(target, covered(target))?;
    fs_err::os::unix::fs::symlink(&files, target)?;
    held.model.mounts.push(MountedAt { device: device.to_owned(), target: target.to_owned() });
    Ok(())
}

/// Where the directory is that a mount covers.
pub(super) fn covered(target: &Path) -> PathBuf {
    let mut name = target.as_os_str().to_owned();
    name.push(".covered");
    PathBuf::from(name)
}

fn create(held: &mut Held, count: &str, devices: &[&str], half: bool) -> Outcome {
    let names: Option<Vec<String>> = devices.iter().map(|device| known(held, device)).collect();
    let Some(names) = names else {
        return Outcome::Refused(2, "cannot open a device: No such file or directory".to_owned());
    };
    if count != format!("--raid-devices={}", names.len()) {
        return Outcome::Refused(
            2,
            format!("You haven't given enough devices (real or missing) to create this array ({count})"),
        );
    }
    if let Some(busy) = names.iter().find(|name| is_busy(&held.model, name)) {
        return Outcome::Refused(1, format!("cannot open {busy}: Device or resource busy"));
    }
    if let Some(used) = names.iter().find(|name| held.model.content(name) != Some(&Content::Blank)) {
        return Outcome::Refused(
            1,
            format!("{used} appears to contain something. Continue creating array? create aborted."),
        );
    }
    let uuid = uuid::Uuid::new_v4().to_string();
    for name in names.iter().take(if half { names.len() / 2 } else { names.len() }) {
        let member = Content::Member {
            uuid: uuid.clone(),
            label: "any:qdrant".to_owned(),
            count: names.len(),
            inside: Box::default(),
        };
        held.model.put(name, member);
    }
    if !half {
        held.model.array = Some(Array { uuid, members: names, runs: true });
    }
    Outcome::Silent
}

fn assemble(held: &mut Held, devices: &[&str]) -> Outcome {
    let names: Vec<String> = devices.iter().filter_map(|device| known(held, device)).collect();
    if let Some(busy) = names.iter().find(|name| is_busy(&held.model, name)) {
        return Outcome::Refused(1, format!("{busy} is busy - skipping"));
    }
    match array_of(&held.model, &names) {
        Some(array) if array.runs && array.members.len() == devices.len() => {
            held.model.array = Some(array);
            Outcome::Silent
        }
        _ => Outcome::Refused(
            1,
            format!("{ARRAY} assembled from {} drives - not enough to start the array.", names.len()),
        ),
    }
}

fn forget(held: &mut Held, devices: &[&str], half: bool) -> Outcome {
    for device in devices.iter().take(if half { devices.len() / 2 } else { devices.len() }) {
        let Some(name) = known(held, device) else {
            return Outcome::Refused(1, format!("Couldn't open {device} for write - not zeroing"));
        };
        let is_member = matches!(held.model.content(&name), Some(Content::Member { .. }));
        if is_busy(&held.model, &name) || !is_member {
            return Outcome::Refused(1, format!("Couldn't open {device} for write - not zeroing"));
        }
        held.model.put(&name, Content::Blank);
    }
    Outcome::Silent
}

fn stop(held: &mut Held, device: &str) -> Outcome {
    let is_there = held.model.array.is_some() && held.device(ARRAY_NAME) == Path::new(device);
    if !is_there || held.model.mounts.iter().any(|mount| mount.device == ARRAY_NAME) {
        return Outcome::Refused(1, format!("error opening {device}: No such file or directory, or busy"));
    }
    held.model.array = None;
    Outcome::Silent
}

/// What udev makes of the disks that it finds after a start.
pub(super) fn udev(model: &mut Model) {
    let names: Vec<String> = model.disks.iter().map(|disk| disk.name.clone()).collect();
    model.array = array_of(model, &names);
}

/// The array that these disks hold, running if all of its members are among them.
fn array_of(model: &Model, names: &[String]) -> Option<Array> {
    let members = names.iter().filter_map(|name| match model.content(name)? {
        Content::Member { uuid, count, .. } => Some((name.clone(), uuid.clone(), *count)),
        Content::Blank | Content::FileSystem(_) => None,
    });
    let members: Vec<_> = members.collect();
    let (_, uuid, count) = members.first()?.clone();
    let members: Vec<_> =
        members.into_iter().filter(|(_, id, _)| *id == uuid).map(|(name, _, _)| name).collect();
    Some(Array { uuid, runs: members.len() == count, members })
}

/// Whether an array or a mount holds a device.
fn is_busy(model: &Model, name: &str) -> bool {
    model.array.as_ref().is_some_and(|array| array.members.iter().any(|member| member == name))
        || model.mounts.iter().any(|mount| mount.device == name)
}
