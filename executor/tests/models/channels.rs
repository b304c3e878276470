//! Channels.

use executor::sync::{mpsc, oneshot};
use loom::sync::Arc;
use loom::thread;

use crate::support::{model, wait};

#[test]
fn sending_once_meets_closing() {
    model(|| {
        let (send, mut receive) = oneshot::channel();
        let value = Arc::new(());
        let sent = Arc::clone(&value);
        let other = thread::spawn(move || send.send(sent).is_ok());
        receive.close();
        let got = receive.try_recv().is_ok();
        let sent = other.join().unwrap();
        assert!(sent || !got);
        drop(receive);
        assert_eq!(Arc::strong_count(&value), 1);
    });
}

#[test]
fn a_sender_that_goes_meets_the_receiver() {
    model(|| {
        let (send, receive) = oneshot::channel::<()>();
        let other = thread::spawn(move || drop(send));
        assert!(wait(receive).is_err());
        other.join().unwrap();
    });
}

#[test]
fn closing_a_channel_meets_sending() {
    model(|| {
        let (send, mut receive) = mpsc::channel(1);
        let value = Arc::new(());
        let sent = Arc::clone(&value);
        let other = thread::spawn(move || send.try_send(sent).is_ok());
        receive.close();
        let got = wait(receive.recv()).is_some();
        assert_eq!(other.join().unwrap(), got, "what was sent before the close arrives");
        drop(receive);
        assert_eq!(Arc::strong_count(&value), 1);
    });
}

#[test]
fn a_full_channel_meets_its_receiver() {
    model(|| {
        let (send, mut receive) = mpsc::channel(1);
        let other = thread::spawn(move || {
            wait(async {
                send.send(1).await.unwrap();
                send.send(2).await.unwrap();
            });
        });
        assert_eq!(wait(receive.recv()), Some(1));
        assert_eq!(wait(receive.recv()), Some(2));
        assert_eq!(wait(receive.recv()), None);
        other.join().unwrap();
    });
}
