//! Working together with `futures-util`.
#![cfg(not(loom))]

use std::pin::pin;

use executor::host::{block_on, simulate_time};
use executor::spawn;
use executor::sync::{Mutex, mpsc};
use executor::time::{Duration, now, sleep};
use futures_util::{FutureExt, future::join, select_biased};

#[test]
fn joined_futures_wait_together() {
    simulate_time();
    block_on(spawn(async {
        join(sleep(Duration::from_millis(5)), sleep(Duration::from_millis(8))).await;
        assert_eq!(now().as_nanos(), 8_000_000);
    }))
    .unwrap();
}

#[test]
fn the_losers_of_a_race_lose_nothing() {
    simulate_time();
    block_on(async {
        let mutex = Mutex::new(());
        let (send, mut receive) = mpsc::channel(1);
        let held = mutex.lock().await;
        for round in 0..10 {
            let mut lock = pin!(mutex.lock().fuse());
            let mut message = pin!(receive.recv().fuse());
            let mut timer = pin!(sleep(Duration::from_millis(1)).fuse());
            if round % 2 == 1 {
                send.try_send(round).unwrap();
            }
            let won = select_biased! {
                _ = lock => panic!("the mutex is held"),
                message = message => message,
                () = timer => None,
            };
            assert_eq!(won, (round % 2 == 1).then_some(round));
        }
        drop(held);
        assert!(mutex.try_lock().is_ok());
    });
}
