//! Sleeps and timeouts.
#![cfg(not(loom))]

use std::future::{Future, pending};
use std::pin::pin;
use std::task::{Context, Waker};

use executor::host::{block_on, run_until_idle, simulate_time};
use executor::spawn;
use executor::time::{Duration, Elapsed, Instant, now, sleep, sleep_until, timeout};

#[test]
fn a_sleep_ends_exactly_at_its_deadline() {
    simulate_time();
    block_on(async {
        for nanos in [1, 999, 1_024, 1_025, 1_000_000, 123_456_789, 86_400_000_000_000] {
            let before = now();
            sleep(Duration::from_nanos(nanos)).await;
            assert_eq!(now().as_nanos() - before.as_nanos(), nanos);
        }
    });
}

#[test]
fn a_sleep_of_nothing_or_until_the_past_does_not_wait() {
    let clock = simulate_time();
    clock.advance(Duration::from_secs(1));
    let context = &mut Context::from_waker(Waker::noop());
    assert!(pin!(sleep(Duration::ZERO)).poll(context).is_ready());
    assert!(pin!(sleep_until(Instant::from_nanos(5))).poll(context).is_ready());
}

#[test]
fn sleeps_end_in_the_order_of_their_deadlines() {
    simulate_time();
    let order = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut seed = 88_172_645_463_325_252_u64;
    let mut handles = Vec::new();
    for _ in 0..1_000 {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let deadline = Instant::from_nanos(seed % 10_000_000_000);
        let order = std::sync::Arc::clone(&order);
        handles.push(spawn(async move {
            sleep_until(deadline).await;
            assert!(now() >= deadline, "early");
            order.lock().unwrap().push(deadline);
        }));
    }
    block_on(async {
        for handle in handles {
            handle.await.unwrap();
        }
    });
    assert!(order.lock().unwrap().is_sorted());
}

#[test]
fn deadlines_at_the_end_of_time_are_right() {
    let clock = simulate_time();
    clock.advance(Duration::from_nanos(u64::MAX - 10_000));
    block_on(async {
        sleep(Duration::from_nanos(5_000)).await;
        assert_eq!(now().as_nanos(), u64::MAX - 5_000);
        let forever = timeout(Duration::from_nanos(4_999), sleep(Duration::MAX)).await;
        assert_eq!(forever, Err(Elapsed));
        assert_eq!(now().as_nanos(), u64::MAX - 1);
    });
}

#[test]
fn a_sleep_of_centuries_and_a_short_one_do_not_disturb_each_other() {
    let clock = simulate_time();
    let century = Duration::from_secs(100 * 365 * 86_400);
    let long = spawn(async move {
        sleep(century).await;
        now()
    });
    let short = spawn(async { sleep(Duration::from_millis(1)).await });
    block_on(short).unwrap();
    assert_eq!(clock.now().as_nanos(), 1_000_000);
    assert_eq!(block_on(long), Ok(Instant::default() + century));
}

#[test]
fn a_dropped_sleep_is_taken_out() {
    let clock = simulate_time();
    let mut long = Box::pin(sleep(Duration::from_secs(1)));
    assert!(long.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(long);
    block_on(sleep(Duration::from_millis(3)));
    assert_eq!(clock.now().as_nanos(), 3_000_000);
}

#[test]
fn a_timeout_passes_a_ready_future_on_even_when_it_is_zero() {
    simulate_time();
    assert_eq!(block_on(timeout(Duration::ZERO, async { 3 })), Ok(3));
    assert_eq!(block_on(timeout(Duration::ZERO, pending::<()>())), Err(Elapsed));
    assert_eq!(block_on(timeout(Duration::from_secs(9), pending::<()>())), Err(Elapsed));
    assert_eq!(now().as_nanos(), 9_000_000_000);
}

#[test]
fn a_clock_that_is_moved_by_hand_fires_what_is_due() {
    let clock = simulate_time();
    let handle = spawn(async { sleep(Duration::from_millis(10)).await });
    run_until_idle();
    clock.advance(Duration::from_nanos(9_999_999));
    run_until_idle();
    assert!(!handle.is_finished());
    clock.advance(Duration::from_nanos(1));
    run_until_idle();
    assert!(handle.is_finished());
}

#[test]
fn the_real_clock_is_never_early() {
    let before = std::time::Instant::now();
    block_on(sleep(Duration::from_millis(5)));
    assert!(before.elapsed() >= Duration::from_millis(5));
}

#[test]
#[should_panic(expected = "everything waits")]
fn simulated_time_shows_a_deadlock() {
    simulate_time();
    block_on(pending::<()>());
}
