//! Waits in one race: a key here or on the serial line, a timer, a mutex and the end of a task. All are futures, so
//! one `select` waits for all of them, and whichever loses a round goes on waiting in the next.
#![no_std]
#![no_main]

use core::pin::pin;

use executor::sync::Mutex;
use executor::time::{Duration, sleep};
use futures_util::{FutureExt, select_biased};
use kernel::{machine::KEYBOARD, println, serial::CONSOLE};

static MUTEX: Mutex<&str> = Mutex::new("nobody");

kernel::entry!(main);

async fn main() {
    let mut keys = KEYBOARD.keys().expect("no console reads the keyboard here");
    let mut line = CONSOLE.reader().expect("nor the serial line");
    let mut guard = MUTEX.lock().await;
    *guard = "the task before";
    let owner = executor::spawn(async move {
        sleep(Duration::from_millis(300)).await;
        drop(guard);
    });
    let worker = executor::spawn(async {
        sleep(Duration::from_millis(600)).await;
        6 * 7
    });
    // A wait that goes on from round to round is pinned outside of the loop; once it has ended it takes no part any more.
    let (mut lock, mut worker) = (pin!(MUTEX.lock().fuse()), worker.fuse());
    let mut end = pin!(sleep(Duration::from_secs(3)).fuse());
    println!("press keys, for three seconds");
    loop {
        select_biased! {
            // A future that is made anew in each round may be dropped in each: no key is lost.
            key = keys.next().fuse() => println!("keyboard: {key:?}"),
            byte = line.read_byte().fuse() => println!("serial line: {byte:?}"),
            guard = lock => println!("mutex: {} had it", *guard),
            answer = worker => println!("join: {}", answer.expect("nobody aborts it")),
            () = end => break println!("timer: the end"),
        }
    }
    owner.await.expect("nobody aborts it");
    kernel::exit(0)
}
