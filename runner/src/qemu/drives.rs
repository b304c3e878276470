//! A disk as layers: each is a node of QEMU's, above the one that it is made of.
use std::ops::Range;
use std::path::Path;

use serde_json::{Value, json};

use super::Arguments;
use crate::disk::{Disk, Failing};

const FIRST_DISK_SLOT: usize = 0x10;

/// Adds a disk: the file, faults above it, a limit above those, and the device. If the machine is taped, the file only
/// lies below an overlay, and topmost is what makes each request end at the same instruction again.
pub(super) fn add(args: &mut Arguments, index: usize, disk: &Disk, taped: Option<&Path>) {
    let read_only = disk.spec.read_only;
    let mut node = format!("file{index}");
    let path = disk.spec.path.to_string_lossy();
    let file = json!({
        "driver": "file", "node-name": node, "filename": path, "read-only": read_only || taped.is_some(),
        "locking": "on",
    });
    args.add("-blockdev", file.to_string());
    if let Some(overlay) = taped.filter(|_| !read_only) {
        let below = std::mem::replace(&mut node, format!("overlay{index}"));
        let file = json!({ "driver": "file", "filename": overlay.to_string_lossy() });
        let overlay = json!({ "driver": "qcow2", "node-name": node, "file": file, "backing": below });
        args.add("-blockdev", overlay.to_string());
    }
    if let Some(log) = &disk.spec.log {
        let below = std::mem::replace(&mut node, format!("logged{index}"));
        let log = json!({ "driver": "file", "filename": log.to_string_lossy() });
        let logged = json!({ "driver": "blklogwrites", "node-name": node, "file": below, "log": log, "read-only": read_only });
        args.add("-blockdev", logged.to_string());
    }
    if disk.spec.fails() {
        let below = std::mem::replace(&mut node, format!("faults{index}"));
        let spec = &disk.spec;
        let rules = |sectors: &[Range<u64>], iotype: &'static str, once: bool| {
            let sectors: Vec<u64> = sectors.iter().cloned().flatten().collect();
            sectors.into_iter().map(move |sector| failing_sector(sector, iotype, once))
        };
        let rules: Vec<Value> = rules(&spec.failing, "read", false)
            .chain(rules(&spec.failing_once, "read", true))
            .chain(rules(&spec.failing_writes, "write", false))
            .chain(rules(&spec.failing_writes_once, "write", true))
            .chain(spec.failing_flushes.map(failing_flush))
            .collect();
        let faults = json!({
            "driver": "blkdebug", "node-name": node, "image": below, "read-only": read_only, "inject-error": rules,
        });
        args.add("-blockdev", faults.to_string());
    }
    if let Some(iops) = disk.spec.iops {
        let below = std::mem::replace(&mut node, format!("limit{index}"));
        let group = format!("group{index}");
        let limit = json!({ "qom-type": "throttle-group", "id": group, "limits": { "iops-total": iops } });
        args.add("-object", limit.to_string());
        let throttle = json!({
            "driver": "throttle", "node-name": node, "throttle-group": group, "file": below, "read-only": read_only,
        });
        args.add("-blockdev", throttle.to_string());
    }
    if taped.is_some() {
        let below = std::mem::replace(&mut node, format!("taped{index}"));
        let taped =
            json!({ "driver": "blkreplay", "node-name": node, "image": below, "read-only": read_only });
        args.add("-blockdev", taped.to_string());
    }
    // Requests that reach the device through another thread of QEMU's would do so at any instruction.
    let direct = if taped.is_some() { ",ioeventfd=off" } else { "" };
    let slot = FIRST_DISK_SLOT + index;
    // Requests that QEMU has merged all fail when one of them does: a page would have its neighbour's error.
    let merging = if disk.spec.fails() { ",request-merging=off" } else { "" };
    args.add(
        "-device",
        format!("virtio-blk-pci,drive={node},addr={slot:#x},bootindex={}{merging}{direct}", index + 1),
    );
}

/// Each read or write of this sector fails with EIO, every time or once.
fn failing_sector(sector: u64, iotype: &str, once: bool) -> Value {
    json!({ "event": "none", "iotype": iotype, "sector": sector, "errno": 5, "once": once, "immediately": false })
}

/// Flushes fail with EIO.
fn failing_flush(which: Failing) -> Value {
    let once = which == Failing::Once;
    json!({ "event": "none", "iotype": "flush", "errno": 5, "once": once, "immediately": false })
}
