//! When the device is asked for interrupts.

use super::*;

#[test]
fn what_comes_between_the_last_look_and_the_wish_for_interrupts_is_handed_back() {
    let mut bench = Bench::new();
    bench.read(7);
    bench.turn();
    bench.device.state().late = Some(7);
    bench.server.as_mut().expect("the queue task runs").before_wait();
    assert_eq!(bench.told(), [(7, Ok(()))]);
}

#[test]
fn interrupts_are_asked_for_only_while_the_task_waits() {
    let bench = Bench::new();
    let asked = || core::mem::take(&mut bench.device.state().asked);
    let mut task = pin!(serve(bench.desk.clone(), bench.device.clone()));
    assert!(ready(task.as_mut()).is_none());
    assert_eq!(asked(), [true]);
    bench.read(3);
    assert!(ready(task.as_mut()).is_none());
    assert_eq!(asked(), [false, true]);
    bench.device.complete(3);
    bench.desk.interrupt();
    assert!(ready(task.as_mut()).is_none());
    assert_eq!((asked(), bench.told()), (vec![false, true], vec![(3, Ok(()))]));
}

#[test]
fn a_device_that_is_gone_is_asked_for_nothing() {
    let mut bench = Bench::new();
    bench.read(1);
    bench.turn();
    bench.device.invent(200);
    bench.interrupt();
    let server = bench.server.as_mut().expect("the queue task runs");
    server.before_wait();
    server.after_wait();
    assert_eq!(bench.device.state().asked, []);
}
