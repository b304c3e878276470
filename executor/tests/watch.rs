//! The channel that keeps the last value.
#![cfg(not(loom))]

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};

use executor::host::{block_on, run_until_idle};
use executor::spawn;
use executor::sync::watch::{self, RecvError, SendError};

fn pending<F: Future>(future: F) -> bool {
    pin!(future).poll(&mut Context::from_waker(Waker::noop())).is_pending()
}

#[test]
fn receivers_see_the_last_value_once_each() {
    let (send, mut first) = watch::channel(0);
    let mut second = first.clone();
    assert!(pending(first.changed()));
    send.send(1).unwrap();
    send.send(2).unwrap();
    assert_eq!(first.has_changed(), Ok(true));
    assert_eq!(block_on(first.changed()), Ok(()));
    assert_eq!(*first.borrow(), 2);
    assert!(pending(first.changed()));
    let seen = second.borrow_and_update();
    assert!(seen.has_changed() && *seen == 2);
    drop(seen);
    assert!(pending(second.changed()));
    second.mark_changed();
    assert!(!pending(second.changed()));
    assert!(pending(send.subscribe().changed()));
}

#[test]
fn a_change_wakes_who_waits() {
    let (send, mut receive) = watch::channel("before");
    let handle = spawn(async move {
        receive.changed().await.unwrap();
        *receive.borrow()
    });
    run_until_idle();
    send.send("after").unwrap();
    assert_eq!(block_on(handle), Ok("after"));
}

#[test]
fn the_last_value_outlives_the_senders() {
    let (send, mut receive) = watch::channel(1);
    send.clone().send(2).unwrap();
    drop(send);
    assert_eq!(block_on(receive.changed()), Ok(()));
    assert_eq!(*receive.borrow(), 2);
    assert_eq!(block_on(receive.changed()), Err(RecvError));
    assert_eq!(receive.has_changed(), Err(RecvError));
}

#[test]
fn a_sender_without_receivers_is_told_so() {
    let (send, receive) = watch::channel(1);
    assert!(pending(send.closed()));
    drop(receive);
    assert!(!pending(send.closed()));
    assert_eq!(send.send(2), Err(SendError(2)));
    assert_eq!(send.send_replace(3), 1);
    assert_eq!(*send.subscribe().borrow(), 3);
}

#[test]
fn a_wanted_value_is_waited_for() {
    let (send, mut receive) = watch::channel(1);
    let handle = spawn(async move { receive.wait_for(|value| *value >= 3).await.map(|value| *value) });
    run_until_idle();
    send.send(2).unwrap();
    run_until_idle();
    assert!(!handle.is_finished());
    assert!(!send.send_if_modified(|_| false));
    send.send_modify(|value| *value = 5);
    assert_eq!(block_on(handle), Ok(Ok(5)));
    let mut other = send.subscribe();
    drop(send);
    assert!(matches!(block_on(other.wait_for(|value| *value == 9)), Err(RecvError)));
    assert!(matches!(block_on(other.wait_for(|value| *value == 5)), Ok(value) if *value == 5));
}

#[test]
fn a_receiver_that_waits_when_the_senders_go_is_woken() {
    let (send, mut receive) = watch::channel(());
    let handle = spawn(async move { receive.changed().await });
    run_until_idle();
    drop(send);
    assert_eq!(block_on(handle).unwrap(), Err(RecvError));
}
