//! What the programs print, as util-linux 2.38 prints it.

use serde_json::{Value, json};

use super::model::{ARRAY_NAME, Content, Held};

/// The columns that `lsblk` is asked for.
pub(super) const LSBLK: &str = "PATH,TYPE,MODEL,SIZE,MAJ:MIN,MOUNTPOINTS";
/// The columns that `findmnt` is asked for.
pub(super) const FINDMNT: &str = "SOURCE,FSTYPE,MAJ:MIN";

pub(super) fn lsblk(held: &Held) -> Value {
    let disks = held.model.disks.iter().map(|disk| {
        let mut printed = block(held, &disk.name, "disk", disk.size);
        printed["model"] = json!(disk.model);
        if disk.name == "nvme0n1" {
            let mut part = block(held, "nvme0n1p1", "part", disk.size);
            part["mountpoints"] = json!(["/"]);
            part["maj:min"] = json!("259:99");
            printed["children"] = json!([part]);
        }
        if let Some(array) = held.model.array.as_ref().filter(|array| array.members.contains(&disk.name)) {
            let (kind, size) =
                if array.runs { ("raid0", disk.size * array.members.len() as u64) } else { ("md", 0) };
            printed["children"] = json!([block(held, ARRAY_NAME, kind, size)]);
        }
        printed
    });
    json!({ "blockdevices": disks.collect::<Vec<_>>() })
}

fn block(held: &Held, name: &str, kind: &str, size: u64) -> Value {
    let mounts: Vec<_> = held
        .model
        .mounts
        .iter()
        .filter(|mount| mount.device == name)
        .map(|mount| Some(&mount.target))
        .collect();
    let mounts = if mounts.is_empty() { vec![None] } else { mounts };
    json!({
        "path": held.device(name),
        "type": kind,
        "model": null,
        "size": size,
        "maj:min": held.model.number(name),
        "mountpoints": mounts,
    })
}

pub(super) fn findmnt(held: &Held, target: &str) -> Option<Value> {
    let mount = held.model.mounts.iter().rev().find(|mount| mount.target.to_str() == Some(target))?;
    let kind = match held.model.content(&mount.device) {
        Some(Content::FileSystem(system)) => system.kind.clone(),
        Some(Content::Blank | Content::Member { .. }) | None => "tmpfs".to_owned(),
    };
    Some(json!({ "filesystems": [{
        "source": held.device(&mount.device),
        "fstype": kind,
        "maj:min": held.model.number(&mount.device),
    }]}))
}

pub(super) fn wipefs(device: &str, content: &Content) -> Value {
    let (kind, label, uuid) = match content {
        Content::Blank => return json!({ "signatures": [] }),
        Content::FileSystem(system) => (system.kind.as_str(), system.label.as_ref(), &system.uuid),
        Content::Member { label, uuid, .. } => ("linux_raid_member", Some(label), uuid),
    };
    json!({ "signatures": [{ "device": device, "offset": "0x0", "type": kind, "uuid": uuid, "label": label }] })
}
