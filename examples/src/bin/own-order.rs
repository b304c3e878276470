//! An order of ready tasks of one's own: one goes before all others. A hundred tasks are always ready; how late is one that
//! sleeps?
// qemu: -smp 1
#![no_std]
#![no_main]

use executor::time::{Duration, Instant, now, sleep};
use executor::{Builder, Order, TaskRef, set_order, spawn, yield_now};
use kernel::println;

struct SleeperFirst;

impl Order for SleeperFirst {
    fn rank(&self, task: &TaskRef) -> u64 {
        u64::from(task.name() != "sleeper")
    }
}

/// What a poll of the busy ones takes, and how many there are.
const POLL: Duration = Duration::from_micros(200);
const BUSY: usize = 100;
const SLEEPS: u32 = 20;

fn spin(until: Instant) {
    while now() < until {
        core::hint::spin_loop();
    }
}

/// How late a sleeper is on average.
async fn lateness() -> Duration {
    let mut late = Duration::ZERO;
    for _ in 0..SLEEPS {
        let due = now() + Duration::from_millis(5);
        sleep(Duration::from_millis(5)).await;
        late += due.elapsed();
    }
    late / SLEEPS
}

kernel::entry!(main);

async fn main() {
    for _ in 0..BUSY {
        drop(spawn(async {
            loop {
                spin(now() + POLL);
                yield_now().await;
            }
        }));
    }
    for (name, order) in [("first in, first out", None), ("sleeper first", Some(&SleeperFirst as &dyn Order))]
    {
        set_order(order);
        let sleeper = Builder::new().name("sleeper").spawn(lateness());
        println!("{name}: {} us late", sleeper.await.expect("nobody aborts it").as_micros());
    }
    kernel::exit(0)
}
