//! The main thing: a hash of a disk, read by page faults, is the hash of the file.
use anyhow::{Context, Result, ensure};
use faultline::Firmware;
use faultline_tests::{Case, Kernel, Session, Setup, TestDisk};
use sha2::{Digest, Sha256};

const MIB: u64 = 1 << 20;

/// The hash tests.
pub(crate) fn cases() -> Vec<Case> {
    let hash = |name, bytes, firmware| {
        let setup = move || Setup { firmware, ..hash_of(TestDisk::random(bytes, bytes)) };
        Case::new(name, Kernel::Main).on(setup).driven(is_right).within(120)
    };
    vec![
        hash("hash_of_1_byte", 1, Firmware::Bios),
        hash("hash_of_511_bytes", 511, Firmware::Bios),
        hash("hash_of_4096_bytes", 4096, Firmware::Bios),
        hash("hash_of_4097_bytes", 4097, Firmware::Bios),
        hash("hash_of_64_mib", 64 * MIB, Firmware::Bios),
        hash("hash_of_1_byte_booted_by_uefi", 1, Firmware::Uefi),
        hash("hash_of_4097_bytes_booted_by_uefi", 4097, Firmware::Uefi),
        Case::new("hash_of_256_mib_in_64_mib_of_memory", Kernel::Main)
            .on(|| Setup { memory_mib: 64, ..hash_of(TestDisk::random(256 * MIB, 7)) })
            .driven(is_right)
            .within(300),
        Case::new("hash_of_a_disk_with_bad_sectors_names_the_offset", Kernel::Main)
            .on(|| hash_of(TestDisk::offsets(4 * MIB).failing(2048..2056)))
            .driven(names_the_offset),
    ]
}

fn hash_of(disk: TestDisk) -> Setup {
    Setup { disks: vec![disk], exec: Some("hash --threads 8".into()), ..Setup::default() }
}

fn is_right(session: Session) -> Result<()> {
    let bytes = std::fs::read(session.folder().join("disk0.img"))?;
    let hex: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let report = session.finish()?;
    report.ended_with(0)?;
    let last = report.exec.lines().last().context("the command printed nothing")?;
    ensure!(last.trim_end() == format!("sha256 {hex}"), "`sha256 {hex}` expected, printed was `{last}`");
    Ok(())
}

fn names_the_offset(session: Session) -> Result<()> {
    let report = session.finish()?;
    report.ended_with(1)?;
    let offset = (2048 * 512).to_string();
    ensure!(
        report.exec.contains(&offset) || report.console.contains(&offset),
        "byte offset {offset} is not named"
    );
    Ok(())
}
