//! Hooks: which events are told, in which order.
#![cfg(not(loom))]

mod told;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once};

use executor::host::{block_on, block_on_cpus, run_until_idle};
use executor::sync::oneshot;
use executor::{Builder, Class, install_hooks, spawn, yield_now};
use told::LOG;

fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| install_hooks(&LOG));
}

#[test]
fn the_life_of_a_task_is_told() {
    install();
    let (go, gone) = oneshot::channel::<()>();
    let task = Builder::new().name("life").spawn(async move {
        yield_now().await;
        gone.await.unwrap();
    });
    run_until_idle();
    go.send(()).unwrap();
    block_on(task).unwrap();
    let expected =
        ["spawned", "begins", "ends", "begins", "ends", "parked Some(Channel)", "woken", "begins", "done"];
    assert_eq!(LOG.of("life"), expected);
}

#[test]
fn the_end_of_a_task_by_an_abort_is_told() {
    install();
    let task = Builder::new().name("aborted").spawn(std::future::pending::<()>());
    run_until_idle();
    task.abort();
    assert!(block_on(task).is_err());
    assert_eq!(LOG.of("aborted"), ["spawned", "begins", "ends", "parked None", "aborted", "begins", "done"]);
}

#[test]
fn threads_are_told_too_and_their_aborts_are_not() {
    install();
    let (go, gone) = oneshot::channel::<()>();
    let thread = Builder::new().name("thread").class(Class::Thread).spawn(async move { gone.await.is_ok() });
    run_until_idle();
    thread.abort();
    go.send(()).unwrap();
    assert_eq!(block_on(thread), Ok(true));
    assert_eq!(
        LOG.of("thread"),
        ["spawned", "begins", "ends", "parked Some(Channel)", "woken", "begins", "done"]
    );
}

#[test]
fn a_theft_is_told() {
    install();
    block_on_cpus(2, async {
        let released = Arc::new(AtomicBool::new(false));
        let releases = Arc::clone(&released);
        let hog = spawn(async move {
            while !released.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
        });
        let behind =
            Builder::new().name("behind").spawn(async move { releases.store(true, Ordering::SeqCst) });
        hog.await.unwrap();
        behind.await.unwrap();
    });
    assert!(
        LOG.of("behind").contains(&"stolen true".to_owned())
            || LOG.of("task").contains(&"stolen true".to_owned())
    );
}

#[test]
#[should_panic(expected = "once")]
fn hooks_are_installed_once() {
    install();
    install_hooks(&LOG);
}
