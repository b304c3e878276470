//! Each part of a machine, missing.
use super::*;

fn fake(sysroot: &Path) -> Toolchain {
    Toolchain { sysroot: sysroot.into(), host: "x86_64-unknown-linux-gnu".into(), release: "1.96.0".into() }
}

fn found(toolchain: &Toolchain, name: &str) -> Finding {
    compiler(toolchain).into_iter().find(|(about, _)| *about == name).expect(name).1
}

#[test]
fn versions_compare_by_number() {
    assert!(at_least("1.96.0", "1.96"));
    assert!(at_least("1.100.0", "1.96"));
    assert!(!at_least("1.95.0", "1.96"));
}

#[test]
fn an_old_compiler_is_named_with_its_cure() {
    let old = Toolchain { release: "1.95.0".into(), ..fake(Path::new("/nowhere")) };
    assert!(matches!(found(&old, "compiler"), Finding::Missing { why, .. } if why.contains("1.95.0")));
    assert!(matches!(found(&fake(Path::new("/nowhere")), "compiler"), Finding::Fine(_)));
    let nightly = Toolchain { release: "1.97.0-nightly".into(), ..fake(Path::new("/nowhere")) };
    assert!(matches!(found(&nightly, "compiler"), Finding::Fine(_)));
}

#[test]
fn missing_parts_of_the_toolchain_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let bare = fake(folder.path());
    assert!(matches!(found(&bare, "rust-src"), Finding::Missing { fix, .. } if fix.contains("rust-src")));
    assert!(matches!(found(&bare, "llvm-tools"), Finding::Missing { fix, .. } if fix.contains("llvm-tools")));
    assert!(matches!(found(&bare, "target x86_64-unknown-none"), Finding::Note(_)));

    let source = folder.path().join("lib/rustlib/src/rust/library/core");
    std::fs::create_dir_all(&source).unwrap();
    std::fs::write(source.join("Cargo.toml"), "").unwrap();
    std::fs::create_dir_all(folder.path().join("lib/rustlib/x86_64-unknown-none/lib")).unwrap();
    assert!(matches!(found(&bare, "rust-src"), Finding::Fine(_)));
    assert!(matches!(found(&bare, "target x86_64-unknown-none"), Finding::Fine(_)));
}

#[test]
fn a_tool_that_does_not_run_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let dangling = folder.path().join("llvm-objcopy");
    std::os::unix::fs::symlink("/nowhere/llvm-objcopy", &dangling).unwrap();
    assert!(matches!(runs(&dangling, &[]), Finding::Missing { .. }));
    assert!(matches!(runs(Path::new("/bin/false"), &[]), Finding::Missing { .. }));
    assert!(matches!(runs(Path::new("/bin/true"), &[]), Finding::Fine(_)));
}

#[test]
fn a_full_disk_is_named_with_how_much_is_to_go() {
    let Finding::Missing { why, fix } = enough_space(100, Path::new("/x")) else {
        panic!("100 MiB are too few")
    };
    assert!(why.contains("100 MiB are free in /x"), "{why}");
    assert!(fix.contains("free 1948 MiB"), "{fix}");
    assert!(matches!(enough_space(SPACE_NEEDED_MIB, Path::new("/x")), Finding::Fine(_)));
    assert!(matches!(space(Path::new("/nowhere")), Finding::Note(_)));
}

#[test]
fn a_firmware_that_is_not_installed_is_told_with_its_cure() {
    let Finding::Note(about) = firmware(Err(anyhow::anyhow!("OVMF is not installed")), false) else {
        panic!("there is none")
    };
    assert!(about.starts_with("--uefi does not work: OVMF is not installed (fix: "), "{about}");
    assert!(about.contains("install ") && !about.contains("FAULTLINE_OVMF"), "{about}");
}

/// Where a program is named or installed already, that is what to change.
#[test]
fn the_cure_of_a_qemu_is_where_it_comes_from() {
    assert!(qemu_fix(QemuCure::Name).contains("`unset FAULTLINE_QEMU`"));
    assert!(qemu_fix(QemuCure::Replace).contains("let FAULTLINE_QEMU name its qemu-system-x86_64"));
    assert!(!qemu_fix(QemuCure::Install).contains("FAULTLINE_QEMU"));
}

/// The device of a machine inside another: there, and of no use. And one that this user may not open.
#[test]
fn a_kvm_that_does_not_work_is_told_with_its_cure() {
    let folder = tempfile::tempdir().unwrap();
    let (device, cpuinfo) = (folder.path().join("kvm"), folder.path().join("cpuinfo"));
    std::fs::write(&device, "").unwrap();
    std::fs::write(&cpuinfo, "flags : fpu sse2").unwrap();
    let Finding::Note(about) = kvm(&Kvm::probe_files(&device, &cpuinfo)) else { panic!("it does not work") };
    assert!(
        about.contains("no virtualisation") && about.contains("fix: switch virtualisation on"),
        "{about}"
    );
    std::fs::write(&cpuinfo, "flags : fpu vmx").unwrap();
    assert!(matches!(kvm(&Kvm::probe_files(&device, &cpuinfo)), Finding::Fine(_)));
    let closed = Kvm::Unusable("/dev/kvm cannot be opened: no (is your user in the group `kvm`?)".into());
    let Finding::Note(about) = kvm(&closed) else { panic!("it cannot be opened") };
    assert!(about.contains("fix: sudo usermod -aG kvm"), "{about}");
    assert!(matches!(kvm(&Kvm::Absent), Finding::Note(_)));
}
