//! A pager of one's own: pages that are computed when they are touched. Nothing is stored anywhere, so under pressure a
//! page is just dropped, and computed again at its next touch.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::sync::Arc;

use kernel::{memory::memory, thread, window::Window};
use mm::{PAGE_SIZE, PageError, PageRequest, Pager, Protection, VmObject};

/// Shows the square numbers: word n is n squared.
struct Squares;

const WORDS: u64 = (PAGE_SIZE / size_of::<u64>()) as u64;
const PAGES: u64 = 1 << 20;

impl Pager for Squares {
    fn name(&self) -> &str {
        "squares"
    }

    /// Is called with no lock held, and must not wait: so a task of its own does.
    fn load(&self, mut request: PageRequest) {
        drop(executor::spawn(async move {
            let Ok(mut frame) = memory().frames().alloc().await else {
                return request.complete(Err(PageError::OutOfMemory));
            };
            let first = request.index().as_u64() * WORDS;
            for (number, word) in (first..).zip(frame.as_bytes_mut().chunks_exact_mut(size_of::<u64>())) {
                word.copy_from_slice(&(number * number).to_le_bytes());
            }
            request.attach(frame);
            request.complete(Ok(()));
        }));
    }
}

kernel::entry!(main);

async fn main() {
    let squares = VmObject::new(memory(), Arc::new(Squares), PAGES);
    let bytes = PAGES as usize * PAGE_SIZE;
    let window = Window::map(squares, bytes, Protection::READ).expect("there is room for a window");
    let reader = thread::spawn("reader", move || {
        let table = window.as_slice().as_chunks::<8>().0;
        for number in [3, 1_000, 1_000_000, 500_000_000] {
            // The first touch of a page faults: this thread is parked until the pager has answered.
            kernel::println!("{number} squared is {}", u64::from_le_bytes(table[number]));
        }
    });
    reader.expect("there is memory for a thread").await;
    kernel::exit(0)
}
