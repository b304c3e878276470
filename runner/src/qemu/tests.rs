//! What the command line must hold.
use super::*;
use crate::disk::{DiskSpec, Failing};
use crate::host::Window;

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
        "file,id=com2,path=/run/com2.pipe -serial chardev:com2",
        "iobase=0xe9,chardev=control",
        "isa-debug-exit,iobase=0xf4",
        "name=opt/faultline/cmdline,file=/run/cmdline",
        "file=/boot,,1.img",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
    for part in ["-icount", "-bios", "qmp", "exec", "virtio", "ivshmem", "vapic"] {
        assert!(!line.contains(part), "{part} in {line}");
    }
}

#[test]
fn options_reach_qemu() {
    let mut config = config();
    config.cpus = 4;
    config.memory_mib = 64;
    config.icount = true;
    config.display = Some(Window::Gtk);
    config.qmp = true;
    config.trace = true;
    config.ovmf = Some("/ovmf.fd".into());
    config.extra = vec!["-d".into(), "int".into()];
    let line = line(&config);
    for part in [
        "-smp 4",
        "-m 64M",
        "-display gtk",
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
    assert!(line.ends_with("-d int"), "{line}");
    config.accelerator = Accelerator::Kvm;
    assert!(config.arguments(Path::new("/run")).contains(&"kvm".into()));
}

#[test]
fn a_machine_whose_screen_is_to_be_seen_stays() {
    let mut config = config();
    assert!(!line(&config).contains("-no-shutdown"));
    config.stays = true;
    let line = line(&config);
    assert!(line.contains("-no-shutdown") && line.contains("qmp.socket"), "{line}");
    assert!(!line.contains("isa-debug-exit"), "{line}");
}

#[test]
fn a_machine_with_a_debugger_waits_for_it() {
    let debugged = line(&MachineConfig { gdb: true, ..config() });
    let gdb = " -S -chardev socket,id=gdb,server=on,wait=off,path=/run/gdb.socket -gdb chardev:gdb ";
    assert!(debugged.contains(gdb), "{debugged}");
    assert!(!line(&config()).contains(" -S "));
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
fn a_taped_machine_leaves_its_disks_as_they_are() {
    let mut config = config();
    config.disks = vec![
        disk("disk0", 1000, DiskSpec { path: "/a".into(), iops: Some(9), ..DiskSpec::default() }),
        disk("programs", 10240, DiskSpec::read_only("/p.tar")),
    ];
    assert!(config.overlays().is_empty());
    config.tape = Some(Tape { log: "/a,log".into(), replays: false });
    assert_eq!(config.overlays().iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["overlay0"]);
    let line = line(&config);
    for part in [
        "-icount shift=3,rr=record,rrfile=/a,,log",
        "-global apic-common.vapic=off",
        "-drive if=none,id=boot,driver=blkreplay,image=boot-file",
        r#""filename":"/a","locking":"on","node-name":"file0","read-only":true"#,
        r#""backing":"file0","driver":"qcow2","file":{"driver":"file","filename":"/run/overlay0"}"#,
        r#""driver":"throttle","file":"overlay0""#,
        r#""driver":"blkreplay","image":"limit0""#,
        r#""driver":"blkreplay","image":"file1""#,
        "drive=taped0,addr=0x10,bootindex=1,ioeventfd=off",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
    config.tape = Some(Tape { log: "/a".into(), replays: true });
    assert!(config.arguments(Path::new("/run")).contains(&"shift=3,rr=replay,rrfile=/a".into()));
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
        failing_writes_once: vec![11..12, 12..13],
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
        r#""iotype":"write","once":true,"sector":12"#,
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
