//! QEMU's command line, and the files that the kernel reads by fw_cfg.
mod drives;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::disk::Disk;
use crate::host::Window;
use crate::image::BootImage;
use crate::overlay;
use crate::trace::rings;

/// Bytes of the largest file that the kernel reads by fw_cfg.
pub const MAX_VMSCRIPT: usize = 1 << 20;
/// The disks' places on the PCI bus end at 0x1f.
pub const MAX_DISKS: usize = 16;
/// Before the disks, whose numbers follow their places.
const TRACE_SLOT: usize = 0xf;
pub(crate) const COM2_PIPE: &str = "com2.pipe";
pub(crate) const CONTROL_SOCKET: &str = "control.socket";
/// The memory that the kernel records in.
pub(crate) const TRACE_MEMORY: &str = "trace-memory";
/// Where a debugger reaches the machine.
pub(crate) const GDB_SOCKET: &str = "gdb.socket";
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
    /// Show its screen in a window of this kind.
    pub display: Option<Window>,
    /// It stays when the kernel powers it off, until the runner has seen its screen.
    pub stays: bool,
    /// A nanosecond of the machine's time is one instruction.
    pub icount: bool,
    /// It stops before its first instruction, until a debugger says otherwise.
    pub gdb: bool,
    /// It is recorded or replayed.
    pub tape: Option<Tape>,
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

/// A log of what comes into a machine from outside.
#[derive(Clone, Debug)]
pub struct Tape {
    /// Its file.
    pub log: PathBuf,
    /// It is there, and the machine is to run by it.
    pub replays: bool,
}

fn overlay_name(index: usize) -> String {
    format!("overlay{index}")
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
            display: None,
            stays: false,
            icount: false,
            gdb: false,
            tape: None,
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

    /// Files in QEMU's folder that take what the machine writes to its disks: names and contents. None if it may write
    /// to the disks themselves.
    pub(crate) fn overlays(&self) -> Vec<(String, Vec<u8>)> {
        let disks =
            self.disks.iter().enumerate().filter(|(_, disk)| self.tape.is_some() && !disk.spec.read_only);
        disks.map(|(index, disk)| (overlay_name(index), overlay::empty(disk.bytes))).collect()
    }

    /// QEMU's arguments, when the sockets and the kernel's files are in `folder`.
    pub fn arguments(&self, folder: &Path) -> Vec<OsString> {
        let mut args = Arguments::default();
        args.add("-machine", "pc").add("-accel", self.accelerator.name()).add("-cpu", self.cpu());
        args.add("-m", format!("{}M", self.memory_mib)).add("-smp", self.cpus.to_string());
        args.flag("-no-reboot").flag("-nodefaults").flag("-no-user-config").add("-vga", "std");
        args.add("-display", self.display.map_or("none", Window::name));
        if self.icount {
            args.add("-icount", "shift=0,sleep=off");
        }
        if let Some(Tape { log, replays }) = &self.tape {
            // An instruction takes 8 ns. A rate that QEMU adjusts to this host's is not found again by the replay.
            let mode = if *replays { "replay" } else { "record" };
            args.add("-icount", with_path(&format!("shift=3,rr={mode},rrfile="), log));
            // To load a snapshot of this part of the APIC, QEMU's main thread waits for the CPU's, which waits for it to
            // give the replay's lock back. It serves old systems that write task priorities to memory.
            args.add("-global", "apic-common.vapic=off");
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
        let boot = if self.tape.is_some() { "boot-file" } else { "boot" };
        let drive = format!("if=none,id={boot},format=raw,snapshot=on,file=");
        args.add("-drive", with_path(&drive, &self.boot.image));
        if self.tape.is_some() {
            args.add("-drive", format!("if=none,id=boot,driver=blkreplay,image={boot}"));
        }
        // AHCI: by the older interface the BIOS reads word by word, and a busy host makes that take minutes.
        args.add("-device", "ahci,id=ahci").add("-device", "ide-hd,bus=ahci.0,drive=boot,bootindex=0");
        for (index, disk) in self.disks.iter().enumerate() {
            let taped = self.tape.is_some().then(|| folder.join(overlay_name(index)));
            drives::add(&mut args, index, disk, taped.as_deref());
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
        args.add("-chardev", with_path("file,id=com2,path=", &folder.join(COM2_PIPE)));
        args.add("-serial", "chardev:com2");
        args.add("-chardev", with_path("socket,id=control,path=", &folder.join(CONTROL_SOCKET)));
        args.add("-device", "isa-debugcon,iobase=0xe9,chardev=control");
        if self.stays {
            args.flag("-no-shutdown");
        } else {
            // It ends QEMU at once, screen and all.
            args.add("-device", "isa-debug-exit,iobase=0xf4,iosize=0x04");
        }
        if self.trace {
            let memory = format!("memory-backend-file,id=trace,share=on,size={},mem-path=", rings::BYTES);
            args.add("-object", with_path(&memory, &folder.join(TRACE_MEMORY)));
            args.add("-device", format!("ivshmem-plain,memdev=trace,addr={TRACE_SLOT:#x}"));
        }
        if self.gdb {
            let socket = with_path("socket,id=gdb,server=on,wait=off,path=", &folder.join(GDB_SOCKET));
            args.flag("-S").add("-chardev", socket).add("-gdb", "chardev:gdb");
        }
        if self.qmp || self.stays {
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

/// QEMU ends a value at a comma unless it is doubled.
fn with_path(prefix: &str, path: &Path) -> String {
    format!("{prefix}{}", path.to_string_lossy().replace(',', ",,"))
}

#[cfg(test)]
mod tests;
