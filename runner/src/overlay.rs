//! A disk file of QEMU's own kind (qcow2, version 3) that holds nothing yet: what a machine writes goes there, and the file
//! below it stays as it is.
//!
//! It is made here because the program that makes such files, `qemu-img`, is another package than QEMU.

/// Bytes of a cluster, the unit in which the file grows.
const CLUSTER: u64 = 1 << CLUSTER_BITS;
const CLUSTER_BITS: u32 = 16;
/// Each entry of the upper table stands for a table of one cluster, with eight bytes for each cluster of the disk.
const BYTES_OF_AN_ENTRY: u64 = CLUSTER * (CLUSTER / 8);
/// Bytes of the header that are defined.
const HEADER: u32 = 104;

/// An overlay for a disk of `bytes`, rounded up to whole sectors. Which disk lies below is not said in it.
///
/// # Panics
/// For disks of 4 TiB and more, whose upper table would take more than one cluster.
pub(crate) fn empty(bytes: u64) -> Vec<u8> {
    let size = bytes.next_multiple_of(512);
    let entries = size.div_ceil(BYTES_OF_AN_ENTRY).max(1);
    assert!(entries * 8 <= CLUSTER, "the upper table has one cluster");
    let [counts_of_counts, counts, upper_table, end] = [1, 2, 3, 4].map(|index: u64| index * CLUSTER);
    let mut file = vec![0; usize::try_from(end).expect("some clusters fit into memory")];
    let mut header = Vec::new();
    header.extend(b"QFI\xfb");
    header.extend(3_u32.to_be_bytes());
    // No name of a file below, of no length.
    header.extend([0; 12]);
    header.extend(CLUSTER_BITS.to_be_bytes());
    header.extend(size.to_be_bytes());
    // Not encrypted.
    header.extend([0; 4]);
    header.extend(u32::try_from(entries).expect("as was just checked").to_be_bytes());
    header.extend(upper_table.to_be_bytes());
    header.extend(counts_of_counts.to_be_bytes());
    header.extend(1_u32.to_be_bytes());
    // No snapshots, and none of the features that came later.
    header.extend([0; 4 + 8 + 3 * 8]);
    // Sixteen bits count the uses of a cluster.
    header.extend(4_u32.to_be_bytes());
    header.extend(HEADER.to_be_bytes());
    let mut put = |at: u64, bytes: &[u8]| {
        let at = usize::try_from(at).expect("within the file");
        file[at..at + bytes.len()].copy_from_slice(bytes);
    };
    put(0, &header);
    put(counts_of_counts, &counts.to_be_bytes());
    // Each of the four clusters is used once.
    put(counts, &[0, 1].repeat(4));
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(file: &[u8], at: usize) -> u64 {
        u64::from_be_bytes(file[at..at + 8].try_into().unwrap())
    }

    #[test]
    fn the_header_says_where_the_tables_are() {
        let file = empty(1000);
        assert_eq!(&file[..8], b"QFI\xfb\0\0\0\x03");
        assert_eq!(number(&file, 24), 1024);
        assert_eq!((number(&file, 40), number(&file, 48)), (3 << 16, 1 << 16));
        assert_eq!(&file[96..104], [0, 0, 0, 4, 0, 0, 0, 104]);
        assert_eq!(number(&file, 1 << 16), 2 << 16);
        assert_eq!(&file[2 << 16..(2 << 16) + 10], [0, 1, 0, 1, 0, 1, 0, 1, 0, 0]);
        assert!(file[3 << 16..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn the_upper_table_grows_with_the_disk() {
        let entries = |bytes| u32::from_be_bytes(empty(bytes)[36..40].try_into().unwrap());
        assert_eq!([1, 512 << 20, (512 << 20) + 1, 1 << 40].map(entries), [1, 1, 2, 2048]);
    }
}
