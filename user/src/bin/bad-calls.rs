//! Hands the kernel what it must refuse, and checks that it does.
#![no_std]
#![no_main]

use faultline_user::{
    line, program,
    system::{BAD_ADDRESS, BAD_FILE, NO_SUCH_CALL, OUTPUT, call, number, write},
};

program!(main);

static TEXT: [u8; 8] = *b"not me!\n";

fn main() -> u8 {
    let text = TEXT.as_ptr() as u64;
    let bad_addresses: [(&str, u64, u64); 8] = [
        ("a null pointer", 0, 8),
        ("an unmapped address", 0x1234_5000, 8),
        ("the kernel's memory", 0xffff_8000_0000_0000, 8),
        ("the kernel itself", 0xffff_ffff_8000_0000, 8),
        ("an address between the halves", 0x0000_8000_0000_0000, 8),
        ("the last page of the lower half", 0x0000_7fff_ffff_f000, 8),
        ("a range that wraps", u64::MAX - 3, 8),
        ("a length beyond all memory", text, u64::MAX - text),
    ];
    let mut wrong = 0;
    let mut check = |what: &str, answer: i64, expected: i64| {
        if answer != expected {
            line!("{what}: answered {answer}, not {expected}");
            wrong += 1;
        }
    };
    for (what, address, bytes) in bad_addresses {
        check(what, call(number::WRITE, [OUTPUT, address, bytes]), BAD_ADDRESS);
    }
    for file in [3, 0x1_0000_0003, u64::MAX] {
        check("a file that is not open", write(file, &TEXT), BAD_FILE);
    }
    check("a bad file and a bad address", call(number::WRITE, [3, 0, 8]), BAD_FILE);
    for unknown in [12_345, 511, u64::MAX] {
        // The second time, the kernel knows already that there is no such call.
        for _ in 0..2 {
            check("an unknown call", call(unknown, [text, text, text]), NO_SUCH_CALL);
        }
    }
    check("nothing to write", write(OUTPUT, &[]), 0);
    line!("bad calls: {wrong} wrong answers");
    u8::from(wrong != 0)
}
