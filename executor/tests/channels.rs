//! Channels.
#![cfg(not(loom))]

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use executor::host::{block_on, run_until_idle, simulate_time};
use executor::spawn;
use executor::sync::mpsc::{self, SendError, TryRecvError, TrySendError};
use executor::sync::oneshot;
use executor::time::{Duration, interval};
use futures_util::{StreamExt, stream};

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn a_value_sent_once_arrives() {
    let (send, mut receive) = oneshot::channel();
    assert_eq!(receive.try_recv(), Err(oneshot::TryRecvError::Empty));
    assert!(poll(Pin::new(&mut receive)).is_pending());
    send.send(5).unwrap();
    assert_eq!(poll(Pin::new(&mut receive)), Poll::Ready(Ok(5)));
    assert_eq!(poll(Pin::new(&mut receive)), Poll::Ready(Err(oneshot::RecvError)));
}

#[test]
fn a_sender_that_goes_ends_the_wait() {
    let (send, receive) = oneshot::channel::<()>();
    let handle = spawn(receive);
    run_until_idle();
    drop(send);
    assert_eq!(block_on(handle).unwrap(), Err(oneshot::RecvError));
}

#[test]
fn a_closed_receiver_refuses_but_keeps_what_was_sent() {
    let (send, mut receive) = oneshot::channel();
    send.send(1).unwrap();
    receive.close();
    assert_eq!(receive.try_recv(), Ok(1));

    let (mut send, mut receive) = oneshot::channel();
    assert!(poll(pin!(send.closed())).is_pending());
    receive.close();
    assert!(poll(pin!(send.closed())).is_ready());
    assert!(send.is_closed());
    assert_eq!(send.send(2), Err(2));
    assert_eq!(receive.try_recv(), Err(oneshot::TryRecvError::Closed));
}

#[test]
fn a_value_that_nobody_takes_is_dropped() {
    let value = Arc::new(());
    let (send, receive) = oneshot::channel();
    send.send(Arc::clone(&value)).unwrap();
    assert_eq!(Arc::strong_count(&value), 2);
    drop(receive);
    assert_eq!(Arc::strong_count(&value), 1);
}

#[test]
fn a_full_channel_makes_senders_wait_in_order() {
    let (send, mut receive) = mpsc::channel(1);
    send.try_send(0).unwrap();
    assert_eq!(send.try_send(9), Err(TrySendError::Full(9)));
    let (mut first, mut second) = (Box::pin(send.send(1)), Box::pin(send.send(2)));
    assert!(poll(first.as_mut()).is_pending());
    assert!(poll(second.as_mut()).is_pending());
    assert_eq!(receive.try_recv(), Ok(0));
    assert!(poll(second.as_mut()).is_pending());
    assert_eq!(poll(first.as_mut()), Poll::Ready(Ok(())));
    assert_eq!(block_on(receive.recv()), Some(1));
    assert_eq!(poll(second.as_mut()), Poll::Ready(Ok(())));
    assert_eq!(block_on(receive.recv()), Some(2));
    assert_eq!(receive.try_recv(), Err(TryRecvError::Empty));
}

#[test]
fn messages_sent_before_the_senders_went_arrive() {
    let (send, mut receive) = mpsc::channel(4);
    send.try_send(1).unwrap();
    send.clone().try_send(2).unwrap();
    drop(send);
    assert_eq!(block_on(receive.recv()), Some(1));
    assert_eq!(block_on(receive.recv()), Some(2));
    assert_eq!(block_on(receive.recv()), None);
}

#[test]
fn the_last_sender_that_goes_wakes_the_receiver() {
    let (send, mut receive) = mpsc::channel::<()>(4);
    let handle = spawn(async move { receive.recv().await });
    run_until_idle();
    drop(send);
    assert_eq!(block_on(handle), Ok(None));
}

#[test]
fn closing_ends_waiting_senders_and_waits_for_reserved_places() {
    let (send, mut receive) = mpsc::channel(1);
    let permit = send.try_reserve().unwrap();
    let mut waits = Box::pin(send.send(7));
    assert!(poll(waits.as_mut()).is_pending());
    receive.close();
    assert_eq!(poll(waits.as_mut()), Poll::Ready(Err(SendError(7))));
    assert!(poll(pin!(receive.recv())).is_pending(), "a place is still reserved");
    permit.send(8);
    assert_eq!(poll(pin!(receive.recv())), Poll::Ready(Some(8)));
    assert_eq!(poll(pin!(receive.recv())), Poll::Ready(None));
    assert_eq!(send.try_send(1), Err(TrySendError::Closed(1)));
}

#[test]
fn a_reserved_place_that_is_given_back_can_be_used() {
    let (send, mut receive) = mpsc::channel(1);
    drop(send.try_reserve().unwrap());
    send.try_send(3).unwrap();
    assert_eq!(send.capacity(), 0);
    assert_eq!(block_on(receive.recv()), Some(3));
    assert_eq!((send.capacity(), send.max_capacity()), (1, 1));
}

#[test]
fn a_receiver_that_goes_drops_the_messages_and_closes() {
    let value = Arc::new(());
    let (send, receive) = mpsc::channel(4);
    send.try_send(Arc::clone(&value)).unwrap();
    drop(receive);
    assert_eq!(Arc::strong_count(&value), 1);
    assert!(send.is_closed());
}

#[test]
fn an_unbounded_channel_always_has_room() {
    let (send, mut receive) = mpsc::unbounded_channel();
    for i in 0..1_000 {
        send.send(i).unwrap();
    }
    assert_eq!(receive.len(), 1_000);
    for i in 0..1_000 {
        assert_eq!(block_on(receive.recv()), Some(i));
    }
    receive.close();
    assert_eq!(send.send(0), Err(SendError(0)));
    assert_eq!(block_on(receive.recv()), None);
}

#[test]
fn a_place_that_was_given_to_a_sender_that_goes_is_given_on() {
    let (send, mut receive) = mpsc::channel(1);
    send.try_send(0).unwrap();
    let mut waits: Vec<_> = (0..3).map(|_| Box::pin(send.reserve())).collect();
    assert!(waits.iter_mut().all(|wait| poll(wait.as_mut()).is_pending()));
    drop(waits.remove(1));
    assert_eq!(receive.try_recv(), Ok(0));
    assert_eq!(send.capacity(), 0, "the place is reserved for the one that waits longest");
    assert_eq!(send.try_send(9), Err(TrySendError::Full(9)), "nobody overtakes");
    drop(waits.remove(0));
    let Poll::Ready(Ok(permit)) = poll(waits.remove(0).as_mut()) else { panic!("the place was passed on") };
    permit.send(1);
    assert_eq!(receive.try_recv(), Ok(1));
    assert_eq!(send.capacity(), 1);
}

#[test]
fn a_place_that_is_given_back_after_the_close_ends_the_receivers_wait() {
    let (send, receive) = mpsc::channel::<()>(1);
    let permit = send.try_reserve().unwrap();
    let receiver = spawn(async move {
        let mut receive = receive;
        receive.close();
        receive.recv().await
    });
    run_until_idle();
    assert!(!receiver.is_finished());
    drop(permit);
    run_until_idle();
    assert!(receiver.is_finished(), "the receiver waits on");
    assert_eq!(block_on(receiver), Ok(None));
}

#[test]
fn senders_are_told_of_the_receivers_end() {
    let (send, receive) = mpsc::channel::<()>(1);
    let (unbounded, closes) = mpsc::unbounded_channel::<()>();
    let waiting = send.clone();
    let told = spawn(async move {
        waiting.closed().await;
        unbounded.closed().await;
    });
    run_until_idle();
    drop(receive);
    run_until_idle();
    assert!(!told.is_finished());
    drop(closes);
    run_until_idle();
    assert!(told.is_finished());
    assert!(poll(pin!(send.closed())).is_ready());
}

#[test]
fn receivers_and_intervals_are_streams() {
    simulate_time();
    block_on(async {
        let (send, receive) = mpsc::channel(2);
        let (unbounded, others) = mpsc::unbounded_channel();
        let sender = spawn(async move {
            for i in 0..5 {
                send.send(i).await.unwrap();
                unbounded.send(10 + i).unwrap();
            }
        });
        let mut all: Vec<_> = stream::select(receive, others).collect().await;
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]);
        sender.await.unwrap();
        let ticks: Vec<_> =
            interval(Duration::from_nanos(7)).take(3).map(|tick| tick.as_nanos()).collect().await;
        assert_eq!(ticks, [0, 7, 14]);
    });
}
