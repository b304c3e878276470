//! QEMU's command line, and the files that the kernel reads by fw_cfg.
use std::ffi::{OsStr, OsString};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::disk::{Disk, Failing};
use crate::image::BootImage;
use crate::trace::rings;

/// Bytes of the largest file that the kernel reads by fw_cfg.
pub const MAX_VMSCRIPT: usize = 1 << 20;
/// The disks' places on the PCI bus end at 0x1f.
pub const MAX_DISKS: usize = 16;
const FIRST_DISK_SLOT: usize = 0x10;
/// Before the disks, whose numbers follow their places.
const TRACE_SLOT: usize = 0xf;
pub(crate) const COM2_SOCKET: &str = "com2.socket";
pub(crate) const CONTROL_SOCKET: &str = "control.socket";
/// The memory that the kernel records in.
pub(crate) const TRACE_MEMORY: &str = "trace-memory";
pub(crate) const QMP_SOCKET: &str = "qmp.socket";

/// What executes the machine's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    /// The host's processor.
    Kvm,
    /// QEMU's translator.
    Tcg,
}

/// A machine, and what the kernel is told in it.
#[derive(Clone, Debug)]
pub struct MachineConfig {
    /// What it boots.
    pub boot: BootImage,
    /// OVMF's file; none: SeaBIOS.
    pub ovmf: Option<PathBuf>,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Number of processors.
    pub cpus: u32,
    /// What executes it.
    pub accelerator: Accelerator,
    /// Its virtio disks in the order of their places on the PCI bus; at most [`MAX_DISKS`].
    pub disks: Vec<Disk>,
    /// Show its screen in a window.
    pub display: bool,
    /// A nanosecond of the machine's time is one instruction.
    pub icount: bool,
    /// Offer QMP, for [`Machine::qmp_socket`](crate::Machine::qmp_socket).
    pub qmp: bool,
    /// The kernel's command line.
    pub cmdline: String,
    /// The one command that the kernel is to run.
    pub exec: Option<String>,
    /// The scenario that the kernel is to play; at most [`MAX_VMSCRIPT`] bytes.
    pub vmscript: Option<Vec<u8>>,
    /// Give the tour first.
    pub tour: bool,
    /// Offer the console (after the tour, if there is one).
    pub console: bool,
    /// The kernel records what it does, for [`Sinks::trace`](crate::Sinks::trace).
    pub trace: bool,
    /// More arguments for QEMU.
    pub extra: Vec<OsString>,
}

impl MachineConfig {
    /// A machine of one processor and 256 MiB that boots by BIOS, without disks, for tests to change.
    pub fn new(boot: BootImage) -> Self {
        Self {
            boot,
            ovmf: None,
            memory_mib: 256,
            cpus: 1,
            accelerator: Accelerator::Tcg,
            disks: Vec::new(),
            display: false,
            icount: false,
            qmp: false,
            cmdline: String::new(),
            exec: None,
            vmscript: None,
            tour: false,
            console: false,
            trace: false,
            extra: Vec::new(),
        }
    }

    /// The files that the kernel reads by fw_cfg: names without `opt/faultline/`, and contents.
    pub fn kernel_files(&self) -> Vec<(&'static str, Vec<u8>)> {
        let mut files = vec![("cmdline", self.cmdline.clone().into_bytes())];
        files.extend(self.exec.clone().map(|command| ("exec", command.into_bytes())));
        files.extend(self.vmscript.clone().map(|script| ("vmscript", script)));
        files.extend(self.tour.then(|| ("tour", "1".into())));
        files.extend(self.console.then(|| ("console", "1".into())));
        files.extend(self.trace.then(|| ("trace", "1".into())));
        files.push((
            "disks",
            self.disks
                .iter()
                .map(|disk| format!("{} {}\n", disk.name, disk.bytes))
                .collect::<String>()
                .into(),
        ));
        files
    }

    /// QEMU's arguments, when the sockets and the kernel's files are in `folder`.
    pub fn arguments(&self, folder: &Path) -> Vec<OsString> {
        let mut args = Arguments::default();
        args.add("-machine", "pc").add("-accel", self.accelerator.name()).add("-cpu", self.cpu());
        args.add("-m", format!("{}M", self.memory_mib)).add("-smp", self.cpus.to_string());
        args.flag("-no-reboot").flag("-nodefaults").flag("-no-user-config").add("-vga", "std");
        if !self.display {
            args.add("-display", "none");
        }
        if self.icount {
            args.add("-icount", "shift=0,sleep=off");
        }
        if let Some(ovmf) = &self.ovmf {
            args.add("-bios", ovmf);
        }
        self.add_channels(&mut args, folder);
        if self.ovmf.is_some() {
            hide_serial_lines(&mut args);
        }
        for (name, _) in self.kernel_files() {
            let prefix = format!("name=opt/faultline/{name},file=");
            args.add("-fw_cfg", with_path(&prefix, &folder.join(name)));
        }
        // Nothing that the machine does to its boot disk lasts, so several machines share one image.
        args.add("-drive", with_path("if=none,id=boot,format=raw,snapshot=on,file=", &self.boot.image));
        // AHCI: by the older interface the BIOS reads word by word, and a busy host makes that take minutes.
        args.add("-device", "ahci,id=ahci").add("-device", "ide-hd,bus=ahci.0,drive=boot,bootindex=0");
        for (index, disk) in self.disks.iter().enumerate() {
            add_disk(&mut args, index, disk);
        }
        args.0.extend(self.extra.iter().cloned());
        args.0
    }

    /// More physical address bits make the boot loader map a terabyte that is not there.
    fn cpu(&self) -> &'static str {
        match (self.accelerator, self.icount) {
            (Accelerator::Kvm, _) => "max,host-phys-bits-limit=36",
            (Accelerator::Tcg, false) => "max,phys-bits=36",
            // Without fast string instructions, which count each byte as an instruction.
            (Accelerator::Tcg, true) => "max,phys-bits=36,-erms,-fsrm",
        }
    }

    fn add_channels(&self, args: &mut Arguments, folder: &Path) {
        args.add("-chardev", "stdio,id=com1,signal=off").add("-serial", "chardev:com1");
        args.add("-chardev", with_path("socket,id=com2,path=", &folder.join(COM2_SOCKET)));
        args.add("-serial", "chardev:com2");
        args.add("-chardev", with_path("socket,id=control,path=", &folder.join(CONTROL_SOCKET)));
        args.add("-device", "isa-debugcon,iobase=0xe9,chardev=control");
        args.add("-device", "isa-debug-exit,iobase=0xf4,iosize=0x04");
        if self.trace {
            let memory = format!("memory-backend-file,id=trace,share=on,size={},mem-path=", rings::BYTES);
            args.add("-object", with_path(&memory, &folder.join(TRACE_MEMORY)));
            args.add("-device", format!("ivshmem-plain,memdev=trace,addr={TRACE_SLOT:#x}"));
        }
        if self.qmp {
            args.add(
                "-chardev",
                with_path("socket,id=qmp,server=on,wait=off,path=", &folder.join(QMP_SOCKET)),
            );
            args.add("-mon", "chardev=qmp,mode=control");
        }
    }
}

impl Accelerator {
    fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

#[derive(Default)]
struct Arguments(Vec<OsString>);

impl Arguments {
    fn flag(&mut self, name: &str) -> &mut Self {
        self.0.push(name.into());
        self
    }

    fn add(&mut self, name: &str, value: impl AsRef<OsStr>) -> &mut Self {
        self.0.push(name.into());
        self.0.push(value.as_ref().into());
        self
    }
}

/// OVMF prints on every serial line whose scratch register keeps what is written to it, and clears the
/// terminal, too. Other devices in the place of these registers make the lines look absent to it; the kernel
/// does not need the register.
fn hide_serial_lines(args: &mut Arguments) {
    for register in ["0x3ff", "0x2ff"] {
        args.add("-chardev", format!("null,id=scratch{register}"));
        args.add("-device", format!("isa-debugcon,iobase={register},chardev=scratch{register}"));
    }
}

/// Adds a disk: the file, faults above it, a limit above those, and the device.
fn add_disk(args: &mut Arguments, index: usize, disk: &Disk) {
    let read_only = disk.spec.read_only;
    let mut node = format!("file{index}");
    let path = disk.spec.path.to_string_lossy();
    let file = json!({
        "driver": "file", "node-name": node, "filename": path, "read-only": read_only, "locking": "on",
    });
    args.add("-blockdev", file.to_string());
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
    let slot = FIRST_DISK_SLOT + index;
    // Requests that QEMU has merged all fail when one of them does: a page would have its neighbour's error.
    let merging = if disk.spec.fails() { ",request-merging=off" } else { "" };
    args.add(
        "-device",
        format!("virtio-blk-pci,drive={node},addr={slot:#x},bootindex={}{merging}", index + 1),
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

/// QEMU ends a value at a comma unless it is doubled.
fn with_path(prefix: &str, path: &Path) -> String {
    format!("{prefix}{}", path.to_string_lossy().replace(',', ",,"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::DiskSpec;

    fn config() -> MachineConfig {
        MachineConfig::new(BootImage { image: "/boot,1.img".into(), symbols: "/kernel.elf".into() })
    }

    fn disk(name: &str, bytes: u64, spec: DiskSpec) -> Disk {
        Disk { name: name.into(), bytes, spec }
    }

    fn line(config: &MachineConfig) -> String {
        let args = config.arguments(Path::new("/run"));
        args.iter().map(|arg| arg.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_machine_is_the_same_everywhere() {
        let line = line(&config());
        for part in [
            "-machine pc",
            "-accel tcg",
            "-cpu max,phys-bits=36",
            "-m 256M",
            "-smp 1",
            "-no-reboot",
            "-display none",
            "-serial chardev:com1 ",
            "path=/run/com2.socket -serial chardev:com2",
            "iobase=0xe9,chardev=control",
            "isa-debug-exit,iobase=0xf4",
            "name=opt/faultline/cmdline,file=/run/cmdline",
            "file=/boot,,1.img",
        ] {
            assert!(line.contains(part), "{part} in {line}");
        }
        for part in ["-icount", "-bios", "qmp", "exec", "virtio", "ivshmem"] {
            assert!(!line.contains(part), "{part} in {line}");
        }
    }

    #[test]
    fn options_reach_qemu() {
        let mut config = config();
        config.cpus = 4;
        config.memory_mib = 64;
        config.icount = true;
        config.display = true;
        config.qmp = true;
        config.trace = true;
        config.ovmf = Some("/ovmf.fd".into());
        config.extra = vec!["-d".into(), "int".into()];
        let line = line(&config);
        for part in [
            "-smp 4",
            "-m 64M",
            "-icount shift=0,sleep=off",
            "-erms,-fsrm",
            "-bios /ovmf.fd",
            "iobase=0x2ff",
            "qmp.socket",
            "share=on,size=33554432,mem-path=/run/trace-memory",
            "ivshmem-plain,memdev=trace,addr=0xf",
        ] {
            assert!(line.contains(part), "{part} in {line}");
        }
        assert!(!line.contains("-display"), "{line}");
        assert!(line.ends_with("-d int"), "{line}");
        config.accelerator = Accelerator::Kvm;
        assert!(config.arguments(Path::new("/run")).contains(&"kvm".into()));
    }

    #[test]
    fn disks_stand_in_order_and_are_locked() {
        let mut config = config();
        config.disks = vec![
            disk("disk0", 1, DiskSpec { path: "/a,b.img".into(), ..DiskSpec::default() }),
            disk("programs", 10240, DiskSpec::read_only("/p.tar")),
        ];
        let line = line(&config);
        let first =
            r#"{"driver":"file","filename":"/a,b.img","locking":"on","node-name":"file0","read-only":false}"#;
        assert!(line.contains(first), "{line}");
        assert!(line.contains("virtio-blk-pci,drive=file0,addr=0x10"), "{line}");
        assert!(line.contains("virtio-blk-pci,drive=file1,addr=0x11"), "{line}");
        assert!(line.contains(r#""read-only":true"#), "{line}");
        assert!(config.kernel_files().contains(&("disks", "disk0 1\nprograms 10240\n".into())));
    }

    #[test]
    fn faults_stand_below_the_limit() {
        let mut config = config();
        let spec = DiskSpec {
            path: "/a".into(),
            read_only: true,
            iops: Some(10),
            failing: vec![2048..2049, 2049..2050],
            failing_flushes: Some(Failing::Once),
            log: Some("/a.log".into()),
            failing_once: vec![7..8, 8..9],
            failing_writes: vec![9..10, 10..11],
        };
        config.disks = vec![disk("disk0", 4096, spec)];
        let line = line(&config);
        for part in [
            r#""driver":"blklogwrites","file":"file0","log":{"driver":"file","filename":"/a.log"},"#,
            r#""driver":"blkdebug","image":"logged0","#,
            r#""iotype":"flush","once":true"#,
            r#""sector":2048"#,
            r#""sector":2049"#,
            r#""errno":5,"event":"none","immediately":false,"iotype":"read","once":false,"sector":2048"#,
            r#""iotype":"read","once":true,"sector":8"#,
            r#""iotype":"write","once":false,"sector":10"#,
            r#""limits":{"iops-total":10}"#,
            r#""driver":"throttle","file":"faults0""#,
            "drive=limit0",
            "request-merging=off",
        ] {
            assert!(line.contains(part), "{part} in {line}");
        }
        assert!(!line.contains("2050"), "{line}");
    }

    #[test]
    fn the_kernel_is_told_what_to_do() {
        let mut config = config();
        config.tour = true;
        config.console = true;
        let files = config.kernel_files();
        assert!(files.contains(&("tour", "1".into())) && files.contains(&("console", "1".into())));
        assert!(!files.iter().any(|(name, _)| *name == "exec"));
        config.vmscript = Some(b"ram 1 # \xff".into());
        assert!(config.kernel_files().contains(&("vmscript", b"ram 1 # \xff".into())));
        config.exec = Some("hash --threads 8".into());
        assert!(config.kernel_files().contains(&("exec", "hash --threads 8".into())));
    }
}
