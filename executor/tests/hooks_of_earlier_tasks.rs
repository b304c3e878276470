//! Hooks that are installed when there are tasks already: they have a program of their own, as hooks are installed once.
#![cfg(not(loom))]

mod told;

use executor::host::{block_on, run_until_idle};
use executor::sync::oneshot;
use executor::{Builder, Class, install_hooks};
use told::LOG;

#[test]
fn tasks_that_were_there_before_the_hooks_are_told_of_from_then_on() {
    let (go, gone) = oneshot::channel::<()>();
    let (go_too, gone_too) = oneshot::channel::<()>();
    let task = Builder::new().name("task").spawn(async move { gone.await.is_ok() });
    let thread =
        Builder::new().name("thread").class(Class::Thread).spawn(async move { gone_too.await.is_ok() });
    run_until_idle();
    install_hooks(&LOG);
    for (name, go, handle) in [("task", go, task), ("thread", go_too, thread)] {
        assert!(LOG.of(name).is_empty());
        go.send(()).unwrap();
        assert_eq!(block_on(handle), Ok(true));
        assert_eq!(LOG.of(name), ["woken", "begins", "done"]);
    }
}
